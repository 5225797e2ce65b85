"""The seam between an aggregation and its spelling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamkit.errors import ProcessingError
from streamkit.records import Batch, Column
from streamkit.runtime.aggregates import AggregateOverflow

__all__ = ["UNWINDOWED_MS", "Groups", "Results", "RowWindows", "overflow"]

UNWINDOWED_MS = 0
"""The window end under which groups without windows are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWindows:
    """The windows of each row, one or more: the first ends at `ends_ms`, the others follow `advance_ms` apart.

    `counts` is how many windows each row has; None: one each.
    """

    ends_ms: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64] | None = None
    advance_ms: int = 0

    def take(self, indices: npt.NDArray[np.int64]) -> "RowWindows":
        """Return the windows of the rows at `indices`."""
        counts = None if self.counts is None else self.counts[indices]
        return RowWindows(ends_ms=self.ends_ms[indices], counts=counts, advance_ms=self.advance_ms)

    def spread(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return one entry a window of a row, in the order of the rows: the row's index, and the window's end."""
        indices = np.arange(len(self.ends_ms))
        if self.counts is None:
            return indices, self.ends_ms
        rows = np.repeat(indices, self.counts)
        steps = np.arange(len(rows)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        return rows, self.ends_ms[rows] + steps * self.advance_ms

    def by_end(self) -> Iterator[tuple[int, npt.NDArray[np.int64] | None]]:
        """Yield each window end, ascending, with the indices of its rows in their order, None for all rows."""
        firsts = lasts = self.ends_ms
        if self.counts is not None:
            lasts = firsts + (self.counts - 1) * self.advance_ms
        for end_ms in self._distinct_ends_ms().tolist():
            # All ends are `advance_ms` apart, so a row has every window between its first and its last.
            within = firsts == end_ms if self.counts is None else (firsts <= end_ms) & (end_ms <= lasts)
            yield end_ms, None if within.all() else np.flatnonzero(within)

    def _distinct_ends_ms(self) -> npt.NDArray[np.int64]:
        if self.counts is None:
            return np.unique(self.ends_ms)
        alike = np.unique(np.stack([self.ends_ms, self.counts]), axis=1)
        spans = [first_ms + np.arange(count) * self.advance_ms for first_ms, count in alike.T.tolist()]
        return np.unique(np.concatenate([self.ends_ms, *spans]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Finished groups, ready to go on: one row a group."""

    keys: Column
    values: Column
    ends_ms: npt.NDArray[np.int64]


def overflow(node: str, cause: AggregateOverflow, key: bytes | None = None) -> ProcessingError:
    """Return the error of a group that is more than its aggregate may hold."""
    return ProcessingError(str(cause), node=node, data=key, hint=cause.hint)


class Groups(Protocol):
    """Accumulators by (window end, key).

    A collection is filled by `add` (rows) and `absorb` (partial results of an upstream task). The order in which
    `ends_ms`, `keys`, `encoded` and `results` list the groups is the same until the collection changes.
    """

    def __len__(self) -> int:
        """Return about how many groups there are (an upper bound before they are merged)."""
        ...

    def add(self, batch: Batch, windows: RowWindows | None) -> None:
        """Fold rows in, each into all its windows; None without windows."""
        ...

    def absorb(self, block: bytes) -> None:
        """Merge a block that `blocks` of an upstream task made."""
        ...

    def take_until(self, end_ms: int) -> "Groups":
        """Remove and return the groups whose window ends at or before `end_ms`."""
        ...

    def take_all(self) -> "Groups":
        """Remove and return all groups."""
        ...

    def ends_ms(self) -> npt.NDArray[np.int64]:
        """Return the window end of each group."""
        ...

    def keys(self) -> Sequence[bytes]:
        """Return the encoded key of each group."""
        ...

    def merge_stored(self, stored: Sequence[bytes | None]) -> None:
        """Merge the stored accumulator of each group (None: there is none) into it."""
        ...

    def load(self, ends_ms: Sequence[int], keys: Sequence[bytes], encoded: Sequence[bytes]) -> None:
        """Merge groups that were stored: window ends, encoded keys, encoded accumulators."""
        ...

    def encoded(self) -> list[bytes]:
        """Return the accumulator of each group as it is stored."""
        ...

    def results(self) -> Results:
        """Return the finished value of each group, sorted by window end and encoded key.

        The groups are in that order from then on: no cut of the input shows in it.
        """
        ...

    def blocks(self, shard_count: int) -> list[tuple[int, bytes]]:
        """Return all groups as shuffle blocks, each with the shard it goes to."""
        ...
