"""The repartition partitions that a task reads: blocks of several upstream tasks, each a channel with a watermark."""

from collections.abc import Mapping, Sequence

from streamkit.broker import Fetched
from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.block_reading import foreign_block, has_ended, said_after, take_blocks, watermark_of
from streamkit.runtime.blocks import BlockHeader
from streamkit.runtime.context import TaskContext
from streamkit.runtime.operators.aggregate import AggregateOperator
from streamkit.runtime.position import ChannelPosition, InputPosition
from streamkit.runtime.turns import Strand

__all__ = ["ChannelInput"]


class ChannelInput:
    """A partition of a repartition topic: blocks of several channels, each in its order.

    Args:
        topic_partition: The partition.
        channels: Ids of all upstream tasks; one that has not spoken counts as minus infinity.
        aggregations: The readers, by name.
        position: How far it was read.
        context: Of the task.
    """

    def __init__(
        self,
        topic_partition: TopicPartition,
        channels: Sequence[str],
        aggregations: Mapping[str, AggregateOperator],
        position: InputPosition,
        context: TaskContext,
    ) -> None:
        """Go on from `position`."""
        self.topic_partition, self.read_offset = topic_partition, position.next_offset
        self.strands: tuple[Strand, ...] = ()
        self.full = False
        self._context, self._aggregations = context, aggregations
        self._channels = {name: position.channels.get(name, ChannelPosition()) for name in channels}
        self._told_ms, self._told_end = NEVER_MS, False
        context.stream_time_ms = max(
            context.stream_time_ms, *(channel.watermark_ms for channel in self._channels.values())
        )

    @property
    def ended(self) -> bool:
        """Whether every channel has marked the end of this run."""
        return all(has_ended(said, self._context.run) for said in self._channels.values())

    @property
    def next_offset(self) -> int:
        """What is read is handed on at once."""
        return self.read_offset

    @property
    def read_watermark_ms(self) -> int:
        """The same as the watermark."""
        return self.watermark_ms

    @property
    def watermark_ms(self) -> int:
        """The minimum over the channels; one that marked the end of this run holds nothing back."""
        return watermark_of(self._channels.values(), self._context.run)

    def take(self, fetched: Fetched) -> int:
        """Merge the blocks; a watermark counts after its block's rows."""
        count = take_blocks(fetched, self.read_offset, self._context, self._take_block)
        self.read_offset = max(fetched.next_offset, self.read_offset)
        return count

    def _take_block(self, offset: int, header: BlockHeader, block: bytes) -> None:
        known = header.channel in self._channels and (header.kind == "none" or header.node in self._aggregations)
        if not known:
            has = f"the channels {', '.join(self._channels)}, the nodes {', '.join(self._aggregations)}"
            raise foreign_block(self.topic_partition, offset, header, has)
        if header.kind != "none":
            self._aggregations[header.node].absorb(block)
        said = said_after(self._channels[header.channel], header)
        self._context.stream_time_ms = max(self._context.stream_time_ms, said.watermark_ms)
        self._channels[header.channel] = said

    def tell(self) -> None:
        """Hand the watermark to the readers, then the end, once."""
        if self.watermark_ms > self._told_ms:
            self._told_ms = self.watermark_ms
            for aggregation in self._aggregations.values():
                aggregation.advance(self.watermark_ms)
        if self.ended and not self._told_end:
            self._told_end = True
            for aggregation in self._aggregations.values():
                aggregation.end()

    def position(self) -> InputPosition:
        """Return offset and channels."""
        return InputPosition(next_offset=self.read_offset, channels=dict(self._channels))
