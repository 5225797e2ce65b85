"""Assigns windows and judges lateness, once, with the watermark that preceded each row on its own source partition."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamkit.graph import Tumbling
from streamkit.records import Batch
from streamkit.runtime.context import TaskContext
from streamkit.runtime.operators.base import Fan

__all__ = ["Folding", "WindowOperator", "window_ends"]


class Folding(Protocol):
    """An aggregation, or the half of one that runs before a shuffle."""

    def fold(self, batch: Batch, ends_ms: npt.NDArray[np.int64] | None) -> None:
        """Take rows; `ends_ms` is the end of each row's window, None without windows."""
        ...

    def advance(self, watermark_ms: int) -> None:
        """Learn the watermark."""
        ...

    def end(self) -> None:
        """Learn that this run's input is over."""
        ...


def window_ends(window: Tumbling, timestamps_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the end of the window that each timestamp falls in; before the epoch too."""
    return timestamps_ms - np.mod(timestamps_ms, window.size_ms) + window.size_ms


class WindowOperator:
    """Hands on-time rows to the aggregations with their window's end, and late rows to `late`, unchanged."""

    def __init__(self, window: Tumbling, context: TaskContext) -> None:
        """Start without receivers."""
        self._window, self._context = window, context
        self._foldings: list[Folding] = []
        self.late = Fan()

    def add(self, folding: Folding) -> None:
        """Add an aggregation."""
        self._foldings.append(folding)

    def receive(self, batch: Batch) -> None:
        """Judge each row: late if and only if the watermark just before it >= window end + grace.

        A window that an earlier bounded run published is closed for good, so its rows are late too.
        """
        ends_ms = window_ends(self._window, batch.timestamps_ms)
        late = batch.watermarks_ms >= ends_ms + self._window.grace_ms
        late |= ends_ms - self._window.size_ms <= batch.origin.published_ms
        if late.any():
            lost = np.flatnonzero(late)
            self._context.counters.late += len(lost)
            self.late.receive(batch.take(lost))
            kept = np.flatnonzero(~late)
            if not len(kept):
                return
            batch, ends_ms = batch.take(kept), ends_ms[kept]
        for folding in self._foldings:
            folding.fold(batch, ends_ms)

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
