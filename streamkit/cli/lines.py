"""What a run says about itself, in lines of text; who says it is a `Reporter`."""

from datetime import UTC, datetime
from typing import Protocol

from streamkit.runtime import Progress, Summary

__all__ = ["Pace", "Reporter", "end_of", "line_of", "size_text"]


class Reporter(Protocol):
    """Is told how a run is going, and how it ended."""

    def progress(self, progress: Progress) -> None:
        """Show it; called from the worker's thread, about twice a second."""
        ...

    def summary(self, summary: Summary) -> None:
        """Show the end of a run that did not fail."""
        ...


class Pace:
    """How fast a run reads, and how far it is if it ends.

    Args:
        ends: Whether it ends. Then what it lags behind at first is what there is to read.
    """

    def __init__(self, *, ends: bool) -> None:
        """Begin with the run."""
        self._ends, self._records, self._seconds = ends, 0, 0.0
        self._most_lag, self._most_seconds = 0, 0.0

    def of(self, progress: Progress) -> str:
        """Return it as text: the rate since the last call, the lag, the share that is read, and the time left."""
        records, seconds = progress.records_in - self._records, progress.seconds - self._seconds
        self._records, self._seconds = progress.records_in, progress.seconds
        rate = records / seconds if seconds > 0 else 0.0
        return f"{rate:,.0f} records/s, lag {progress.lag:,}" + (self._way(progress) if self._ends else "")

    def _way(self, progress: Progress) -> str:
        # More than at first where tasks were opened since.
        if progress.lag >= self._most_lag:
            self._most_lag, self._most_seconds = progress.lag, progress.seconds
        read = self._most_lag - progress.lag
        share = 100 * read // self._most_lag if self._most_lag else 100
        if not read:
            return f" ({share} %)"
        left = (progress.seconds - self._most_seconds) * progress.lag / read
        return f" ({share} %), {left:,.0f} s left"


def line_of(job: str, progress: Progress, pace: str) -> str:
    """Return how a run is going, in one line."""
    watermark = "none yet" if progress.watermark_ms is None else _moment(progress.watermark_ms)
    return (
        f"{job}: {progress.records_in:,} records in, {pace}, "
        f"watermark {watermark}, late {progress.late:,}, state {size_text(progress.state_bytes)}"
    )


def end_of(job: str, summary: Summary) -> str:
    """Return how a run ended."""
    if summary.already_finished:
        return (
            f"{job}: this bounded run is finished, nothing was read\n"
            "  hint: --continue reads what came since; windows that were published stay as they are"
        )
    aside = f"{summary.skipped:,} skipped, " if summary.skipped else ""
    aside += f"{summary.dead_letters:,} of them dead letters, " if summary.dead_letters else ""
    rate = summary.records_in / summary.seconds if summary.seconds else 0.0
    return (
        f"{job}: {'finished' if summary.finished else 'stopped'}: {summary.records_in:,} records in, "
        f"{summary.records_out:,} out, {summary.late:,} late, {aside}{summary.seconds:.2f} s ({rate:,.0f} records/s)"
    )


def _moment(timestamp_ms: int) -> str:
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{timestamp_ms} ms"


def size_text(size_bytes: int) -> str:
    """Return a size with a unit that a person can read."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
