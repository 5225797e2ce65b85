"""Joins: rows meet what a table has for their key. They keep nothing; the tables are asked."""

from collections.abc import Callable
from typing import Any

import numpy as np

from streamkit.records import NEVER_MS, Batch, Column
from streamkit.runtime.operators.base import Fan
from streamkit.runtime.operators.lookups import Lookup, Rows, call_with, found_in, rows_of
from streamkit.runtime.operators.stateless import objects_of
from streamkit.serde import Serde

__all__ = ["JoinOperator", "RowByRow", "TableJoinOperator"]


class JoinOperator:
    """Rows of a stream, each with the value that the table has at that moment; without one a row is left out.

    Args:
        node: The join.
        fn: Takes the row's value and the table's.
        serde: Of what it returns.
        table: Where the values are looked up.
    """

    def __init__(self, node: str, fn: Callable[[Any, Any], Any], serde: Serde, table: Lookup) -> None:
        """Start without receivers."""
        self._node, self._fn, self._serde, self._table = node, fn, serde, table
        self.out = Fan()

    def receive(self, batch: Batch) -> None:
        """Join the rows; each keeps its key, timestamp and record."""
        matched, found = found_in(self._table, batch, self._node)
        if not len(matched):
            return
        own, rows = objects_of(batch, self._node), batch.take(matched)
        made = call_with(self._fn, ([own[row] for row in matched.tolist()], found), rows, self._node)
        self.out.receive(rows.with_values(Column(self._serde, objects=made)))

    def advance(self, watermark_ms: int) -> None:
        """Pass the stream's watermark on."""
        self.out.advance(watermark_ms)

    def end(self) -> None:
        """Pass the stream's end on."""
        self.out.end()


class _Side:
    """What one table of a join hands on, and the other one."""

    __slots__ = ("_join", "ended", "first", "other", "watermark_ms")

    def __init__(self, join: "TableJoinOperator", other: Lookup, *, first: bool) -> None:
        self._join, self.other, self.first = join, other, first
        self.watermark_ms, self.ended = NEVER_MS, False

    def receive(self, batch: Batch) -> None:
        self._join.changed(self, batch)

    def advance(self, watermark_ms: int) -> None:
        self.watermark_ms = watermark_ms
        self._join.advanced()

    def end(self) -> None:
        self.ended = True
        self._join.advanced()


class TableJoinOperator:
    """The keys that two tables both have: a change of either gives a new value, a deletion deletes.

    Args:
        node: The join.
        fn: Takes the values of the first and the second table.
        serde: Of what it returns.
        tables: The first and the second.
    """

    def __init__(self, node: str, fn: Callable[[Any, Any], Any], serde: Serde, tables: tuple[Lookup, Lookup]) -> None:
        """Start without receivers."""
        self._node, self._fn, self._serde, self._tables = node, fn, serde, tables
        self.sides = (_Side(self, tables[1], first=True), _Side(self, tables[0], first=False))
        self.out = Fan()

    def changed(self, side: _Side, batch: Batch) -> None:
        """Take what one table has handed on: only keys that the other one has are of interest."""
        matched, found = found_in(side.other, batch, self._node)
        if not len(matched):
            return
        rows = batch.take(matched)
        if batch.deleted:
            self.out.receive(rows.as_deleted())
            return
        objects = objects_of(batch, self._node)
        own = [objects[row] for row in matched.tolist()]
        values = (own, found) if side.first else (found, own)
        self.out.receive(rows.with_values(Column(self._serde, objects=call_with(self._fn, values, rows, self._node))))

    def advanced(self) -> None:
        """Hand on what both tables agree on; one that ended holds no watermark back."""
        running = [side.watermark_ms for side in self.sides if not side.ended]
        self.out.advance(min(running or [side.watermark_ms for side in self.sides]))
        if not running:
            self.out.end()

    def look_up(self, rows: Batch) -> Batch:
        """Return the rows whose key both tables have, with the value made of both."""
        one = self._tables[0].look_up(rows)
        if not len(one):
            return one
        matched, found = found_in(self._tables[1], one, self._node)
        own = objects_of(one, self._node)
        made = call_with(self._fn, ([own[row] for row in matched.tolist()], found), one.take(matched), self._node)
        return rows.spread(rows_of(one)[matched], Column(self._serde, objects=made))


class RowByRow:
    """Hands on one row at a time, where nodes would see how the input is cut into batches.

    A table and what looks it up may read one input: each row finds what the rows before it made of the table. So may
    nodes that share a store; see `inputs_row_by_row`.
    """

    def __init__(self) -> None:
        """Start without receivers."""
        self.out = Fan()

    def receive(self, batch: Batch) -> None:
        """Cut the batch into its rows."""
        for row in range(len(batch)):
            self.out.receive(batch.take(_one(row)))

    def advance(self, watermark_ms: int) -> None:
        """Pass the watermark on."""
        self.out.advance(watermark_ms)

    def end(self) -> None:
        """Pass the end on."""
        self.out.end()


def _one(row: int) -> Rows:
    return np.array([row], dtype=np.int64)
