"""`first`, `last`, `arg_min` and `arg_max`: the value of one row of the group, with what it was chosen by.

Rows are ordered by the place they came from, which the log alone decides; a value that is equal to another is chosen by
it too.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.graph import Aggregate
from streamkit.runtime.aggregates.parts import (
    ORDER_COLUMNS,
    ORDER_TYPES,
    GroupPlan,
    Order,
    comparable,
    compare,
    is_nan,
    nan_rank,
    plain,
    ranks_of,
    without,
)

__all__ = ["ArgPart", "EdgePart", "RowArg", "RowEdge"]


def _chosen(rank: str, rows: pl.DataFrame, sort: pl.Expr, absent: npt.NDArray[np.bool_], last: bool) -> GroupPlan:
    """Choose the first or the last row of each group in an order, of those that are not absent; keep all its columns.

    The rows are ranked first, in a column `rank`; the least or greatest rank of a group then tells its row.
    """
    ordered = rows.select(sort).to_series().to_numpy()
    ranks = np.empty(rows.height, dtype=np.int64)
    ranks[ordered] = np.arange(rows.height)

    def settle(grouped: pl.DataFrame) -> list[pl.Series]:
        chosen = grouped.get_column(rank)
        found = chosen.is_not_null()
        places = pl.Series("place", ordered[chosen.fill_null(0).to_numpy()] if rows.height else ranks)
        picked = rows[places]
        kept = [pl.when(found).then(pl.col(name)).otherwise(pl.lit(None)).alias(name) for name in picked.columns]
        return (picked if found.all() else picked.select(kept)).get_columns()

    return GroupPlan(
        columns=[without(absent, pl.Series(rank, ranks))],
        aggregations=[pl.col(rank).max() if last else pl.col(rank).min()],
        settle=settle,
    )


class EdgePart:
    """First or last value that is not null, with the place it came from."""

    def __init__(self, name: str, column: str, dtype: pl.DataType, *, last: bool) -> None:
        """Choose from `column` as `name`."""
        self.name, self._column, self.dtype, self._last = name, column, dtype, last
        self._order = [f"{name}${index}" for index in range(len(ORDER_COLUMNS))]
        self._value = f"{name}${len(ORDER_COLUMNS)}"
        self.partial_schema = dict(zip([*self._order, self._value], [*ORDER_TYPES, dtype], strict=True))

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Choose among rows."""
        columns = zip([*ORDER_COLUMNS, self._column], self.partial_schema, strict=True)
        return self._plan(frame.select(pl.col(old).alias(new) for old, new in columns))

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Choose among the chosen."""
        return self._plan(frame.select(list(self.partial_schema)))

    def _plan(self, rows: pl.DataFrame) -> GroupPlan:
        absent = rows.get_column(self._value).is_null().to_numpy()
        return _chosen(f"{self.name}$rank", rows, pl.arg_sort_by(self._order, maintain_order=True), absent, self._last)

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the values."""
        del by
        return frame.get_column(self._value).alias(self.name)


class RowEdge:
    """The same record by record."""

    def __init__(self, name: str, *, last: bool) -> None:
        """Choose as `name`."""
        self.name, self._last = name, last

    def initial(self) -> tuple[Order, Any] | None:
        """Return that nothing was chosen."""
        return None

    def add(self, part: tuple[Order, Any] | None, value: Any, order: Order) -> tuple[Order, Any] | None:
        """Choose between what there is and one value."""
        if value is None:
            return part
        return self.merge(part, (order, plain(value)))

    def merge(self, one: tuple[Order, Any] | None, other: tuple[Order, Any] | None) -> tuple[Order, Any] | None:
        """Choose one of two."""
        if one is None or other is None:
            return other if one is None else one
        # Branches of one stream that meet again give rows of one place: the one that came first is the first.
        return other if (other[0] < one[0]) != self._last else one

    def final(self, part: tuple[Order, Any] | None) -> Any:
        """Return the value."""
        return None if part is None else part[1]

    def encode(self, part: tuple[Order, Any] | None) -> Any:
        """Return the place and the value."""
        return part

    def decode(self, data: Any) -> tuple[Order, Any] | None:
        """Read them."""
        if data is None:
            return None
        order, value = data
        return tuple(order), value


class ArgPart:
    """The value of the row in which another column is least or greatest: the first such row, in the order of places."""

    def __init__(self, name: str, aggregate: Aggregate, dtype: pl.DataType, by_dtype: pl.DataType) -> None:
        """Choose from `aggregate.column` by `aggregate.by` as `name`."""
        assert aggregate.column is not None, "it was checked"
        assert aggregate.by is not None, "it was checked"
        self.name, self.dtype, self._column, self._by = name, dtype, aggregate.column, aggregate.by
        self._greatest = aggregate.kind == "arg_max"
        self._floats = by_dtype.is_float()
        names = [f"{name}${index}" for index in range(len(ORDER_COLUMNS) + 2)]
        self._rank, *self._order, self._value = names
        rank_type = pl.Int64() if self._floats else by_dtype
        self.partial_schema = dict(zip(names, [rank_type, *ORDER_TYPES, dtype], strict=True))

    def partial(self, frame: pl.DataFrame) -> GroupPlan:
        """Choose among rows."""
        ranks = frame.get_column(self._by)
        if self._floats:
            ranks = ranks_of(ranks, nan_rank(greatest=self._greatest))
        places = [frame.get_column(old).alias(new) for old, new in zip(ORDER_COLUMNS, self._order, strict=True)]
        value = frame.get_column(self._column).alias(self._value)
        return self._plan(pl.DataFrame([ranks.alias(self._rank), *places, value]))

    def merge(self, frame: pl.DataFrame) -> GroupPlan:
        """Choose among the chosen."""
        return self._plan(frame.select(list(self.partial_schema)))

    def _plan(self, rows: pl.DataFrame) -> GroupPlan:
        absent = rows.get_column(self._rank).is_null().to_numpy()
        descending = [self._greatest, *[False] * len(self._order)]
        sort = pl.arg_sort_by([self._rank, *self._order], descending=descending, maintain_order=True)
        return _chosen(f"{self.name}$rank", rows, sort, absent, False)

    def final(self, frame: pl.DataFrame, by: pl.DataFrame) -> pl.Series:
        """Return the values."""
        del by
        return frame.get_column(self._value).alias(self.name)


_Choice: TypeAlias = tuple[Any, Order, Any] | None


class RowArg:
    """The same record by record."""

    def __init__(self, name: str, aggregate: Aggregate) -> None:
        """Choose as `name`."""
        self.name, self._greatest = name, aggregate.kind == "arg_max"

    def initial(self) -> _Choice:
        """Return that nothing was chosen."""
        return None

    def add(self, part: _Choice, value: Any, order: Order) -> _Choice:
        """Choose between what there is and one row: the value it is chosen by, and its value."""
        by, kept = value
        if by is None:
            return part
        return self.merge(part, (comparable(self.name, by), order, None if kept is None else plain(kept)))

    def merge(self, one: _Choice, other: _Choice) -> _Choice:
        """Choose one of two."""
        if one is None or other is None:
            return other if one is None else one
        sign = compare(self.name, one[0], other[0])
        if is_nan(one[0]) or is_nan(other[0]):
            sign = 0 if is_nan(one[0]) and is_nan(other[0]) else -1 if is_nan(one[0]) == self._greatest else 1
        if sign:
            return other if (sign < 0) == self._greatest else one
        return other if other[1] < one[1] else one

    def final(self, part: _Choice) -> Any:
        """Return the value."""
        return None if part is None else part[2]

    def encode(self, part: _Choice) -> Any:
        """Return what it was chosen by, the place and the value."""
        return part

    def decode(self, data: Any) -> _Choice:
        """Read them."""
        return None if data is None else (data[0], tuple(data[1]), data[2])
