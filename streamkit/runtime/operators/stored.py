"""Which windows of a store have rows, and the columnar ones' rows themselves while they fit in memory.

A window that is open at a commit is stored. When it closes, its rows are needed once more: for the results, the
tombstones and the digest. Reading them back from the store and decoding them costs 2 us a row, keeping them nothing.
Rows of the Python spelling are not kept: whoever gets a result may change the object.
"""

from collections.abc import Iterable
from typing import Final

from streamkit.runtime.groups import FrameGroups, Groups

__all__ = ["StoredWindows"]

ROWS_MAX: Final = 100_000


class StoredWindows:
    """Window ends that have stored rows.

    Args:
        ends_ms: Those that the store had when it was opened.
        rows_max: How many rows are kept in memory; beyond, all are left to the store.
    """

    def __init__(self, ends_ms: Iterable[int], *, rows_max: int = ROWS_MAX) -> None:
        """Keep no rows yet."""
        self._unkept, self._rows_max = set(ends_ms), rows_max
        self._kept: dict[int, FrameGroups] = {}

    def __contains__(self, end_ms: object) -> bool:
        """Return whether the window that ends then has stored rows."""
        return end_ms in self._unkept or end_ms in self._kept

    def isdisjoint(self, ends_ms: Iterable[int]) -> bool:
        """Return whether none of these windows has stored rows."""
        return not any(end_ms in self for end_ms in ends_ms)

    def store(self, groups: Groups) -> None:
        """Learn that the rows of `groups` are stored now, each in place of the one with its key."""
        if not isinstance(groups, FrameGroups):
            self._unkept.update(groups.ends_ms().tolist())
            return
        # All windows at once: one by one, this took 0.2 ms for each that was stored before.
        older = [self._kept[end_ms] for end_ms in set(groups.ends_ms().tolist()) & self._kept.keys()]
        newest = groups.over(older).by_window()
        self._kept.update((end_ms, rows) for end_ms, rows in newest.items() if end_ms not in self._unkept)
        if sum(map(len, self._kept.values())) > self._rows_max:
            self._unkept.update(self._kept)
            self._kept.clear()

    def take_until(self, end_ms: int) -> list[tuple[int, FrameGroups | None]]:
        """Forget the windows that end by then; return their ends in order, with their rows where they were kept."""
        closed = sorted(end for end in (*self._unkept, *self._kept) if end <= end_ms)
        self._unkept.difference_update(closed)
        return [(end, self._kept.pop(end, None)) for end in closed]
