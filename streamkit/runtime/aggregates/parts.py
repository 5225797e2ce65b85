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
from streamkit.serde import taken_apart

__all__ = [
    "KINDS",
    "ORDER_COLUMNS",
    "ORDER_TYPES",
    "FramePart",
    "GroupPlan",
    "Order",
    "RowPart",
    "comparable",
    "compare",
    "floats_of",
    "is_nan",
    "nan_rank",
    "of_64_bits",
    "plain",
    "ranks_of",
    "same",
    "tie",
    "without",
]

ORDER_COLUMNS: Final = ("$timestamp", "$source", "$offset", "$row")
"""The columns of a frame that say where its rows came from."""

ORDER_TYPES: Final[Sequence[pl.DataType]] = (pl.Int64(), pl.String(), pl.Int64(), pl.Int64())

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


def nan_rank(*, greatest: bool) -> int:
    """Return the rank of NaN where it never wins: as the greatest, or as the least."""
    return -(2**63) if greatest else 2**63 - 1


def ranks_of(values: pl.Series, rank_of_nan: int) -> pl.Series:
    """Return floats as integers that sort as they do, -0.0 before 0.0; nulls stay."""
    floats = values.cast(pl.Float64).fill_null(0.0).to_numpy()
    ranks = np.where(np.isnan(floats), rank_of_nan, _mirrored(floats.view(np.int64)))
    return without(values.is_null().to_numpy(), pl.Series("rank", ranks))


def floats_of(ranks: pl.Series, rank_of_nan: int) -> pl.Series:
    """Return the floats of ranks; nulls stay."""
    numbers = ranks.fill_null(0).to_numpy()
    floats = np.where(numbers == rank_of_nan, math.nan, _mirrored(numbers).view(np.float64))
    return without(ranks.is_null().to_numpy(), pl.Series("float", floats))


def _mirrored(bits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
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


def compare(name: str, one: Any, other: Any) -> int:
    """Return whether a value is less (-1), equal (0) or greater (1); NaN is a case of its own.

    Equal numbers are in the order -0.0, an integer, any other float.

    Raises:
        TypeError: They are of different kinds.
    """
    if KINDS[type(one)] is not KINDS[type(other)]:
        raise TypeError(f"{name!r} compares {type(one).__name__} with {type(other).__name__}")
    left, right = (one, tie(one)), (other, tie(other))
    return (left > right) - (left < right)


def comparable(name: str, value: Any) -> Any:
    """Return a value that can be compared, None too.

    Raises:
        TypeError: It is of no kind that can.
        OverflowError: It is an integer beyond 64 bits.
    """
    if type(value) not in KINDS and value is not None:
        raise TypeError(f"{name!r} compares numbers, text, bytes and booleans, not {type(value).__name__}")
    return of_64_bits(value) if type(value) is int else value


def plain(value: Any) -> Any:
    """Return a value that is no null as it is stored."""
    if type(value) not in KINDS:
        return taken_apart(value)
    return of_64_bits(value) if type(value) is int else value


def tie(value: Any) -> int:
    """Return what orders equal numbers: -0.0, then an integer, then any other float."""
    if type(value) is not float:
        return 1
    return 2 if math.copysign(1.0, value) > 0 or value else 0
