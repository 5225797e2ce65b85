"""The partitions of shuffles that carry whole rows: each upstream task is a strand of its own."""

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamkit.broker import Fetched
from streamkit.records import Batch, Column, Origin, TopicPartition
from streamkit.runtime.block_reading import foreign_block, has_ended, said_after, take_blocks, watermark_of
from streamkit.runtime.blocks import FIRST_TURN, BlockHeader, Turn, WholeRows, decode_whole_block
from streamkit.runtime.context import TaskContext
from streamkit.runtime.operators.base import Fan
from streamkit.runtime.position import ChannelPosition, InputPosition
from streamkit.runtime.turns import HeldRows, Limit, Strand
from streamkit.serde import Serde
from streamkit.topology import Repartition

__all__ = ["RowsInput"]


@dataclass(slots=True)
class _Block:
    """A block that was read: its rows that wait, how many rows do not, and what holds after it."""

    offset: int
    parts: deque[HeldRows]
    passed_count: int
    header: BlockHeader


class _Channel:
    """The rows of one upstream task."""

    def __init__(self, position: ChannelPosition, context: TaskContext, out: Fan) -> None:
        self.said = position
        self._reached, self._reached_run = position.reached, position.reached_run
        self._context, self._run, self._out = context, context.run, out
        self._from = (position.block_offset, position.row_count)
        self._ended_run = position.ended_run
        self.blocks: deque[_Block] = deque()
        # The turns of the parts behind the first one, without those that an earlier turn comes behind: behind rows of a
        # bounded run that was left there may be such.
        self._behind: deque[Turn] = deque()

    @property
    def head(self) -> Turn | None:
        return self.blocks[0].parts[0].head if self.blocks else None

    @property
    def reached(self) -> Turn:
        # What was said of an earlier bounded run left out inputs that had ended in it, and may have more rows now.
        said = self._reached if self._reached_run in (0, self._run.number) else FIRST_TURN
        return min(said, self._behind[0]) if self._behind else said

    @property
    def closed(self) -> bool:
        return self._run.bounded and self._ended_run >= self._run.number

    @property
    def ended(self) -> bool:
        return has_ended(self.said, self._run)

    def add(self, offset: int, header: BlockHeader, batches: Sequence[Batch]) -> None:
        """Take a block, without the rows that were handed on before the task was opened."""
        if offset < self._from[0]:
            return
        left = passed = self._from[1] if offset == self._from[0] else 0
        parts: deque[HeldRows] = deque()
        for batch in batches:
            begin = min(left, len(batch))
            left -= begin
            if begin < len(batch):
                parts.append(HeldRows(batch, begin))
        for part in itertools.islice(parts, 0 if self.blocks else 1, None):
            while self._behind and self._behind[-1] > part.head:
                self._behind.pop()
            self._behind.append(part.head)
        self.blocks.append(_Block(offset, parts, passed, header))
        if header.reached is not None:
            self._reached, self._reached_run = header.reached, header.reached_run or 0
        if header.end_run is not None:
            self._ended_run = header.end_run
        self.settle()

    def hand_on(self, limit: Limit | None) -> None:
        block = self.blocks[0]
        batch = block.parts[0].take(limit)
        block.passed_count += len(batch)
        passed = not len(block.parts[0])
        if passed:
            block.parts.popleft()
        self._out.receive(self._left(batch))
        self.settle()
        if passed and self._behind and self._behind[0] == self.head:
            self._behind.popleft()

    def _left(self, batch: Batch) -> Batch:
        """Return the rows without those of records that are set aside."""
        context = self._context
        if not context.aside.has(batch.origin.source):
            return batch
        batch, left_out = context.aside.without_rows(batch, context.internal)
        context.counters.add(left_out)
        return batch

    def settle(self) -> None:
        """Let what holds after a block hold, once all its rows are handed on."""
        while self.blocks and not self.blocks[0].parts:
            block = self.blocks.popleft()
            self.said = replace(said_after(self.said, block.header), block_offset=block.offset + 1, row_count=0)

    def position(self) -> ChannelPosition:
        head, reached = self.head, self.reached
        if head is not None:
            reached = min(head, reached)
        said = replace(self.said, reached=reached, reached_run=self._reached_run)
        if head is None:
            return said
        return replace(said, block_offset=self.blocks[0].offset, row_count=self.blocks[0].passed_count)


class RowsInput:
    """A partition of a repartition topic whose blocks hold rows.

    Args:
        repartition: The shuffle.
        channels: Ids of all upstream tasks; one that has not spoken holds the others back.
        serdes: Of key and value.
        position: How far it was handed on.
        context: Of the task.
    """

    def __init__(
        self,
        repartition: Repartition,
        channels: Sequence[str],
        serdes: tuple[Serde, Serde],
        position: InputPosition,
        context: TaskContext,
    ) -> None:
        """Go on from `position`."""
        self.topic_partition = TopicPartition(repartition.topic, context.partition)
        self.read_offset, self.full = position.next_offset, False
        self._repartition, self._serdes, self._context = repartition, serdes, context
        self.out = Fan()
        self._channels = {
            name: _Channel(position.channels.get(name, ChannelPosition()), context, self.out) for name in channels
        }
        self.strands: tuple[Strand, ...] = tuple(self._channels.values()) if repartition.ordered else ()
        self._told_end = False
        context.stream_time_ms = max(
            context.stream_time_ms, *(channel.said.watermark_ms for channel in self._channels.values())
        )

    @property
    def next_offset(self) -> int:
        """The first block of which a row waits."""
        waiting = [channel.blocks[0].offset for channel in self._channels.values() if channel.blocks]
        return min(waiting, default=self.read_offset)

    @property
    def ended(self) -> bool:
        """Whether all channels marked the end of this run, and no row waits."""
        return all(channel.ended for channel in self._channels.values())

    @property
    def watermark_ms(self) -> int:
        """The minimum over the channels; one that marked the end of this run holds nothing back."""
        return watermark_of([channel.said for channel in self._channels.values()], self._context.run)

    @property
    def read_watermark_ms(self) -> int:
        """The same: blocks are read on, whatever waits."""
        return self.watermark_ms

    def take(self, fetched: Fetched) -> int:
        """Read blocks; without an order their rows go on at once."""
        count = take_blocks(fetched, self.read_offset, self._context, self._take_block)
        self.read_offset = max(fetched.next_offset, self.read_offset)
        return count

    def _take_block(self, offset: int, header: BlockHeader, block: bytes) -> None:
        known = header.channel in self._channels and header.kind in ("whole", "none")
        if not known or header.node not in ("", self._repartition.name):
            has = f"the channels {', '.join(self._channels)}, and rows of {self._repartition.name}"
            raise foreign_block(self.topic_partition, offset, header, has)
        batches = [self._batch(whole) for whole in decode_whole_block(block)] if header.kind == "whole" else []
        channel = self._channels[header.channel]
        channel.add(offset, header, batches)
        if not self.strands:
            while channel.head is not None:
                channel.hand_on(None)

    def _batch(self, whole: WholeRows) -> Batch:
        offsets, timestamps_ms, watermarks_ms, stream_times_ms, numbers = (
            np.frombuffer(column, dtype="<i8").astype(np.int64, copy=False) for column in whole.integers
        )
        origin = Origin(
            source=TopicPartition(whole.topic, whole.partition),
            offsets=offsets,
            timestamps_ms=timestamps_ms,
            watermarks_ms=watermarks_ms,
            published_ms=whole.published_ms,
            stream_times_ms=stream_times_ms,
            row_numbers=numbers,
            headers=lambda: whole.headers,
        )
        keys, values = self._serdes
        return Batch(origin, Column(keys, encoded=whole.keys), Column(values, encoded=whole.values))

    def tell(self) -> None:
        """Hand the watermark to the readers, then the end, once."""
        watermark_ms = self.watermark_ms
        self._context.stream_time_ms = max(self._context.stream_time_ms, watermark_ms)
        self.out.advance(watermark_ms)
        if self.ended and not self._told_end:
            self._told_end = True
            self.out.end()

    def position(self) -> InputPosition:
        """Return offset and channels."""
        channels: Mapping[str, ChannelPosition] = {name: one.position() for name, one in self._channels.items()}
        return InputPosition(next_offset=self.next_offset, channels=channels)
