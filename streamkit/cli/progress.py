"""How a run shows itself: a live line on a terminal, plain lines or JSON lines in a pipe."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, Protocol

import click
import orjson

from streamkit.runtime import Progress, Summary

__all__ = ["Rate", "Reporter", "end_of", "line_of", "reporter_for"]

_PLAIN_SECONDS: Final = 5.0


class Reporter(Protocol):
    """Is told how a run is going, and how it ended."""

    def progress(self, progress: Progress) -> None:
        """Show it; called from the worker's thread, about twice a second."""
        ...

    def summary(self, summary: Summary) -> None:
        """Show the end of a run that did not fail."""
        ...


@contextlib.contextmanager
def reporter_for(job: str, *, as_json: bool) -> Iterator[Reporter]:
    """Give the reporter that fits where standard output goes."""
    if as_json:
        yield _JsonReporter()
    elif sys.stdout.isatty():
        # Loaded for terminals only: in a pipe the worker starts a tenth of a second sooner without it.
        from streamkit.cli.live import live_reporter

        with live_reporter(job) as reporter:
            yield reporter
    else:
        yield _PlainReporter(job)


class _JsonReporter:
    """One object a line; the last has no `lag`, but `finished`."""

    def progress(self, progress: Progress) -> None:
        click.echo(
            orjson.dumps(
                {
                    "records_in": progress.records_in,
                    "records_out": progress.records_out,
                    "late": progress.late,
                    "seconds": round(progress.seconds, 3),
                    "lag": progress.lag,
                    "watermark_ms": progress.watermark_ms,
                    "state_bytes": progress.state_bytes,
                }
            )
        )

    def summary(self, summary: Summary) -> None:
        click.echo(
            orjson.dumps(
                {
                    "records_in": summary.records_in,
                    "records_out": summary.records_out,
                    "late": summary.late,
                    "seconds": round(summary.seconds, 3),
                    "finished": summary.finished,
                }
            )
        )


class Rate:
    """Records a second since the last look."""

    def __init__(self) -> None:
        """Begin with the run."""
        self._records, self._seconds = 0, 0.0

    def of(self, progress: Progress) -> float:
        """Return the rate, and begin the next interval."""
        records, seconds = progress.records_in - self._records, progress.seconds - self._seconds
        self._records, self._seconds = progress.records_in, progress.seconds
        return records / seconds if seconds > 0 else 0.0


class _PlainReporter:
    """A line every few seconds, and the summary."""

    def __init__(self, job: str) -> None:
        self._job, self._rate, self._shown_seconds = job, Rate(), 0.0

    def progress(self, progress: Progress) -> None:
        if progress.seconds - self._shown_seconds >= _PLAIN_SECONDS:
            self._shown_seconds = progress.seconds
            click.echo(line_of(self._job, progress, self._rate.of(progress)))

    def summary(self, summary: Summary) -> None:
        click.echo(end_of(self._job, summary))


def line_of(job: str, progress: Progress, rate: float) -> str:
    """Return how a run is going, in one line."""
    watermark = "none yet" if progress.watermark_ms is None else _moment(progress.watermark_ms)
    return (
        f"{job}: {progress.records_in:,} records in, {rate:,.0f} records/s, lag {progress.lag:,}, "
        f"watermark {watermark}, late {progress.late:,}, state {_size(progress.state_bytes)}"
    )


def end_of(job: str, summary: Summary) -> str:
    """Return how a run ended."""
    if summary.already_finished:
        return (
            f"{job}: this bounded run is finished, nothing was read\n"
            "  hint: --continue reads what came since; windows that were published stay as they are"
        )
    rate = summary.records_in / summary.seconds if summary.seconds else 0.0
    return (
        f"{job}: {'finished' if summary.finished else 'stopped'}: {summary.records_in:,} records in, "
        f"{summary.records_out:,} out, {summary.late:,} late, {summary.seconds:.2f} s ({rate:,.0f} records/s)"
    )


def _moment(timestamp_ms: int) -> str:
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{timestamp_ms} ms"


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
