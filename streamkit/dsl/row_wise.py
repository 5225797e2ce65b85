"""Refuses expressions whose rows depend on other rows: results would depend on where a batch is cut.

Polars' own check forgets what lies inside arithmetic, and fails on selectors and on expressions over the elements of
a list. So an expression is taken apart: each of its parts must be of a kind that is known to be row-wise, and polars
is asked about each function alone, with plain columns as its inputs.
"""

import io
from collections.abc import Mapping
from typing import Any, Final

import orjson
import polars as pl

from streamkit.errors import DefinitionError

__all__ = ["check_row_wise"]

_LEAVES: Final = frozenset({"Column", "Columns", "DtypeColumn", "Element", "Exclude", "Field", "Selector", "Wildcard"})
_INPUTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "Alias": (0,),
    "BinaryExpr": ("left", "right"),
    "Cast": ("expr",),
    "RenameAlias": ("expr",),
    "StructEval": ("expr", "evaluation"),
    "Ternary": ("predicate", "truthy", "falsy"),
}
"""Where the parts of the row-wise kinds lie in what polars serializes."""

_FEWER_ROWS: Final = frozenset({"DropNans", "DropNulls"})
"""Functions that polars calls separable, yet that leave rows out."""


def check_row_wise(expression: pl.Expr, where: str) -> None:
    """Check that an expression gives one row for each row, from that row alone.

    Raises:
        DefinitionError: It aggregates, looks at other rows, leaves rows out, or calls a function of Python.
    """
    try:
        culprit = _culprit(_taken_apart(expression))
    except pl.exceptions.ComputeError:
        culprit = "a function of Python, which polars cannot look into"
    if culprit is not None:
        raise DefinitionError(
            f"the expression of {where} is not row-wise: {expression}",
            detail=f"its rows would depend on where a batch is cut, because of {culprit}",
            hint="use agg() for totals, and map() or map_batches() for functions of Python",
        )


def _taken_apart(expression: pl.Expr) -> Any:
    buffer = io.BytesIO()
    expression.meta.serialize(buffer, format="json")
    return orjson.loads(buffer.getvalue())


def _culprit(part: Any) -> str | None:
    """Return the name of the first part that is not row-wise, None if there is none."""
    if isinstance(part, list):
        return next((found for one in part if (found := _culprit(one)) is not None), None)
    if isinstance(part, str):
        return None if part in _LEAVES else part
    kind, inside = next(iter(part.items()))
    match kind:
        case "Function":
            return _culprit_of_function(inside)
        case "Eval":
            # Elements of a list are rows of their own: what runs over them may be anything. `cumulative_eval` may not.
            return "cumulative_eval" if "Cumulative" in inside["variant"] else _culprit(inside["expr"])
        case "KeepName":
            return _culprit(inside)
        case "Literal":
            return "a literal of several rows" if "Series" in inside else None
        case _ if kind in _INPUTS:
            return _culprit([inside[name] for name in _INPUTS[kind]])
        case _:
            return None if kind in _LEAVES else str(kind)


def _culprit_of_function(function: Mapping[str, Any]) -> str | None:
    name = str(function["function"])
    # A literal among the inputs is a parameter, however many rows it has.
    inputs = [part for part in function["input"] if "Literal" not in part]
    if name in _FEWER_ROWS or not _is_separable(function):
        return name
    return _culprit(inputs)


def _is_separable(function: Mapping[str, Any]) -> bool:
    if "SelectFields" in str(function["function"]):
        # `struct.field("*")`, which polars cannot answer for before it knows the fields.
        return True
    inputs = [part if "Literal" in part else {"Column": "any"} for part in function["input"]]
    alone = {"Function": {**function, "input": inputs}}
    try:
        return pl.Expr.deserialize(io.BytesIO(orjson.dumps(alone)), format="json").meta.is_row_separable()
    except pl.exceptions.PolarsError:
        # What depends on more than its columns, as `append` and `int_range` do.
        return False
