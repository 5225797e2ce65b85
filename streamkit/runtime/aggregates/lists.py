"""`top_k`, `collect` and the exact `distinct`: aggregates that keep a list of values for each group.

A list is kept in one order, so that equal groups have equal partial columns: the largest value first, by the place a
value came from, or ascending. Without a value it is empty, not null.
"""

import math
from bisect import insort
from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from streamkit.graph import Aggregate
from streamkit.runtime.aggregates.base import AggregateOverflow
from streamkit.runtime.aggregates.parts import (
    KINDS,
    ORDER_COLUMNS,
    ORDER_TYPES,
    GroupPlan,
    Order,
    comparable,
    compare,
    floats_of,
    is_nan,
    nan_rank,
    plain,
    ranks_of,
    same,
    tie,
    without,
)

__all__ = ["CollectPart", "DistinctPart", "RowCollect", "RowDistinct", "RowTopK", "TopKPart"]

_COLLECT_HINT = "raise limit= of agg.collect, or group by more"
_DISTINCT_HINT = "raise limit= of agg.distinct, or use approx=True"


def _exploded(name: str) -> pl.Expr:
    return pl.col(name).list.explode(keep_nulls=False, empty_as_null=False)


def _too_many(name: str, limit: int, hint: str, group_index: int | None = None) -> AggregateOverflow:
    return AggregateOverflow(
        name, {}, reason=f"a group has more than {limit:,} values", hint=hint, group_index=group_index
    )


def _within(lists: pl.Series, name: str, limit: int, hint: str) -> None:
    """Check that no list is longer than allowed."""
    longer = (lists.list.len() > limit).arg_true()
    if len(longer):
        raise _too_many(name, limit, hint, int(longer[0]))


class TopKPart:
    """The largest values, the largest first; of floats their ranks, so that NaN comes last."""

    def __init__(self, name: str, aggregate: Aggregate, dtype: pl.DataType) -> None:
        """Keep `aggregate.limit` values of `aggregate.column`, which is `dtype`, as `name`."""
        assert aggregate.column is not None, "it was checked"
        self.name, self._column, self._limit = name, aggregate.column, aggregate.limit
        self._floats = dtype.is_float()
        self.dtype: pl.DataType = pl.List(pl.Float64() if self._floats else dtype)
        self._kept = f"{name}$0"
        self.partial_schema: dict[str, pl.DataType] = {self._kept: pl.List(pl.Int64()) if self._floats else self.dtype}

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Sort values."""
        values = frame.get_column(self._column)
        if self._floats:
            values = ranks_of(values, nan_rank(greatest=True))
        return self._plan(values.alias(self._kept), pl.col(self._kept).drop_nulls())

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Sort the values of several lists."""
        return self._plan(frame.get_column(self._kept), _exploded(self._kept))

    def _plan(self, column: pl.Series, values: pl.Expr) -> GroupPlan:
        largest = values.sort(descending=True).head(self._limit)
        return GroupPlan(columns=[column], aggregations=[largest], settle=lambda grouped: same(grouped, [self._kept]))

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the lists."""
        del by
        lists = frame.get_column(self._kept)
        if not self._floats:
            return lists.alias(self.name)
        flat = lists.explode(keep_nulls=False, empty_as_null=False)
        floats = floats_of(flat, nan_rank(greatest=True)).to_list()
        cuts = [0, *np.cumsum(lists.list.len().to_numpy()).tolist()]
        return pl.Series(self.name, [floats[begin:end] for begin, end in pairwise(cuts)], dtype=self.dtype)


class DistinctPart:
    """How many different values there are: kept ascending, each once; of floats 0.0 is -0.0, and NaN one value."""

    dtype: pl.DataType = pl.Int64()

    def __init__(self, name: str, aggregate: Aggregate, dtype: pl.DataType) -> None:
        """Tell the values of `aggregate.column` apart as `name`, up to `aggregate.limit`."""
        assert aggregate.column is not None, "it was checked"
        self.name, self._column, self._limit = name, aggregate.column, aggregate.limit
        self._floats, self._kept = dtype.is_float(), f"{name}$0"
        self.partial_schema: dict[str, pl.DataType] = {self._kept: pl.List(pl.Float64() if self._floats else dtype)}

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Take each value once."""
        values = frame.get_column(self._column).alias(self._kept)
        if self._floats:
            floats = values.cast(pl.Float64).fill_null(0.0).to_numpy()
            # Adding 0.0 makes -0.0 the other zero (polars would leave it out); NaN has many bit patterns.
            alike = np.where(np.isnan(floats), math.nan, floats + 0.0)
            values = without(values.is_null().to_numpy(), pl.Series(self._kept, alike))
        return self._plan(values, pl.col(self._kept).drop_nulls())

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Take each value of several lists once."""
        return self._plan(frame.get_column(self._kept), _exploded(self._kept))

    def _plan(self, column: pl.Series, values: pl.Expr) -> GroupPlan:
        return GroupPlan(columns=[column], aggregations=[values.unique().sort()], settle=self._settle)

    def _settle(self, grouped: pl.DataFrame) -> list[pl.Series]:
        lists = grouped.get_column(self._kept)
        _within(lists, self.name, self._limit, _DISTINCT_HINT)
        return [lists]

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return how many there are."""
        del by
        return frame.get_column(self._kept).list.len().cast(pl.Int64).alias(self.name)


class CollectPart:
    """All values, with the places they came from, in the order of those."""

    def __init__(self, name: str, aggregate: Aggregate, dtype: pl.DataType) -> None:
        """Keep the values of `aggregate.column` as `name`, up to `aggregate.limit`."""
        assert aggregate.column is not None, "it was checked"
        self.name, self._column, self._limit = name, aggregate.column, aggregate.limit
        self.dtype: pl.DataType = pl.List(dtype)
        *self._order, self._value = names = [f"{name}${index}" for index in range(len(ORDER_COLUMNS) + 1)]
        self._rank = f"{name}$rank"
        self.partial_schema: dict[str, pl.DataType] = {
            column: pl.List(one) for column, one in zip(names, [*ORDER_TYPES, dtype], strict=True)
        }

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Sort the rows that have a value: all at once, which gives each a rank."""
        rows = frame.select(
            pl.col(old).alias(new) for old, new in zip([*ORDER_COLUMNS, self._column], self.partial_schema, strict=True)
        )
        ordered = rows.select(pl.arg_sort_by(self._order, maintain_order=True)).to_series().to_numpy()
        ranks = np.empty(rows.height, dtype=np.int64)
        ranks[ordered] = np.arange(rows.height)
        present = pl.col(self._value).is_not_null()
        rank = pl.col(self._rank).filter(present)
        return GroupPlan(
            columns=[*rows.get_columns(), pl.Series(self._rank, ranks)],
            aggregations=[pl.col(name).filter(present).sort_by(rank) for name in self.partial_schema],
            settle=self._settle,
        )

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Sort the values of several lists by their places."""
        places = [_exploded(name) for name in self._order]
        return GroupPlan(
            columns=same(frame, list(self.partial_schema)),
            aggregations=[_exploded(name).sort_by(places, maintain_order=True) for name in self.partial_schema],
            settle=self._settle,
        )

    def _settle(self, grouped: pl.DataFrame) -> list[pl.Series]:
        lists = same(grouped, list(self.partial_schema))
        _within(lists[0], self.name, self._limit, _COLLECT_HINT)
        return lists

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the values."""
        del by
        return frame.get_column(self._value).alias(self.name)


def _sort_key(value: Any) -> tuple[Any, ...]:
    return (0,) if is_nan(value) else (1, value, tie(value))


class RowTopK:
    """The same as `TopKPart` record by record, ascending."""

    def __init__(self, name: str, aggregate: Aggregate) -> None:
        """Keep `aggregate.limit` values as `name`."""
        self.name, self._limit = name, aggregate.limit

    def initial(self) -> list[Any]:
        """Return no values."""
        return []

    def add(self, part: list[Any], value: Any, order: Order) -> list[Any]:
        """Put one value where it belongs."""
        del order
        if comparable(self.name, value) is None:
            return part
        if part:
            compare(self.name, value, part[0])
        if len(part) < self._limit or _sort_key(value) > _sort_key(part[0]):
            insort(part, value, key=_sort_key)
            del part[: max(0, len(part) - self._limit)]
        return part

    def merge(self, one: list[Any], other: list[Any]) -> list[Any]:
        """Sort the values of both."""
        if one and other:
            compare(self.name, one[0], other[0])
        return sorted([*one, *other], key=_sort_key)[-self._limit :]

    def final(self, part: list[Any]) -> list[Any]:
        """Return the largest first."""
        return part[::-1]

    def encode(self, part: list[Any]) -> Any:
        """Return the values, NaN as one pattern of bits."""
        return [math.nan if is_nan(value) else value for value in part]

    def decode(self, data: Any) -> list[Any]:
        """Read the values."""
        return list(data)


_Told: TypeAlias = tuple[str, Any]
"""A value with its kind, so that True is not 1."""


class RowDistinct:
    """The same as `DistinctPart` record by record; 1 and 1.0 are one value."""

    def __init__(self, name: str, aggregate: Aggregate) -> None:
        """Tell values apart as `name`, up to `aggregate.limit`."""
        self.name, self._limit = name, aggregate.limit

    def initial(self) -> set[_Told]:
        """Return no values."""
        return set()

    def add(self, part: set[_Told], value: Any, order: Order) -> set[_Told]:
        """Add one value."""
        del order
        if comparable(self.name, value) is None:
            return part
        part.add((KINDS[type(value)], canonical(value)))
        return self._checked(part)

    def merge(self, one: set[_Told], other: set[_Told]) -> set[_Told]:
        """Unite both."""
        return self._checked(one | other)

    def _checked(self, part: set[_Told]) -> set[_Told]:
        if len(part) > self._limit:
            raise _too_many(self.name, self._limit, _DISTINCT_HINT)
        return part

    def final(self, part: set[_Told]) -> int:
        """Return how many there are."""
        return len(part)

    def encode(self, part: set[_Told]) -> Any:
        """Return the values in order."""
        return sorted(part, key=lambda told: (told[0], told[1] is not None, told[1] if told[1] is not None else 0))

    def decode(self, data: Any) -> set[_Told]:
        """Read the values."""
        return set(map(tuple, data))


def canonical(value: Any) -> Any:
    """Return the one form of equal numbers: an integer where it is one of 64 bits; None for NaN."""
    if type(value) is not float:
        return value
    if value.is_integer() and -(2.0**63) <= value < 2.0**63:
        return int(value)
    return None if math.isnan(value) else value


class RowCollect:
    """The same as `CollectPart` record by record, as (place, value)."""

    def __init__(self, name: str, aggregate: Aggregate) -> None:
        """Keep values as `name`, up to `aggregate.limit`."""
        self.name, self._limit = name, aggregate.limit

    def initial(self) -> list[tuple[Order, Any]]:
        """Return no values."""
        return []

    def add(self, part: list[tuple[Order, Any]], value: Any, order: Order) -> list[tuple[Order, Any]]:
        """Append one value."""
        if value is not None:
            part.append((order, plain(value)))
        return self._checked(part)

    def merge(self, one: list[tuple[Order, Any]], other: list[tuple[Order, Any]]) -> list[tuple[Order, Any]]:
        """Return the values of both."""
        return self._checked([*one, *other])

    def _checked(self, part: list[tuple[Order, Any]]) -> list[tuple[Order, Any]]:
        if len(part) > self._limit:
            raise _too_many(self.name, self._limit, _COLLECT_HINT)
        return part

    def final(self, part: list[tuple[Order, Any]]) -> list[Any]:
        """Return the values by their places."""
        return [value for _, value in self.encode(part)]

    def encode(self, part: list[tuple[Order, Any]]) -> Sequence[tuple[Order, Any]]:
        """Return places and values in the order of the places."""
        return sorted(part, key=itemgetter(0))

    def decode(self, data: Any) -> list[tuple[Order, Any]]:
        """Read places and values."""
        return [(tuple(order), value) for order, value in data]
