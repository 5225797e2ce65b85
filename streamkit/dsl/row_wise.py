"""Refuses expressions whose rows depend on other rows: results would depend on where a batch is cut."""

import io
from typing import Any, Final

import orjson
import polars as pl

from streamkit.errors import DefinitionError

__all__ = ["check_row_wise"]

_NOT_ROW_WISE: Final = frozenset(
    {"Agg", "AnonymousAgg", "Explode", "Filter", "Gather", "Over", "Rolling", "Slice", "Sort", "SortBy", "Len"}
)
"""Parts of an expression that see, drop or add other rows; polars' own check misses aggregations inside arithmetic."""


def check_row_wise(expression: pl.Expr, where: str) -> None:
    """Check that an expression gives one row for each row, from that row alone.

    Raises:
        DefinitionError: It aggregates, or looks at other rows.
    """
    buffer = io.BytesIO()
    expression.meta.serialize(buffer, format="json")
    if _sees_other_rows(orjson.loads(buffer.getvalue())) or not _is_separable(expression):
        raise DefinitionError(
            f"the expression of {where} is not row-wise: {expression}",
            detail="its rows would depend on where a batch is cut",
            hint="use agg() for totals; select and filter see one row at a time",
        )


def _is_separable(expression: pl.Expr) -> bool:
    """Ask polars about every part: about a whole it forgets some of what is inside arithmetic."""
    try:
        separable: bool = expression.meta.is_row_separable()
        return separable and all(map(_is_separable, expression.meta.pop()))
    except pl.exceptions.ColumnNotFoundError:
        # polars cannot tell for expressions over the elements of a list, which are rows of their own.
        return True


def _sees_other_rows(tree: Any) -> bool:
    if isinstance(tree, dict):
        return any(key in _NOT_ROW_WISE or (key != "Eval" and _sees_other_rows(value)) for key, value in tree.items())
    if isinstance(tree, list):
        return any(map(_sees_other_rows, tree))
    return bool(tree == "Len")
