"""The built-in aggregates record by record: the reference that the columnar spelling is held against."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from streamkit.graph import Aggregate
from streamkit.runtime.aggregates.base import INT64_MAX, INT64_MIN, AggregateOverflow
from streamkit.runtime.aggregates.choosing import RowArg, RowEdge
from streamkit.runtime.aggregates.lists import RowCollect, RowDistinct, RowTopK
from streamkit.runtime.aggregates.moments import RowMoments
from streamkit.runtime.aggregates.parts import Order, RowPart, comparable, compare, is_nan, of_64_bits
from streamkit.runtime.aggregates.sketches import RowSketch
from streamkit.runtime.exact import packed, rounded, scaled, unpacked

__all__ = ["RowAggregates"]


class RowAggregates:
    """Named aggregates of one group of rows.

    An accumulator is a list with one part an aggregate. Values are dicts, or objects with attributes.
    """

    def __init__(self, columns: Mapping[str, Aggregate]) -> None:
        """Aggregate `columns`, by result name."""
        self._columns = dict(columns)
        self._parts: list[RowPart] = [_part_of(name, aggregate) for name, aggregate in columns.items()]
        self._steps = [
            (index, part.add, aggregate.column, aggregate.by)
            for index, (part, aggregate) in enumerate(zip(self._parts, columns.values(), strict=True))
        ]
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder().decode

    def initial(self) -> list[Any]:
        """Return the accumulator of no rows."""
        return [part.initial() for part in self._parts]

    def add(self, accumulator: list[Any], value: Any, order: Order) -> None:
        """Fold one row into an accumulator.

        Raises:
            KeyError, AttributeError: The value has no such field.
            TypeError, OverflowError: A field is of a type that its aggregate does not take, or an integer beyond
                64 bits. The accumulator is then half changed, and of no use.
        """
        fields = isinstance(value, dict)
        for index, add, column, by in self._steps:
            field = None if column is None else value[column] if fields else getattr(value, column)
            if by is not None:
                field = (value[by] if fields else getattr(value, by)), field
            accumulator[index] = add(accumulator[index], field, order)

    def merge(self, one: list[Any], other: list[Any]) -> list[Any]:
        """Return the accumulator of the rows of both: exact, associative, commutative."""
        return [part.merge(mine, theirs) for part, mine, theirs in zip(self._parts, one, other, strict=True)]

    def final(self, accumulator: list[Any]) -> dict[str, Any]:
        """Return the results by name.

        Raises:
            AggregateOverflow: A sum of integers leaves 64 bits.
        """
        return {
            name: part.final(kept) for name, part, kept in zip(self._columns, self._parts, accumulator, strict=True)
        }

    def encode(self, accumulator: list[Any]) -> bytes:
        """Return an accumulator as bytes, the same for equal ones."""
        return self._encode([part.encode(kept) for part, kept in zip(self._parts, accumulator, strict=True)])

    def decode(self, data: bytes) -> list[Any]:
        """Return the accumulator of some bytes."""
        return [part.decode(kept) for part, kept in zip(self._parts, self._decode(data), strict=True)]


class _Count:
    """Rows, whatever is in them."""

    def initial(self) -> int:
        return 0

    def add(self, part: int, value: Any, order: Order) -> int:
        del value, order
        return part + 1

    def merge(self, one: int, other: int) -> int:
        return one + other

    def final(self, part: int) -> int:
        return part

    def encode(self, part: int) -> int:
        return part

    def decode(self, data: int) -> int:
        return data


class _Total:
    """The exact sum of numbers: integers, floats as multiples of 2**-1074, the sum of NaN and infinities, counts.

    Integers and floats are kept apart because only the end tells whether the result is an integer.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def initial(self) -> tuple[int, int, float, int, int]:
        return 0, 0, 0.0, 0, 0

    def add(self, part: tuple[int, int, float, int, int], value: Any, order: Order) -> tuple[int, int, float, int, int]:
        del order
        if value is None:
            return part
        integers, floats, special, integer_count, float_count = part
        if isinstance(value, float):
            if math.isfinite(value):
                return integers, floats + scaled(value), special, integer_count, float_count + 1
            return integers, floats, special + value, integer_count, float_count + 1
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{self.name!r} adds numbers up, not {type(value).__name__}")
        return integers + of_64_bits(value), floats, special, integer_count + 1, float_count

    def merge(
        self, one: tuple[int, int, float, int, int], other: tuple[int, int, float, int, int]
    ) -> tuple[int, int, float, int, int]:
        return (
            one[0] + other[0],
            one[1] + other[1],
            one[2] + other[2],
            one[3] + other[3],
            one[4] + other[4],
        )

    def final(self, part: tuple[int, int, float, int, int]) -> int | float | None:
        integers, floats, special, integer_count, float_count = part
        if not float_count:
            if not INT64_MIN <= integers <= INT64_MAX:
                raise AggregateOverflow(self.name, {})
            return integers if integer_count else None
        return special or rounded(floats + scaled(1.0) * integers)

    def encode(self, part: tuple[int, int, float, int, int]) -> Any:
        integers, floats, special, integer_count, float_count = part
        # NaN has many bit patterns; equal accumulators have equal bytes.
        special = math.nan if math.isnan(special) else special
        return packed(integers), packed(floats), special, integer_count, float_count

    def decode(self, data: Any) -> tuple[int, int, float, int, int]:
        integers, floats, special, integer_count, float_count = data
        return unpacked(integers), unpacked(floats), special, integer_count, float_count


class _Mean(_Total):
    """The exact sum, divided by the count of numbers and rounded once."""

    def final(self, part: tuple[int, int, float, int, int]) -> float | None:
        integers, floats, special, integer_count, float_count = part
        count = integer_count + float_count
        return (special or rounded(floats + scaled(1.0) * integers, count)) if count else None


class _Extreme:
    """The least or the greatest value of one kind."""

    def __init__(self, name: str, *, greatest: bool) -> None:
        self.name, self._greatest = name, greatest

    def initial(self) -> Any:
        return None

    def add(self, part: Any, value: Any, order: Order) -> Any:
        del order
        return self.merge(part, comparable(self.name, value))

    def merge(self, one: Any, other: Any) -> Any:
        if one is None or other is None:
            return other if one is None else one
        sign = compare(self.name, one, other)
        if is_nan(one) or is_nan(other):
            return other if is_nan(one) else one
        return other if (sign < 0) == self._greatest else one

    def final(self, part: Any) -> Any:
        return part

    def encode(self, part: Any) -> Any:
        return math.nan if is_nan(part) else part

    def decode(self, data: Any) -> Any:
        return data


_MAKERS: Final[dict[str, Callable[[str, Aggregate], RowPart]]] = {
    "count": lambda name, one: _Count(),
    "sum": lambda name, one: _Total(name),
    "mean": lambda name, one: _Mean(name),
    "var": RowMoments,
    "std": RowMoments,
    "min": lambda name, one: _Extreme(name, greatest=False),
    "max": lambda name, one: _Extreme(name, greatest=True),
    "first": lambda name, one: RowEdge(name, last=False),
    "last": lambda name, one: RowEdge(name, last=True),
    "arg_min": RowArg,
    "arg_max": RowArg,
    "top_k": RowTopK,
    "distinct": RowDistinct,
    "approx_distinct": RowSketch,
    "collect": RowCollect,
}


def _part_of(name: str, aggregate: Aggregate) -> RowPart:
    return _MAKERS[aggregate.kind](name, aggregate)
