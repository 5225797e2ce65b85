"""The inputs of a task that are source partitions, decoded and stamped here.

Not here: what they take as timestamps (`timestamps`), repartition partitions (`channels`, `rows_input`).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from streamkit.broker import Fetched
from streamkit.errors import DeserializationError
from streamkit.graph import Source
from streamkit.log import decode_parts
from streamkit.records import (
    NEVER_MS,
    Batch,
    Column,
    Later,
    Lines,
    Origin,
    RecordColumns,
    RowError,
    TopicPartition,
)
from streamkit.records.placed import SlicedRecords
from streamkit.runtime.aside import PickedRecords
from streamkit.runtime.blocks import Turn
from streamkit.runtime.context import TaskContext
from streamkit.runtime.deletions import Deletable
from streamkit.runtime.operators.base import Fan
from streamkit.runtime.position import InputPosition, RunMark
from streamkit.runtime.timestamps import Timestamps
from streamkit.runtime.turns import HELD_BYTES_MAX, HeldRows, Limit, Strand
from streamkit.serde import Serde

__all__ = ["SourceInput"]

_PYTHON_ROWS_MAX: Final = 1000
"""Word count was 5 % slower with 60,000 rows at a time (measured, mean of five pairs)."""


@dataclass(slots=True)
class _Held:
    """Records that were read: `rows` are those that wait for their turn, `passed_count` says how many do not."""

    records: RecordColumns
    rows: HeldRows | None
    size_bytes: int
    passed_count: int = 0


class SourceInput:
    """A partition of a topic that users fill: each has a watermark of its own.

    Args:
        source: The node.
        serdes: Of key and value.
        columnar: Whether its readers want a frame, so that timestamps come from one too.
        mark: What this run reads of it.
        position: How far it was read.
        context: Of the task.
    """

    def __init__(
        self,
        source: Source,
        serdes: tuple[Serde, Serde],
        mark: RunMark,
        position: InputPosition,
        context: TaskContext,
        *,
        columnar: bool,
    ) -> None:
        """Go on from `position`."""
        self.topic_partition = TopicPartition(source.topic, context.partition)
        self.next_offset = self.read_offset = position.next_offset
        self._max_ms = self._handed_on_ms = position.max_timestamp_ms
        self._held: deque[_Held] = deque()
        self.strands: tuple[Strand, ...] = (self,) if context.ordered else ()
        self._waits = context.ordered and not context.alone
        self._source, self._mark, self._context, self._columnar = source, mark, context, columnar
        self._key_serde, self._values = serdes[0], Deletable(serdes[1]) if source.nulls_delete else serdes[1]
        self._timestamps = Timestamps(source, columnar=columnar)
        self._told_end = False
        self.receiving: RecordColumns | PickedRecords | None = None
        """What was handed on last: where an error came up, it is among these."""
        self.out = Fan()
        context.stream_time_ms = max(context.stream_time_ms, self._max_ms)

    @property
    def ended(self) -> bool:
        """Whether a bounded run has handed on what lies below its end offset."""
        return self._mark.end_offset is not None and self.next_offset >= self._mark.end_offset

    @property
    def closed(self) -> bool:
        """Whether it was read to where no more comes."""
        return self._mark.end_offset is not None and self.read_offset >= self._mark.end_offset

    @property
    def full(self) -> bool:
        """Whether so much waits that no more is to be read."""
        return sum(held.size_bytes for held in self._held) >= HELD_BYTES_MAX

    @property
    def watermark_ms(self) -> int:
        """The largest timestamp that was handed on minus the source's out-of-orderness."""
        return _less(self._handed_on_ms, self._source.event_time.out_of_orderness_ms)

    @property
    def read_watermark_ms(self) -> int:
        """The largest timestamp so far minus the source's out-of-orderness."""
        return _less(self._max_ms, self._source.event_time.out_of_orderness_ms)

    @property
    def head(self) -> Turn | None:
        """The turn of the first record that waits."""
        rows = self._held[0].rows if self._held else None
        return None if rows is None else rows.head

    @property
    def reached(self) -> Turn:
        """No record that is still to be read has an earlier turn."""
        return self._max_ms, self.topic_partition.topic, self.topic_partition.partition, self.read_offset

    def take(self, fetched: Fetched) -> int:
        """Decode, stamp and hand on; or hold, until `hand_on`."""
        end_offset = fetched.next_offset
        if self._mark.end_offset is not None:
            end_offset = min(end_offset, self._mark.end_offset)
        # What is read of it at once waits as one: it counts with the first piece.
        count, size_bytes = 0, fetched.size_bytes
        for part in self._parts(fetched):
            records = part.below(end_offset)
            for some in self._pieces(records):
                if self._waits:
                    self._hold(some, size_bytes)
                    size_bytes = 0
                else:
                    self.receive(some)
            count += len(records)
        self.read_offset = max(end_offset, self.read_offset)
        if not self._waits:
            self._context.counters.records_in += count
        self._settle()
        return count

    def _hold(self, records: RecordColumns, size_bytes: int) -> None:
        """Stamp records but those that cannot be read; what is found bad later keeps its turn, and is counted then."""
        self._context.reading = (self.topic_partition, int(records.offsets[-1]))
        kept: RecordColumns | PickedRecords = records
        if self._context.aside.has(self.topic_partition):
            kept = self._context.aside.readable(self._source.name, self.topic_partition, records)
        self.receiving = records
        self._held.append(_Held(records, HeldRows(self._batch(kept)) if len(kept) else None, size_bytes))

    def hand_on(self, limit: Limit | None) -> None:
        """Hand on the records of the first batch whose turn has come."""
        held = self._held[0]
        assert held.rows is not None, "what has no rows is passed at once"
        self.receiving = held.records
        batch = held.rows.take(limit)
        self._hand_on(self._context.aside.without_known(batch))
        self._handed_on_ms = int(batch.stream_times_ms[-1])
        self._context.stream_time_ms = max(self._context.stream_time_ms, self._handed_on_ms)
        self._settle()

    def _settle(self) -> None:
        """Move the position to the first record that waits."""
        while self._waits and self._held:
            held = self._held[0]
            if held.rows is not None and len(held.rows):
                self.next_offset = held.rows.head[-1]
                self._pass(held, int(np.searchsorted(held.records.offsets, self.next_offset)))
                return
            self._pass(held, len(held.records))
            self._held.popleft()
        self.next_offset, self._handed_on_ms = self.read_offset, self._max_ms

    def _pass(self, held: _Held, count: int) -> None:
        """Count the first records as read, with those among them that are set aside."""
        context = self._context
        context.counters.records_in += count - held.passed_count
        if context.aside.has(self.topic_partition):
            passed = PickedRecords.of(held.records, np.arange(held.passed_count, count, dtype=np.int64))
            context.counters.add(context.aside.without(self.topic_partition, passed, context.internal)[1])
        held.passed_count = count

    def _parts(self, fetched: Fetched) -> Iterable[RecordColumns]:
        if fetched.in_place is not None:
            return [fetched.in_place.read()]
        stamped = self._source.event_time.field is None
        whole = self._source.key_type is not None and stamped
        return decode_parts(fetched.record_batches, from_offset=self.read_offset, whole=whole)

    def _pieces(self, records: RecordColumns) -> Iterable[RecordColumns]:
        """Cut records for Python functions, before they are decoded: what a step makes is in the cache for the next."""
        if self._columnar or isinstance(records.values, Lines) or len(records) <= _PYTHON_ROWS_MAX:
            return [records] if len(records) else []
        cuts = range(0, len(records), _PYTHON_ROWS_MAX)
        return [SlicedRecords(records, begin, min(begin + _PYTHON_ROWS_MAX, len(records))) for begin in cuts]

    def receive(self, records: RecordColumns | PickedRecords) -> None:
        """Stamp records and hand them on, without those that are set aside."""
        context = self._context
        context.reading = (self.topic_partition, int(records.offsets[-1]))
        if context.aside.has(self.topic_partition):
            records, left_out = context.aside.without(self.topic_partition, records, context.internal)
            context.counters.add(left_out)
            if not len(records):
                return
        self.receiving = records
        self._hand_on(self._batch(records))

    def _hand_on(self, batch: Batch) -> None:
        """Hand a batch on; of lines, which are decoded at once, a part at a time to Python functions."""
        if self._columnar or len(batch) <= _PYTHON_ROWS_MAX:
            self.out.receive(batch)
            return
        for begin in range(0, len(batch), _PYTHON_ROWS_MAX):
            end = min(begin + _PYTHON_ROWS_MAX, len(batch))
            self.out.receive(batch.take(np.arange(begin, end, dtype=np.int64)))

    def _batch(self, records: RecordColumns | PickedRecords) -> Batch:
        values = Column(self._values, encoded=records.values)
        keys = Column(self._key_serde, later=Later(len(records), lambda: records.keys))
        unknown_ms = np.full(len(records), NEVER_MS, dtype=np.int64)
        raw = Origin(
            source=self.topic_partition, offsets=records.offsets, timestamps_ms=unknown_ms, watermarks_ms=unknown_ms
        )
        stamps = self._stamps(Batch(raw, keys, values), records)
        if self._source.key_type is not None:
            self._check_keys(Batch(raw, keys, values))
        running = np.maximum.accumulate(np.concatenate(([self._max_ms], stamps)))
        before, self._max_ms = running[:-1], int(running[-1])
        if not self._waits:
            self._handed_on_ms = self._max_ms
            self._context.stream_time_ms = max(self._context.stream_time_ms, self._max_ms)
        slack_ms = self._source.event_time.out_of_orderness_ms
        origin = Origin(
            source=self.topic_partition,
            offsets=records.offsets,
            timestamps_ms=stamps,
            watermarks_ms=np.where(before == NEVER_MS, NEVER_MS, before - slack_ms) if slack_ms else before,
            published_ms=self._mark.published_ms,
            stream_times_ms=running[1:],
            headers=lambda: records.headers,
        )
        return Batch(origin, keys, values)

    def _check_keys(self, batch: Batch) -> None:
        try:
            batch.keys.objects()
        except RowError as error:
            raise self._bad(batch, error) from error

    def _stamps(self, batch: Batch, records: RecordColumns | PickedRecords) -> npt.NDArray[np.int64]:
        """Return the event time of each record; one that deletes its key has no value to say it."""
        if not self._source.nulls_delete:
            return self._timestamps.of(batch, records)
        # Whole first: a bad value is known by its place among all of them.
        self._timestamps.decode(batch)
        stamps = records.timestamps_ms.copy()
        rows = np.flatnonzero(np.array([value is not None for value in records.values], dtype=np.bool_))
        if len(rows):
            stamps[rows] = self._timestamps.of(batch.take(rows), PickedRecords.of(records, rows))
        return stamps

    def _bad(self, batch: Batch, error: RowError) -> DeserializationError:
        return DeserializationError(
            error.reason,
            topic=self.topic_partition.topic,
            partition=self.topic_partition.partition,
            offset=int(batch.offsets[error.index]),
            node=self._source.name,
            data=error.data,
        )

    def tell(self) -> None:
        """Hand on the watermark, then the end, once."""
        if self.watermark_ms > NEVER_MS:
            self.out.advance(self.watermark_ms)
        if self.ended and not self._told_end:
            self._told_end = True
            self.out.end()

    def position(self) -> InputPosition:
        """Return offset and largest timestamp of what was handed on."""
        return InputPosition(next_offset=self.next_offset, max_timestamp_ms=self._handed_on_ms)


def _less(timestamp_ms: int, slack_ms: int) -> int:
    return NEVER_MS if timestamp_ms == NEVER_MS else timestamp_ms - slack_ms
