"""The seam between an aggregation and its spelling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamkit.records import Batch, Column

__all__ = ["UNWINDOWED_MS", "Groups", "Results"]

UNWINDOWED_MS = 0
"""The window end under which groups without windows are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Finished groups, ready to go on: one row a group."""

    keys: Column
    values: Column
    ends_ms: npt.NDArray[np.int64]


class Groups(Protocol):
    """Accumulators by (window end, key).

    A collection is filled by `add` (rows) and `absorb` (partial results of an upstream task). The order in which
    `ends_ms`, `keys`, `encoded` and `results` list the groups is the same until the collection changes.
    """

    def __len__(self) -> int:
        """Return about how many groups there are (an upper bound before they are merged)."""
        ...

    def add(self, batch: Batch, ends_ms: npt.NDArray[np.int64] | None) -> None:
        """Fold rows in; `ends_ms` is the window end of each row, None without windows."""
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
