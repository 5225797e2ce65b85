"""What both spellings of the built-in aggregates share: which columns they take, and how they fail."""

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from streamkit.errors import DefinitionError
from streamkit.graph import Aggregate

__all__ = ["AggregateOverflow", "check_aggregates", "source_order"]

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class AggregateOverflow(OverflowError):
    """Raised by `final` when the exact total of integers leaves 64 bits. The engine names the group's key.

    `by` holds the group's columns where they are known.
    """

    def __init__(self, name: str, by: Mapping[str, Any]) -> None:
        """Keep which aggregate of which group it is."""
        group = ", ".join(f"{column} {value!r}" for column, value in by.items())
        super().__init__(f"{name!r} of {group}" if group else repr(name))
        self.name, self.by = name, dict(by)


def source_order(topic: str, partition: int) -> str:
    """Return a text that sorts as (topic, partition) does: a space comes before all that a topic name may hold."""
    return f"{topic} {partition:010d}"


def check_aggregates(columns: Mapping[str, Aggregate], schema: Mapping[str, pl.DataType]) -> None:
    """Check that each aggregate can be made of its column.

    Raises:
        DefinitionError: A column does not exist, or is of a type that the aggregate does not take.
    """
    for name, aggregate in columns.items():
        if aggregate.column is None:
            continue
        dtype = schema.get(aggregate.column)
        if dtype is None:
            raise DefinitionError(
                f"{name!r} aggregates the column {aggregate.column!r}, which does not exist",
                hint=f"the columns are {', '.join(schema)}",
            )
        if not _takes(aggregate.kind, dtype):
            raise DefinitionError(
                f"{name!r} is the {aggregate.kind} of the column {aggregate.column!r}, which is {dtype}",
                hint=_HINTS[aggregate.kind],
            )


_NUMBERS: Final = "sum and mean take integers and floats"
_ORDERED: Final = "min and max take numbers, text, bytes and booleans"
_PLAIN: Final = "first and last take numbers, text, bytes, booleans, and lists and structs of them"
_HINTS: Final = {
    "sum": _NUMBERS,
    "mean": _NUMBERS,
    "min": _ORDERED,
    "max": _ORDERED,
    "first": _PLAIN,
    "last": _PLAIN,
}


def _takes(kind: str, dtype: Any) -> bool:
    number = dtype.is_integer() or dtype.is_float()
    if number or kind in ("sum", "mean"):
        return bool(number)
    if dtype in (pl.String, pl.Boolean, pl.Binary):
        return True
    if kind not in ("first", "last"):
        return False
    if isinstance(dtype, pl.List):
        return _takes(kind, dtype.inner)
    return isinstance(dtype, pl.Struct) and all(_takes(kind, field.dtype) for field in dtype.fields)
