"""What all readers of a repartition partition do: take its blocks one by one, and know what its channels have said."""

from collections.abc import Callable, Collection
from dataclasses import replace

from streamkit.broker import Fetched
from streamkit.errors import DeserializationError, TopologyError
from streamkit.log import decode_parts
from streamkit.records import RowError, TopicPartition
from streamkit.runtime.blocks import BlockHeader
from streamkit.runtime.context import TaskContext
from streamkit.runtime.position import ChannelPosition, Run

__all__ = ["foreign_block", "has_ended", "said_after", "take_blocks", "watermark_of"]


def take_blocks(
    fetched: Fetched, from_offset: int, context: TaskContext, take: Callable[[int, BlockHeader, bytes], None]
) -> int:
    """Hand each block to `take`, with its offset and header; return how many there were.

    Raises:
        DeserializationError: A block is damaged; it names the place.
    """
    place, count = fetched.topic_partition, 0
    for records in decode_parts(fetched.record_batches, from_offset=from_offset):
        headers = records.headers if records.headers is not None else [()] * len(records)
        for offset, header, block in zip(records.offsets.tolist(), headers, records.values, strict=True):
            context.reading = (place, offset)
            try:
                take(offset, BlockHeader.from_headers(header), block or b"")
            except RowError as error:
                raise DeserializationError(
                    f"a shuffle block does not decode: {error.reason}",
                    topic=place.topic,
                    partition=place.partition,
                    offset=offset,
                    data=error.data,
                ) from error
        count += len(records)
    return count


def foreign_block(place: TopicPartition, offset: int, header: BlockHeader, known: str) -> TopologyError:
    """Return the error of a block that the job as it is has no reader for; `known` says what it has."""
    return TopologyError(
        f"{place} offset {offset} is of channel {header.channel!r} and node {header.node!r}, "
        "which this job does not have",
        detail=f"it has {known}",
        hint="the job was changed: give it a new name to read everything again",
    )


def has_ended(said: ChannelPosition, run: Run) -> bool:
    """Return whether a channel has marked the end of this run."""
    return run.bounded and said.ended_run >= run.number


def watermark_of(channels: Collection[ChannelPosition], run: Run) -> int:
    """Return the minimum over the channels; one that marked the end of this run holds nothing back."""
    running = [said.watermark_ms for said in channels if not has_ended(said, run)]
    return min(running or (said.watermark_ms for said in channels))


def said_after(said: ChannelPosition, header: BlockHeader) -> ChannelPosition:
    """Return what a channel has said once a block of it is taken."""
    watermark_ms = said.watermark_ms if header.watermark_ms is None else header.watermark_ms
    return replace(
        said,
        watermark_ms=max(said.watermark_ms, watermark_ms),
        ended_run=said.ended_run if header.end_run is None else header.end_run,
    )
