"""The approximate `distinct`: a theta sketch for each group. The one module that knows datasketches.

A sketch keeps the smallest hashes of the values, 4,096 at most, and the next one as their bound. Trimmed to that and
sorted, it depends on the set of values alone: no order, cut or merge shows in its bytes or in its estimate. (A
HyperLogLog of the same library depends on the order in which it was filled.)
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import polars as pl
from datasketches import compact_theta_sketch, theta_union, update_theta_sketch

from streamkit.graph import Aggregate
from streamkit.runtime.aggregates.lists import canonical
from streamkit.runtime.aggregates.parts import GroupPlan, Order, comparable

__all__ = ["RowSketch", "SketchPart"]

_LG_K: Final = 12
_EMPTY_TEXT: Final = 5e-324
"""What empty text is hashed as: the library leaves empty text out."""


def _sketch(values: Iterable[int | float | str]) -> bytes:
    sketch = update_theta_sketch(_LG_K)
    # `map` in a deque of no length: 40 ns an integer, 80 ns a text, without a line of Python each.
    deque(map(sketch.update, values), maxlen=0)
    return _settled(sketch)


def _settled(sketch: Any) -> bytes:
    sketch.trim()
    return bytes(sketch.compact(True).serialize())


def _united(sketches: Sequence[bytes]) -> bytes:
    if len(sketches) == 1:
        return sketches[0]
    union = theta_union(_LG_K)
    for data in sketches:
        union.update(compact_theta_sketch.deserialize(data))
    return bytes(union.get_result(True).serialize())


def _estimate(sketch: bytes) -> int:
    estimate: float = compact_theta_sketch.deserialize(sketch).get_estimate()
    return round(estimate)


class SketchPart:
    """About how many different values there are, from the different values of each batch."""

    dtype: pl.DataType = pl.Int64()

    def __init__(self, name: str, aggregate: Aggregate, dtype: pl.DataType) -> None:
        """Sketch `aggregate.column`, which is `dtype`, as `name`."""
        assert aggregate.column is not None, "it was checked"
        self.name, self._column, self._source = name, aggregate.column, dtype
        self._kept = f"{name}$0"
        self.partial_schema: dict[str, pl.DataType] = {self._kept: pl.Binary()}

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Hash each value of a group once."""

        def settle(grouped: pl.DataFrame) -> list[pl.Series]:
            lists = grouped.get_column(self._kept)
            values = self._hashed(lists.explode(keep_nulls=False, empty_as_null=False))
            cuts = [0, *np.cumsum(lists.list.len().to_numpy()).tolist()]
            return [pl.Series(self._kept, [_sketch(values[begin:end]) for begin, end in pairwise(cuts)], pl.Binary)]

        values = frame.get_column(self._column).alias(self._kept)
        return GroupPlan(columns=[values], aggregations=[pl.col(self._kept).drop_nulls().unique()], settle=settle)

    def _hashed(self, values: pl.Series) -> list[Any]:
        """Return values as they are hashed: equal numbers as one, as in the Python spelling."""
        if self._source == pl.Binary:
            values = values.bin.encode("hex")
        if values.dtype == pl.String:
            texts: list[Any] = values.to_list()
            return [text or _EMPTY_TEXT for text in texts] if (values == "").any() else texts
        numbers = values.to_numpy()
        if not self._source.is_float():
            # Unsigned integers of 64 bits wrap, so that each stays itself.
            return numbers.astype(np.int64).tolist()  # type: ignore[no-any-return]  # of integers
        floats = numbers.astype(np.float64)
        mixed = floats.astype(object)
        whole = (np.floor(floats) == floats) & (floats >= -(2.0**63)) & (floats < 2.0**63)
        mixed[whole] = floats[whole].astype(np.int64).tolist()
        return mixed.tolist()  # type: ignore[no-any-return]  # of numbers

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Unite sketches, where a group has several."""

        def settle(grouped: pl.DataFrame) -> list[pl.Series]:
            sketches = grouped.get_column(self._kept).to_list()
            return [pl.Series(self._kept, list(map(_united, sketches)), pl.Binary)]

        return GroupPlan(columns=[frame.get_column(self._kept)], aggregations=[pl.col(self._kept)], settle=settle)

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the estimates."""
        del by
        return pl.Series(self.name, list(map(_estimate, frame.get_column(self._kept).to_list())), pl.Int64)


@dataclass(slots=True)
class _Sketched:
    """What was merged, and the values that came since."""

    merged: bytes | None = None
    fresh: Any = None

    def settled(self) -> bytes:
        parts = [] if self.merged is None else [self.merged]
        if self.fresh is not None or not parts:
            parts.append(_sketch(()) if self.fresh is None else _settled(self.fresh))
        return _united(parts)


class RowSketch:
    """The same record by record."""

    def __init__(self, name: str, aggregate: Aggregate) -> None:
        """Sketch as `name`."""
        self.name = name
        del aggregate

    def initial(self) -> _Sketched:
        """Return the sketch of no values."""
        return _Sketched()

    def add(self, part: _Sketched, value: Any, order: Order) -> _Sketched:
        """Hash one value."""
        del order
        if comparable(self.name, value) is None:
            return part
        if part.fresh is None:
            part.fresh = update_theta_sketch(_LG_K)
        part.fresh.update(_hashed(value))
        return part

    def merge(self, one: _Sketched, other: _Sketched) -> _Sketched:
        """Unite both."""
        return _Sketched(_united([one.settled(), other.settled()]))

    def final(self, part: _Sketched) -> int:
        """Return the estimate."""
        return _estimate(part.settled())

    def encode(self, part: _Sketched) -> bytes:
        """Return the sketch, sorted."""
        return part.settled()

    def decode(self, data: bytes) -> _Sketched:
        """Read a sketch."""
        return _Sketched(data)


def _hashed(value: Any) -> int | float | str:
    if isinstance(value, float):
        number: int | float | None = canonical(value)
        return math.nan if number is None else number
    if isinstance(value, int):
        return int(value)
    return (value.hex() if isinstance(value, bytes) else str(value)) or _EMPTY_TEXT
