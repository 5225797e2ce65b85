"""The repartition partitions that a task reads: blocks of several upstream tasks, each a channel with a watermark."""

from collections.abc import Mapping, Sequence

from streamkit.broker import Fetched
from streamkit.errors import DeserializationError, TopologyError
from streamkit.log import DecodedRecords, decode_parts
from streamkit.records import NEVER_MS, RowError, TopicPartition
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
        return all(map(self._has_ended, self._channels.values()))

    def _has_ended(self, channel: ChannelPosition) -> bool:
        return self._context.run.bounded and channel.ended_run >= self._context.run.number

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
        channels = self._channels.values()
        running = [channel.watermark_ms for channel in channels if not self._has_ended(channel)]
        return min(running or (channel.watermark_ms for channel in channels))

    def take(self, fetched: Fetched) -> int:
        """Merge the blocks; a watermark counts after its block's rows."""
        parts = decode_parts(fetched.record_batches, from_offset=self.read_offset)
        count = sum(map(self._take_blocks, parts))
        self.read_offset = max(fetched.next_offset, self.read_offset)
        return count

    def _take_blocks(self, records: DecodedRecords) -> int:
        headers = records.headers if records.headers is not None else [()] * len(records)
        for offset, header, block in zip(records.offsets.tolist(), headers, records.values, strict=True):
            self._context.reading = (self.topic_partition, offset)
            try:
                self._take_block(offset, BlockHeader.from_headers(header), block or b"")
            except RowError as error:
                raise DeserializationError(
                    f"a shuffle block does not decode: {error.reason}",
                    topic=self.topic_partition.topic,
                    partition=self.topic_partition.partition,
                    offset=offset,
                    data=error.data,
                ) from error
        return len(records)

    def _take_block(self, offset: int, header: BlockHeader, block: bytes) -> None:
        known = header.channel in self._channels and (header.kind == "none" or header.node in self._aggregations)
        if not known:
            raise TopologyError(
                f"{self.topic_partition} offset {offset} is of channel {header.channel!r} and node {header.node!r}, "
                "which this job does not have",
                detail=f"it has the channels {', '.join(self._channels)}, the nodes {', '.join(self._aggregations)}",
                hint="the job was changed: give it a new name to read everything again",
            )
        if header.kind != "none":
            self._aggregations[header.node].absorb(block)
        said = self._channels[header.channel]
        watermark_ms = said.watermark_ms if header.watermark_ms is None else header.watermark_ms
        self._context.stream_time_ms = max(self._context.stream_time_ms, watermark_ms)
        self._channels[header.channel] = ChannelPosition(
            watermark_ms=max(said.watermark_ms, watermark_ms),
            ended_run=said.ended_run if header.end_run is None else header.end_run,
        )

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
