"""Assigns windows and judges lateness, once, with the watermark that preceded each row on its own source partition."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamkit.graph import AnyWindow
from streamkit.records import NEVER_MS, Batch
from streamkit.runtime.context import TaskContext
from streamkit.runtime.groups import RowWindows
from streamkit.runtime.operators.base import Fan

__all__ = ["Folding", "WindowOperator", "last_window_ends"]


class Folding(Protocol):
    """An aggregation, or the half of one that runs before a shuffle."""

    def fold(self, batch: Batch, windows: RowWindows | None) -> None:
        """Take rows with the windows of each, None without windows."""
        ...

    def advance(self, watermark_ms: int) -> None:
        """Learn the watermark."""
        ...

    def end(self) -> None:
        """Learn that this run's input is over."""
        ...


def last_window_ends(window: AnyWindow, timestamps_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the end of the last window that each timestamp falls in; before the epoch too."""
    return timestamps_ms - np.mod(timestamps_ms, window.advance_ms) + window.size_ms


class WindowOperator:
    """Hands on-time rows to the aggregations with their windows, and late rows to `late`, unchanged.

    A row of overlapping windows may be late for the first of them and on time for the others. It goes both ways: once
    to `late`, however many windows it missed.
    """

    def __init__(self, window: AnyWindow, context: TaskContext) -> None:
        """Start without receivers."""
        self._window, self._context = window, context
        self._foldings: list[Folding] = []
        self.late = Fan()

    def add(self, folding: Folding) -> None:
        """Add an aggregation."""
        self._foldings.append(folding)

    def receive(self, batch: Batch) -> None:
        """Judge each row for each window: late if and only if the watermark just before it >= window end + grace.

        A window that an earlier bounded run published is closed for good, so its rows are late too.
        """
        windows, late, lost = self._judged(batch)
        if late.any():
            self._context.counters.late += int(late.sum())
            self.late.receive(batch.take(np.flatnonzero(late)))
        if lost.any():
            kept = np.flatnonzero(~lost)
            if not len(kept):
                return
            batch, windows = batch.take(kept), windows.take(kept)
        for folding in self._foldings:
            folding.fold(batch, windows)

    def _judged(self, batch: Batch) -> tuple[RowWindows, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return the windows that are open to each row, which rows missed a window, and which missed them all."""
        window, stamps = self._window, batch.timestamps_ms
        lasts = last_window_ends(window, stamps)
        if window.advance_ms == window.size_ms:
            late = batch.watermarks_ms >= lasts + window.grace_ms
            late |= lasts - window.size_ms <= batch.origin.published_ms
            return RowWindows(ends_ms=lasts), late, late
        advance_ms = window.advance_ms
        counts = (lasts - stamps + advance_ms - 1) // advance_ms
        firsts = lasts - (counts - 1) * advance_ms
        # Windows that end by then are closed. No sum leaves 64 bits: a watermark may be before all others.
        closed_ms = np.maximum(batch.watermarks_ms, NEVER_MS + window.grace_ms) - window.grace_ms
        closed_ms = np.maximum(closed_ms, batch.origin.published_ms + window.size_ms)
        missed = (np.maximum(closed_ms, firsts - advance_ms) - firsts) // advance_ms + 1
        open_counts = counts - np.minimum(missed, counts)
        windows = RowWindows(ends_ms=firsts + missed * advance_ms, counts=open_counts, advance_ms=advance_ms)
        return windows, missed > 0, open_counts == 0

    def advance(self, watermark_ms: int) -> None:
        """Late rows go on before the watermark that follows them."""
        self.late.advance(watermark_ms)
        for folding in self._foldings:
            folding.advance(watermark_ms)

    def end(self) -> None:
        """Pass the end on."""
        self.late.end()
        for folding in self._foldings:
            folding.end()
