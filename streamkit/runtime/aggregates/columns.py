"""One built-in aggregate in columns, by kind and column type."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.graph import Aggregate
from streamkit.runtime.aggregates.base import AggregateOverflow
from streamkit.runtime.aggregates.choosing import ArgPart, EdgePart
from streamkit.runtime.aggregates.lists import CollectPart, DistinctPart, TopKPart
from streamkit.runtime.aggregates.moments import MomentsPart
from streamkit.runtime.aggregates.parts import FramePart, GroupPlan, floats_of, nan_rank, ranks_of, same, without
from streamkit.runtime.aggregates.sketches import SketchPart
from streamkit.runtime.exact import limbs_of, packed, rounded, total_of_limbs, unpacked

__all__ = ["part_of"]

_LOW: Final = 2**32 - 1
_LISTS: Final[Mapping[str, type[TopKPart | DistinctPart | SketchPart | CollectPart]]] = {
    "top_k": TopKPart,
    "distinct": DistinctPart,
    "approx_distinct": SketchPart,
    "collect": CollectPart,
}


def part_of(name: str, aggregate: Aggregate, schema: Mapping[str, pl.DataType]) -> FramePart:
    """Return the part of one aggregate whose column was checked."""
    if aggregate.column is None:
        return CountPart(name)
    column, dtype = aggregate.column, schema[aggregate.column]
    if aggregate.kind in ("sum", "mean"):
        total = FloatTotalPart if dtype.is_float() else IntTotalPart
        return total(name, column, mean=aggregate.kind == "mean")
    if aggregate.kind in ("var", "std"):
        return MomentsPart(name, aggregate, dtype)
    listing = _LISTS.get(aggregate.kind)
    if listing is not None:
        return listing(name, aggregate, dtype)
    if aggregate.kind in ("min", "max"):
        extreme = FloatExtremePart if dtype.is_float() else ExtremePart
        return extreme(name, column, dtype, greatest=aggregate.kind == "max")
    if aggregate.by is not None:
        return ArgPart(name, aggregate, dtype, schema[aggregate.by])
    return EdgePart(name, column, dtype, last=aggregate.kind == "last")


class CountPart:
    """Rows, whatever is in them."""

    dtype: pl.DataType = pl.Int64()

    def __init__(self, name: str) -> None:
        """Count as `name`."""
        self.name, self._count = name, f"{name}$0"
        self.partial_schema: dict[str, pl.DataType] = {self._count: pl.Int64()}

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Count rows."""
        del frame
        return GroupPlan(columns=[], aggregations=[pl.len().alias(self._count)], settle=self._settle)

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Add counts up."""
        counts = frame.get_column(self._count)
        return GroupPlan(columns=[counts], aggregations=[pl.col(self._count).sum()], settle=self._settle)

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the counts."""
        del by
        return frame.get_column(self._count).alias(self.name)

    def _settle(self, grouped: pl.DataFrame) -> list[pl.Series]:
        return same(grouped, [self._count])


class IntTotalPart:
    """Sum or mean of integers: low 32 bits, the rest, and how many. Exact while the total is below 2**94."""

    def __init__(self, name: str, column: str, *, mean: bool) -> None:
        """Add `column` up as `name`."""
        self.name, self._column, self._mean = name, column, mean
        self.dtype: pl.DataType = pl.Float64() if mean else pl.Int64()
        self._low, self._high, self._count = names = [f"{name}${index}" for index in range(3)]
        self.partial_schema: dict[str, pl.DataType] = {part: pl.Int64() for part in names}

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Add values up, as they are where no sum can leave 64 bits, else in two halves."""
        values = frame.get_column(self._column)
        present = values.fill_null(0) if values.null_count() else values
        counted = values.is_not_null().alias(self._count)
        numbers = present.to_numpy()
        if numbers.dtype != np.uint64:
            numbers = numbers.astype(np.int64)
        largest = max(abs(int(numbers.min(initial=0))), abs(int(numbers.max(initial=0))))
        if largest * len(numbers) < 2**63:
            halves = [pl.Series(self._low, numbers.astype(np.int64))]
        else:
            halves = [
                pl.Series(self._low, (numbers & numbers.dtype.type(_LOW)).astype(np.int64)),
                pl.Series(self._high, (numbers >> numbers.dtype.type(32)).astype(np.int64)),
            ]
        return self._plan([*halves, counted])

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Add both halves up."""
        return self._plan(same(frame, [self._low, self._high, self._count]))

    def _plan(self, columns: list[pl.Series]) -> GroupPlan:
        sums = [pl.col(column.name).sum() for column in columns]
        return GroupPlan(columns=columns, aggregations=sums, settle=self._settle)

    def _settle(self, grouped: pl.DataFrame) -> list[pl.Series]:
        """Carry from the low half to the high one, so that equal totals look alike."""
        low = grouped.get_column(self._low).to_numpy()
        carried = low >> 32
        high = carried + grouped.get_column(self._high).to_numpy() if self._high in grouped.columns else carried
        if np.abs(high).max(initial=0) >= 2**62:
            raise AggregateOverflow(self.name, {})
        return [
            pl.Series(self._low, low & _LOW),
            pl.Series(self._high, high),
            grouped.get_column(self._count).cast(pl.Int64),
        ]

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return totals or means; null where there was no value."""
        low, high, counts = (column.to_numpy() for column in same(frame, [self._low, self._high, self._count]))
        if self._mean:
            return without(counts == 0, pl.Series(self.name, _means(low, high, counts)))
        wrong = np.flatnonzero((high < -(2**31)) | (high >= 2**31))
        if len(wrong):
            raise AggregateOverflow(self.name, by.row(int(wrong[0]), named=True))
        return without(counts == 0, pl.Series(self.name, (high << 32) | low))


def _means(
    low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return exact means, rounded once: a float division does that while both sides are below 2**53."""
    small = (np.abs(high) < 2**20) & (counts < 2**53)
    totals = np.where(small, (high << 32) | low, 0)
    means: npt.NDArray[np.float64] = totals / np.maximum(counts, 1)
    for index in np.flatnonzero(~small).tolist():
        means[index] = ((int(high[index]) << 32) + int(low[index])) / int(counts[index])
    return means


class FloatTotalPart:
    """Sum or mean of floats: the exact total, packed; the sum of NaN and infinities; and how many values."""

    dtype: pl.DataType = pl.Float64()

    def __init__(self, name: str, column: str, *, mean: bool) -> None:
        """Add `column` up as `name`."""
        self.name, self._column, self._mean = name, column, mean
        self._total, self._special, self._count = (f"{name}${index}" for index in range(3))
        self.partial_schema: dict[str, pl.DataType] = {
            self._total: pl.Binary(),
            self._special: pl.Float64(),
            self._count: pl.Int64(),
        }

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Add limbs up."""
        values = frame.get_column(self._column)
        floats = values.cast(pl.Float64).fill_null(0.0).to_numpy()
        finite = np.isfinite(floats)
        special = np.where(finite, 0.0, floats)
        base, limbs = limbs_of(np.where(finite, floats, 0.0))
        names = [f"{self.name}$limb{index}" for index in range(len(limbs))]
        columns = [pl.Series(name, limb) for name, limb in zip(names, limbs, strict=True)]
        columns += [pl.Series(self._special, special), values.is_not_null().alias(self._count)]

        def settle(grouped: pl.DataFrame) -> list[pl.Series]:
            totals = total_of_limbs(base, [grouped.get_column(name).to_list() for name in names])
            return self._settled(grouped, list(map(packed, totals)))

        sums = [pl.col(column.name).sum() for column in columns]
        return GroupPlan(columns=columns, aggregations=sums, settle=settle)

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Add exact totals up, where a group has several."""

        def settle(grouped: pl.DataFrame) -> list[pl.Series]:
            lists = grouped.get_column(self._total).to_list()
            totals = [some[0] if len(some) == 1 else packed(sum(map(unpacked, some))) for some in lists]
            return self._settled(grouped, totals)

        return GroupPlan(
            columns=same(frame, [self._total, self._special, self._count]),
            aggregations=[pl.col(self._total), pl.col(self._special).sum(), pl.col(self._count).sum()],
            settle=settle,
        )

    def _settled(self, grouped: pl.DataFrame, totals: list[bytes]) -> list[pl.Series]:
        special = grouped.get_column(self._special).to_numpy()
        return [
            pl.Series(self._total, totals, dtype=pl.Binary),
            # NaN has many bit patterns; equal partial rows look alike.
            pl.Series(self._special, np.where(np.isnan(special), math.nan, special)),
            grouped.get_column(self._count),
        ]

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return totals or means, rounded once; null where there was no value."""
        del by
        totals, specials, counts = (column.to_list() for column in same(frame, list(self.partial_schema)))
        results: list[float | None] = [
            (special or rounded(unpacked(total), count if self._mean else 1)) if count else None
            for total, special, count in zip(totals, specials, counts, strict=True)
        ]
        return pl.Series(self.name, results, dtype=pl.Float64)


class ExtremePart:
    """Minimum or maximum of integers, text, bytes or booleans."""

    def __init__(self, name: str, column: str, dtype: pl.DataType, *, greatest: bool) -> None:
        """Compare `column` as `name`."""
        self.name, self._column, self.dtype, self._greatest = name, column, dtype, greatest
        self._value = f"{name}$0"
        self.partial_schema: dict[str, pl.DataType] = {self._value: dtype}

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Compare values."""
        return self._plan(frame.get_column(self._column).alias(self._value))

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Compare extremes."""
        return self._plan(frame.get_column(self._value))

    def _plan(self, values: pl.Series) -> GroupPlan:
        column = pl.col(self._value)
        extreme = column.max() if self._greatest else column.min()
        return GroupPlan(columns=[values], aggregations=[extreme], settle=self._settle)

    def _settle(self, grouped: pl.DataFrame) -> list[pl.Series]:
        return same(grouped, [self._value])

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the extremes."""
        del by
        return frame.get_column(self._value).alias(self.name)


class FloatExtremePart(ExtremePart):
    """Minimum or maximum of floats, as integers that sort as floats do: -0.0 before 0.0, NaN where it never wins."""

    def __init__(self, name: str, column: str, dtype: pl.DataType, *, greatest: bool) -> None:
        """Compare `column` as `name`."""
        super().__init__(name, column, pl.Float64(), greatest=greatest)
        del dtype
        self.partial_schema = {self._value: pl.Int64()}
        self._nan_rank = nan_rank(greatest=greatest)

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Compare ranks."""
        return self._plan(ranks_of(frame.get_column(self._column), self._nan_rank).alias(self._value))

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the floats of the ranks."""
        del by
        return floats_of(frame.get_column(self._value), self._nan_rank).alias(self.name)
