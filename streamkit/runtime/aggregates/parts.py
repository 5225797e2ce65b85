"""What one built-in aggregate is, in each spelling, and what all of them are made of.

A part in columns says how rows become partial columns, how those merge, and what they finally are. A step is a
`GroupPlan`: columns to derive from the rows, what to sum up over a group, and how the sums become partial columns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.runtime.aggregates.base import INT64_MAX, INT64_MIN

__all__ = [
    "KINDS",
    "ORDER_COLUMNS",
    "FramePart",
    "GroupPlan",
    "Order",
    "RowPart",
    "is_nan",
    "mirrored",
    "of_64_bits",
    "same",
    "without",
]

ORDER_COLUMNS: Final = ("$timestamp", "$source", "$offset", "$row")
"""The columns of a frame that say where its rows came from."""

Order: TypeAlias = tuple[int, str, int, int, int]
"""Timestamp (ms), source topic, partition, offset, and the row among those of one record."""

KINDS: Final[dict[type, str]] = {int: "number", float: "number", str: "text", bool: "boolean", bytes: "bytes"}
"""What can be compared with what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """One step over groups: columns of the rows, aggregations over them, and what becomes of those."""

    columns: Sequence[pl.Series]
    aggregations: Sequence[pl.Expr]
    settle: Callable[[pl.DataFrame], Sequence[pl.Series]]


class FramePart(Protocol):
    """One aggregate. `dtype` is its result's; `partial_schema` its partial columns by name."""

    name: str
    dtype: pl.DataType
    partial_schema: dict[str, pl.DataType]

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Return how rows become partial columns."""
        ...

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Return how partial rows become one."""
        ...

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the results of partial rows; `by` holds the group's columns."""
        ...


class RowPart(Protocol):
    """One aggregate record by record: what it keeps of a group (its part), and what it makes of that."""

    def initial(self) -> Any:
        """Return the part of no rows."""
        ...

    def add(self, part: Any, value: Any, order: Order) -> Any:
        """Return the part with one row more; may change the one it is given."""
        ...

    def merge(self, one: Any, other: Any) -> Any:
        """Return the part of the rows of both; changes neither, and may return one of them."""
        ...

    def final(self, part: Any) -> Any:
        """Return the result."""
        ...

    def encode(self, part: Any) -> Any:
        """Return the part as msgpack takes it, the same for equal ones."""
        ...

    def decode(self, data: Any) -> Any:
        """Return the part of what `encode` made."""
        ...


def same(grouped: pl.DataFrame, names: Sequence[str]) -> list[pl.Series]:
    """Return columns as they are."""
    return [grouped.get_column(name) for name in names]


def without(absent: npt.NDArray[np.bool_], values: pl.Series) -> pl.Series:
    """Return values with null where they are absent."""
    return values.set(pl.Series(absent), None) if absent.any() else values


def mirrored(bits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the bits of floats as integers that sort as they do, and such integers as bits: its own inverse."""
    return bits ^ ((bits >> 63) & (2**63 - 1))


def of_64_bits(value: int) -> int:
    """Return an integer that fits into 64 bits (OverflowError)."""
    if not INT64_MIN <= value <= INT64_MAX:
        raise OverflowError(f"the integer {value} leaves 64 bits")
    return value


def is_nan(value: Any) -> bool:
    """Whether a value is a float that is no number."""
    return type(value) is float and math.isnan(value)
