"""What the built-in aggregates take and make, column by column."""

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from streamkit.errors import DefinitionError
from streamkit.graph import Aggregate

__all__ = ["check_aggregates", "result_schema"]

_NUMBERS: Final = "sum, mean, var and std take integers and floats"
_ORDERED: Final = "min, max, top_k and distinct take numbers, text, bytes and booleans"
_PLAIN: Final = (
    "first, last, collect, arg_min and arg_max take numbers, text, bytes, booleans, and lists and structs of them"
)
_HINTS: Final = {
    "sum": _NUMBERS,
    "mean": _NUMBERS,
    "var": _NUMBERS,
    "std": _NUMBERS,
    "min": _ORDERED,
    "max": _ORDERED,
    "top_k": _ORDERED,
    "distinct": _ORDERED,
    "approx_distinct": _ORDERED,
    "first": _PLAIN,
    "last": _PLAIN,
    "collect": _PLAIN,
    "arg_min": _PLAIN,
    "arg_max": _PLAIN,
}


def check_aggregates(columns: Mapping[str, Aggregate], schema: Mapping[str, pl.DataType | None]) -> None:
    """Check that each aggregate can be made of its column; a column of unknown type (None) may be anything.

    Raises:
        DefinitionError: A column does not exist, or is of a type that the aggregate does not take.
    """
    for name, aggregate in columns.items():
        for column in aggregate.columns:
            if column not in schema:
                raise DefinitionError(
                    f"{name!r} aggregates the column {column!r}, which does not exist",
                    hint=f"the columns are {', '.join(schema)}" if schema else "the rows have no columns",
                )
        by_dtype = None if aggregate.by is None else schema[aggregate.by]
        if by_dtype is not None and not _takes("min", by_dtype):
            raise DefinitionError(
                f"{name!r} is the {aggregate.kind} by the column {aggregate.by!r}, which is {by_dtype}",
                hint=f"by= of {aggregate.kind} takes numbers, text, bytes and booleans",
            )
        dtype = None if aggregate.column is None else schema[aggregate.column]
        if dtype is not None and not _takes(aggregate.kind, dtype):
            raise DefinitionError(
                f"{name!r} is the {aggregate.kind} of the column {aggregate.column!r}, which is {dtype}",
                hint=_HINTS[aggregate.kind],
            )


def _takes(kind: str, dtype: Any) -> bool:
    number = dtype.is_integer() or dtype.is_float()
    if number or kind in ("sum", "mean", "var", "std"):
        return bool(number)
    if dtype in (pl.String, pl.Boolean, pl.Binary):
        return True
    if kind not in ("first", "last", "collect", "arg_min", "arg_max"):
        return False
    if isinstance(dtype, pl.List):
        return _takes(kind, dtype.inner)
    return isinstance(dtype, pl.Struct) and all(_takes(kind, field.dtype) for field in dtype.fields)


def result_schema(columns: Mapping[str, Aggregate], schema: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    """Return the columns that aggregates make of checked ones."""
    return {
        name: _made(one.kind, pl.Int64() if one.column is None else schema[one.column]) for name, one in columns.items()
    }


def _made(kind: str, dtype: pl.DataType) -> pl.DataType:
    if kind in ("mean", "var", "std") or (kind in ("sum", "min", "max") and dtype.is_float()):
        return pl.Float64()
    if kind in ("top_k", "collect"):
        return pl.List(pl.Float64() if kind == "top_k" and dtype.is_float() else dtype)
    return pl.Int64() if kind in ("sum", "count", "distinct", "approx_distinct") else dtype
