"""Before a shuffle: partial folds, and the blocks that carry them with the channel's watermark."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from streamkit.records import NEVER_MS, Batch, TopicPartition
from streamkit.runtime.blocks import BlockHeader, BlockKind
from streamkit.runtime.context import TaskContext
from streamkit.runtime.groups import Groups, RowWindows
from streamkit.runtime.places import check_keys
from streamkit.topology.closings import Closings

__all__ = ["CombineOperator", "RepartitionWriter"]

_WATERMARK_STEP_MS: Final = 1000


class CombineOperator:
    """The half of an aggregation upstream of its shuffle: folds rows per batch and per commit into partial results."""

    def __init__(self, node: str, kind: BlockKind, groups: Groups, context: TaskContext) -> None:
        """Fold for the aggregation `node`, whose blocks are of `kind`."""
        self.node, self.kind, self._groups, self._context = node, kind, groups, context

    def fold(self, batch: Batch, windows: RowWindows | None) -> None:
        """Fold rows into the partial results of the next commit."""
        if self._context.careful:
            check_keys(batch, self.node)
        self._context.counters.shuffle_rows_in += len(batch)
        self._groups.add(batch, windows)

    def receive(self, batch: Batch) -> None:
        """Fold rows without windows."""
        self.fold(batch, None)

    def advance(self, watermark_ms: int) -> None:
        """Do nothing: the writer of the shuffle carries the watermark."""

    def end(self) -> None:
        """Do nothing: the writer of the shuffle carries the end."""

    def take_blocks(self, shard_count: int) -> list[tuple[int, bytes]]:
        """Return what was folded since the last commit, as blocks by shard."""
        if not len(self._groups):
            return []
        taken = self._groups.take_all()
        blocks = taken.blocks(shard_count)
        self._context.counters.shuffle_rows_out += len(taken)
        return blocks


class RepartitionWriter:
    """Writes the blocks of one shuffle at each commit, in order with the channel's watermark.

    A shard without rows gets a block without rows only when the watermark has closed windows behind the shuffle, or
    when the input ended. So which windows are closed once all is read depends on the rows, and not on the commits.
    Where there are no windows, it gets one when the watermark moved by 1 s.

    Args:
        topic: The repartition topic.
        shard_count: Its partition count.
        channel: Id of this task.
        closings: When the watermark closes windows behind the shuffle.
        combines: The partial folds that feed it.
        context: Of the task.
    """

    def __init__(
        self,
        topic: str,
        shard_count: int,
        channel: str,
        closings: Sequence[Closings],
        combines: Sequence[CombineOperator],
        context: TaskContext,
    ) -> None:
        """Start with no watermark written."""
        self._topic, self._shard_count, self._channel = topic, shard_count, channel
        self._closings, self._combines, self._context = closings, combines, context
        self._watermark_ms = NEVER_MS
        self._written_ms = [NEVER_MS] * shard_count
        self._end_run: int | None = None

    def receive(self, batch: Batch) -> None:
        """Do nothing: the combines take the rows."""

    def advance(self, watermark_ms: int) -> None:
        """Remember the channel's watermark for the next commit."""
        self._watermark_ms = watermark_ms

    def end(self) -> None:
        """Mark the end of this run in the next commit."""
        self._end_run = self._context.run.number

    @property
    def has_end_to_write(self) -> bool:
        """Whether the next commit marks the end of this run."""
        return self._end_run is not None

    def _worth_a_block(self, written_ms: int) -> bool:
        if written_ms == NEVER_MS:
            return self._watermark_ms > NEVER_MS
        if self._closings:
            return any(windows.between(written_ms, self._watermark_ms) for windows in self._closings)
        return self._watermark_ms - written_ms >= _WATERMARK_STEP_MS

    def seal(self) -> None:
        """Move what was folded to the outbox, the new watermark on each shard's last block."""
        by_shard: list[list[tuple[BlockHeader, bytes]]] = [[] for _ in range(self._shard_count)]
        for combine in self._combines:
            for shard, block in combine.take_blocks(self._shard_count):
                by_shard[shard].append((self._header(combine.node, combine.kind, shard, last=False), block))
        for shard, blocks in enumerate(by_shard):
            if blocks:
                header, block = blocks[-1]
                blocks[-1] = (self._header(header.node, header.kind, shard, last=True), block)
            elif self._end_run is not None or self._worth_a_block(self._written_ms[shard]):
                blocks.append((self._header("", "none", shard, last=True), b""))
            if blocks:
                self._written_ms[shard] = self._watermark_ms
                self._context.internal.add(
                    TopicPartition(self._topic, shard),
                    np.full(len(blocks), max(self._watermark_ms, 0), dtype=np.int64),
                    [None] * len(blocks),
                    [block for _, block in blocks],
                    [header.to_headers() for header, _ in blocks],
                )
        self._end_run = None

    def _header(self, node: str, kind: BlockKind, shard: int, *, last: bool) -> BlockHeader:
        watermark_ms = self._watermark_ms if last else self._written_ms[shard]
        return BlockHeader(
            node=node,
            channel=self._channel,
            watermark_ms=None if watermark_ms == NEVER_MS else watermark_ms,
            end_run=self._end_run if last else None,
            kind=kind,
        )
