"""Before a shuffle of whole rows: blocks of rows as they are, with the channel's watermark and its turn."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamkit.broker.partitioner import partitions_of
from streamkit.errors import ProcessingError, SerializationError
from streamkit.records import NEVER_MS, Batch, RowError, TopicPartition
from streamkit.runtime.blocks import BLOCK_BYTES_MAX, BlockHeader, BlockKind, Turn, WholeRows, encode_whole_block
from streamkit.runtime.context import TaskContext
from streamkit.runtime.places import bad_row, rows_in_record
from streamkit.runtime.turns import Strand, reached
from streamkit.topology import Repartition

__all__ = ["RowsWriter"]

_ROW_BYTES = 64
"""About what a row takes beside key and value: five integers, two lengths."""


class RowsWriter:
    """Writes the rows of one shuffle at each commit, in order, with the channel's watermark and turn.

    A shard without rows gets a block without rows when the watermark moved, when the input ended, or, where other
    inputs wait for this one, when its turn moved.

    Args:
        repartition: The shuffle.
        shard_count: Partition count of its topic.
        channel: Id of this task.
        strands: Of the task; they say which turn no later row of it comes before.
        context: Of the task.
    """

    def __init__(
        self,
        repartition: Repartition,
        shard_count: int,
        channel: str,
        strands: Sequence[Strand],
        context: TaskContext,
    ) -> None:
        """Start with nothing written."""
        self._repartition, self._shard_count, self._channel = repartition, shard_count, channel
        self._context, self._strands = context, strands
        self._rows: list[list[WholeRows]] = [[] for _ in range(shard_count)]
        self._watermark_ms = NEVER_MS
        self._written_ms = [NEVER_MS] * shard_count
        self._written_turns: list[Turn | None] = [None] * shard_count
        self._end_run: int | None = None
        self._ended = False

    def receive(self, batch: Batch) -> None:
        """Take the rows for the shards that their keys belong to."""
        keys, values = self._encoded(batch)
        shards = partitions_of(keys, self._shard_count)
        numbers = rows_in_record(batch)
        integers = (batch.offsets, batch.timestamps_ms, batch.watermarks_ms, batch.stream_times_ms, numbers)
        headers = batch.headers
        for shard in np.unique(shards).tolist():
            rows = np.flatnonzero(shards == shard)
            indices = rows.tolist()
            whole = WholeRows(
                topic=batch.origin.source.topic,
                partition=batch.origin.source.partition,
                published_ms=batch.origin.published_ms,
                integers=tuple(_bytes(column[rows]) for column in integers),  # type: ignore[arg-type]  # five of them
                keys=[keys[index] for index in indices],
                values=[values[index] for index in indices],
                headers=None if headers is None else [list(headers[index]) for index in indices],
            )
            self._rows[shard].append(whole)
        self._context.counters.shuffle_rows_in += len(batch)
        self._context.counters.shuffle_rows_out += len(batch)

    def _encoded(self, batch: Batch) -> tuple[list[bytes], list[bytes | None]]:
        node = self._repartition.name
        try:
            keys = list(batch.keys.encoded())
            if None in keys:
                raise bad_row(batch, RowError(keys.index(None), "the key is null"), node, ProcessingError)
            return [key for key in keys if key is not None], list(batch.values.encoded())
        except RowError as error:
            raise bad_row(batch, error, node, SerializationError) from error

    def advance(self, watermark_ms: int) -> None:
        """Remember the channel's watermark for the next commit."""
        self._watermark_ms = watermark_ms

    def end(self) -> None:
        """Mark the end of this run in the next commit."""
        self._end_run, self._ended = self._context.run.number, True

    @property
    def has_end_to_write(self) -> bool:
        """Whether the next commit marks the end of this run."""
        return self._end_run is not None

    def _reached(self) -> Turn | None:
        if not self._repartition.ordered:
            return None
        if self._repartition.facts:
            return self._watermark_ms, "", 0, 0
        return reached(self._strands, ended=self._ended)

    def seal(self) -> None:
        """Move the rows to the outbox, the new watermark on each shard's last block."""
        turn = self._reached()
        for shard, parts in enumerate(self._rows):
            blocks = _blocks(parts)
            if not blocks and not self._worth_a_block(shard, turn):
                continue
            headers = [self._header("whole", shard) for _ in blocks[:-1]]
            headers.append(self._header("whole" if blocks else "none", shard, turn=turn, last=True))
            self._written_ms[shard], self._written_turns[shard] = self._watermark_ms, turn
            self._context.internal.add(
                TopicPartition(self._repartition.topic, shard),
                np.full(len(headers), max(self._watermark_ms, 0), dtype=np.int64),
                [None] * len(headers),
                blocks or [b""],
                [header.to_headers() for header in headers],
            )
        self._rows = [[] for _ in range(self._shard_count)]
        self._end_run = None

    def _worth_a_block(self, shard: int, turn: Turn | None) -> bool:
        moved = self._watermark_ms != self._written_ms[shard]
        return self._end_run is not None or moved or turn != self._written_turns[shard]

    def _header(self, kind: BlockKind, shard: int, *, turn: Turn | None = None, last: bool = False) -> BlockHeader:
        watermark_ms = self._watermark_ms if last else self._written_ms[shard]
        run = self._context.run
        return BlockHeader(
            node=self._repartition.name if kind == "whole" else "",
            channel=self._channel,
            watermark_ms=None if watermark_ms == NEVER_MS else watermark_ms,
            end_run=self._end_run if last else None,
            kind=kind,
            reached=turn,
            # At the end it is said of all inputs, and of what comes after.
            reached_run=run.number if turn is not None and run.bounded and not self._ended else None,
        )


def _bytes(column: npt.NDArray[np.int64]) -> bytes:
    return column.astype("<i8").tobytes()


def _size_bytes(whole: WholeRows) -> int:
    """Return about how large rows are in a block."""
    return sum(map(len, whole.keys)) + sum(len(value or b"") for value in whole.values) + _ROW_BYTES * len(whole.keys)


def _blocks(parts: list[WholeRows]) -> list[bytes]:
    """Return the rows as blocks of about 512 KiB; a row that is larger has a block of its own."""
    blocks: list[bytes] = []
    together: list[WholeRows] = []
    room_bytes = BLOCK_BYTES_MAX
    for whole in parts:
        for piece, piece_bytes in _cut(whole):
            if together and piece_bytes > room_bytes:
                blocks.append(encode_whole_block(together))
                together, room_bytes = [], BLOCK_BYTES_MAX
            together.append(piece)
            room_bytes -= piece_bytes
    return [*blocks, encode_whole_block(together)] if together else blocks


def _cut(whole: WholeRows) -> list[tuple[WholeRows, int]]:
    """Halve rows until they are small enough, or one; return each piece with its size."""
    count, size_bytes = len(whole.keys), _size_bytes(whole)
    if size_bytes <= BLOCK_BYTES_MAX or count == 1:
        return [(whole, size_bytes)]
    halves: list[tuple[WholeRows, int]] = []
    for begin, end in ((0, count // 2), (count // 2, count)):
        half = WholeRows(
            topic=whole.topic,
            partition=whole.partition,
            published_ms=whole.published_ms,
            integers=tuple(column[begin * 8 : end * 8] for column in whole.integers),  # type: ignore[arg-type]  # five
            keys=whole.keys[begin:end],
            values=whole.values[begin:end],
            headers=None if whole.headers is None else whole.headers[begin:end],
        )
        halves += _cut(half)
    return halves
