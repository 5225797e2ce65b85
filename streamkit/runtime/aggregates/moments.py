"""`var` and `std`: exact sums of the values and of their squares, one exact quotient, rounded once.

With n values, their sum S and the sum Q of their squares, the variance is (nQ - S^2) / (n(n - ddof)). In floats that
cancels; in integers it is exact, and so is every merge.
"""

import math
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.graph import Aggregate
from streamkit.runtime.aggregates.parts import GroupPlan, Order, of_64_bits, same
from streamkit.runtime.exact import (
    SCALE_BITS,
    limbs_of,
    packed,
    quotient,
    root,
    scaled,
    square_limbs_of,
    total_of_limbs,
    unpacked,
)

__all__ = ["MomentsPart", "RowMoments"]

_LIMB: Final = np.uint64(2**32 - 1)
_32: Final = np.uint64(32)
_Limbs: TypeAlias = tuple[int, list[npt.NDArray[np.int64]]]


def _spread(aggregate: Aggregate, total: int, squares: int, count: int, scale_bits: int) -> float | None:
    """Return the variance or the standard deviation of `count` values, all multiples of 2**-scale_bits."""
    if count <= aggregate.ddof:
        return None
    numerator = count * squares - total * total
    denominator = (count * (count - aggregate.ddof)) << (2 * scale_bits)
    return (root if aggregate.kind == "std" else quotient)(numerator, denominator)


class MomentsPart:
    """Variance or standard deviation: exact sums, packed; whether a value is NaN or infinite; how many values."""

    dtype: pl.DataType = pl.Float64()

    def __init__(self, name: str, aggregate: Aggregate, dtype: pl.DataType) -> None:
        """Measure `aggregate.column`, which is `dtype`, as `name`."""
        assert aggregate.column is not None, "it was checked"
        self.name, self._aggregate, self._column = name, aggregate, aggregate.column
        self._scale_bits = SCALE_BITS if dtype.is_float() else 0
        self._total, self._squares, self._special, self._count = (f"{name}${index}" for index in range(4))
        self.partial_schema: dict[str, pl.DataType] = {
            self._total: pl.Binary(),
            self._squares: pl.Binary(),
            self._special: pl.Boolean(),
            self._count: pl.Int64(),
        }

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Add limbs of values and of squares up."""
        values = frame.get_column(self._column)
        if self._scale_bits:
            floats = values.cast(pl.Float64).fill_null(0.0).to_numpy()
            finite = np.isfinite(floats)
            whole, special = np.where(finite, floats, 0.0), pl.Series(self._special, ~finite)
            (base, limbs), (square_base, square_limbs) = limbs_of(whole), square_limbs_of(whole)
            totals: _Limbs = base, list(limbs)
            squares: _Limbs = square_base, list(square_limbs)
        else:
            totals, squares = _integer_limbs(values.fill_null(0).to_numpy())
            special = pl.Series(self._special, np.zeros(len(values), dtype=np.bool_))
        columns, names = [], []
        for kind, (_, limbs_by_place) in (("limb", totals), ("square", squares)):
            made = [pl.Series(f"{self.name}${kind}{place}", limb) for place, limb in enumerate(limbs_by_place)]
            columns += made
            names.append([one.name for one in made])

        def settle(grouped: pl.DataFrame) -> list[pl.Series]:
            exact = [
                total_of_limbs(base, [grouped.get_column(name).to_list() for name in some])
                for (base, _), some in zip((totals, squares), names, strict=True)
            ]
            return self._settled(grouped, [list(map(packed, some)) for some in exact])

        return GroupPlan(
            columns=[*columns, special, values.is_not_null().alias(self._count)],
            aggregations=[
                *(pl.col(column.name).sum() for column in columns),
                pl.col(self._special).any(),
                pl.col(self._count).sum(),
            ],
            settle=settle,
        )

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Add exact sums up, where a group has several."""

        def settle(grouped: pl.DataFrame) -> list[pl.Series]:
            sums = [
                [some[0] if len(some) == 1 else packed(sum(map(unpacked, some))) for some in column.to_list()]
                for column in same(grouped, [self._total, self._squares])
            ]
            return self._settled(grouped, sums)

        return GroupPlan(
            columns=same(frame, list(self.partial_schema)),
            aggregations=[
                pl.col(self._total),
                pl.col(self._squares),
                pl.col(self._special).any(),
                pl.col(self._count).sum(),
            ],
            settle=settle,
        )

    def _settled(self, grouped: pl.DataFrame, sums: list[list[bytes]]) -> list[pl.Series]:
        total, squares = sums
        return [
            pl.Series(self._total, total, dtype=pl.Binary),
            pl.Series(self._squares, squares, dtype=pl.Binary),
            *same(grouped, [self._special, self._count]),
        ]

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the results; null where there are too few values."""
        del by
        parts = zip(*(column.to_list() for column in same(frame, list(self.partial_schema))), strict=True)
        results = [
            math.nan
            if special and count > self._aggregate.ddof
            else _spread(self._aggregate, unpacked(total), unpacked(squares), count, self._scale_bits)
            for total, squares, special, count in parts
        ]
        return pl.Series(self.name, results, dtype=pl.Float64)


def _integer_limbs(numbers: npt.NDArray[Any]) -> tuple[_Limbs, _Limbs]:
    """Return the limbs of integers of up to 64 bits, and of their squares; sums of 2**29 rows of one fit 64 bits."""
    if numbers.dtype != np.uint64:
        numbers = numbers.astype(np.int64)
    largest = max(abs(int(numbers.min(initial=0))), abs(int(numbers.max(initial=0))))
    if largest * largest * len(numbers) < 2**63:
        whole = numbers.astype(np.int64)
        return (0, [whole]), (0, [whole * whole])
    kind = numbers.dtype.type
    totals = [(numbers & kind(2**32 - 1)).astype(np.int64), (numbers >> kind(32)).astype(np.int64)]
    magnitudes = numbers.astype(np.uint64)
    magnitudes = np.where(numbers < 0, ~magnitudes + np.uint64(1), magnitudes)
    high, low = magnitudes >> _32, magnitudes & _LIMB
    top, cross, bottom = high * high, high * low, low * low
    limbs = [
        bottom & _LIMB,
        (bottom >> _32) + np.uint64(2) * (cross & _LIMB),
        np.uint64(2) * (cross >> _32) + (top & _LIMB),
        top >> _32,
    ]
    return (0, totals), (0, [limb.astype(np.int64) for limb in limbs])


_RowSums: TypeAlias = tuple[int, int, bool, int]


class RowMoments:
    """The same record by record: everything in multiples of 2**-1074, so that integers and floats may mix."""

    def __init__(self, name: str, aggregate: Aggregate) -> None:
        """Measure as `name`."""
        self.name, self._aggregate = name, aggregate

    def initial(self) -> _RowSums:
        """Return the sums of no rows."""
        return 0, 0, False, 0

    def add(self, part: _RowSums, value: Any, order: Order) -> _RowSums:
        """Add one value."""
        del order
        if value is None:
            return part
        total, squares, special, count = part
        if isinstance(value, float):
            if not math.isfinite(value):
                return total, squares, True, count + 1
            number = scaled(value)
        elif not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{self.name!r} measures numbers, not {type(value).__name__}")
        else:
            number = of_64_bits(value) << SCALE_BITS
        return total + number, squares + number * number, special, count + 1

    def merge(self, one: _RowSums, other: _RowSums) -> _RowSums:
        """Add sums up."""
        return one[0] + other[0], one[1] + other[1], one[2] or other[2], one[3] + other[3]

    def final(self, part: _RowSums) -> float | None:
        """Return the result; None where there are too few values."""
        total, squares, special, count = part
        if special and count > self._aggregate.ddof:
            return math.nan
        return _spread(self._aggregate, total, squares, count, SCALE_BITS)

    def encode(self, part: _RowSums) -> Any:
        """Pack both sums."""
        total, squares, special, count = part
        return packed(total), packed(squares), special, count

    def decode(self, data: Any) -> _RowSums:
        """Unpack both sums."""
        total, squares, special, count = data
        return unpacked(total), unpacked(squares), special, count
