"""The order rule: rows of several inputs are handed on in the one order that the log decides.

A row's turn is (largest timestamp of its source partition so far, topic, partition, offset). Within a strand, which is
a source partition or one channel of a shuffle, turns never fall. So a row is handed on when every other strand has a
row of a later turn, or has said that it will have no earlier one. What waits is not part of the task's position: after
a crash it is read again. Why so: docs/adr/0040-turns.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from streamkit.records import Batch
from streamkit.runtime.blocks import FIRST_TURN, Turn

__all__ = ["HELD_BYTES_MAX", "HeldRows", "Limit", "Strand", "reached", "release"]

HELD_BYTES_MAX: Final = 32 * 1024 * 1024
"""A source partition that holds this much of what was fetched is not read further: the others must come first."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Rows before a turn are handed on; those of the same turn, too, if `same`."""

    turn: Turn
    same: bool


class Strand(Protocol):
    """Rows whose turns never fall."""

    @property
    def head(self) -> Turn | None:
        """The turn of the first row that is held; None: it holds none."""
        ...

    @property
    def reached(self) -> Turn:
        """No row behind the first held one has an earlier turn, be it read or not.

        So in every run; of a channel that a bounded run has not ended for: in that run.
        """
        ...

    @property
    def closed(self) -> bool:
        """Whether nothing is still to be read in this run."""
        ...

    def hand_on(self, limit: Limit | None) -> None:
        """Hand on the first held rows below the limit, one batch at most; all of that batch without a limit."""
        ...


class HeldRows:
    """A batch of which the first rows may have been handed on."""

    __slots__ = ("_begin", "_offsets", "_times_ms", "batch")

    def __init__(self, batch: Batch, begin: int = 0) -> None:
        """Hold the rows from `begin` on."""
        self.batch, self._begin = batch, begin
        self._times_ms, self._offsets = batch.stream_times_ms, batch.offsets

    def __len__(self) -> int:
        """Return how many are left."""
        return len(self._offsets) - self._begin

    @property
    def head(self) -> Turn:
        """The turn of the first row that is left."""
        source = self.batch.origin.source
        begin = self._begin
        return int(self._times_ms[begin]), source.topic, source.partition, int(self._offsets[begin])

    def take(self, limit: Limit | None) -> Batch:
        """Remove and return the rows below the limit."""
        begin, end = self._begin, len(self._offsets) if limit is None else self._end(limit)
        self._begin = end
        if begin == 0 and end == len(self._offsets):
            return self.batch
        return self.batch.take(np.arange(begin, end, dtype=np.int64))

    def _end(self, limit: Limit) -> int:
        time_ms, topic, partition, offset = limit.turn
        source = self.batch.origin.source
        first = int(np.searchsorted(self._times_ms, time_ms, side="left"))
        last = int(np.searchsorted(self._times_ms, time_ms, side="right"))
        if (source.topic, source.partition) != (topic, partition):
            end = last if (source.topic, source.partition) < (topic, partition) else first
        else:
            side: Final = "right" if limit.same else "left"
            end = first + int(np.searchsorted(self._offsets[first:last], offset, side=side))
        return max(end, self._begin)


def reached(strands: Sequence[Strand], *, ended: bool = False) -> Turn:
    """Return the turn that no row comes before that is still to be handed on.

    Args:
        strands: Of the task.
        ended: Whether all of them are at the end of a bounded run: then it is the rows of the next run, and an input
            whose rows were all early goes on from there.
    """
    if ended:
        return min((strand.reached for strand in strands), default=FIRST_TURN)
    # Behind the head may be rows before it, where a bounded run was left.
    turns = [
        strand.reached if strand.head is None else min(strand.head, strand.reached)
        for strand in strands
        if strand.head or not strand.closed
    ]
    return min(turns) if turns else max((strand.reached for strand in strands), default=FIRST_TURN)


def release(strands: Sequence[Strand]) -> None:
    """Hand on all rows whose turn has come, in order.

    Args:
        strands: In the order in which strands with rows of the same turn come.

    Cost: a call of each operator for each run of rows of one strand.
    """
    if len(strands) == 1:
        while strands[0].head is not None:
            strands[0].hand_on(None)
        return
    while True:
        heads = [(head, number) for number, strand in enumerate(strands) if (head := strand.head) is not None]
        if not heads:
            return
        first, number = min(heads)
        limits = [head for head in heads if head[1] != number]
        limits += [
            (strand.reached, other) for other, strand in enumerate(strands) if strand.head is None and not strand.closed
        ]
        if not limits:
            strands[number].hand_on(None)
            continue
        turn, other = min(limits)
        if (first, number) >= (turn, other):
            return
        strands[number].hand_on(Limit(turn, same=number < other))
