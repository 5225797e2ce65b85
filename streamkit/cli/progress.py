"""How a run shows itself: a live line on a terminal, plain lines or JSON lines in a pipe."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import click
import orjson

from streamkit.cli.lines import Pace, Reporter, end_of, line_of
from streamkit.runtime import Progress, Summary

__all__ = ["reporter_for"]

_PLAIN_SECONDS: Final = 5.0


@contextlib.contextmanager
def reporter_for(job: str, *, as_json: bool, ends: bool) -> Iterator[Reporter]:
    """Give the reporter that fits where standard output goes; `ends` says whether the run is a bounded one."""
    if as_json:
        yield _JsonReporter()
    elif sys.stdout.isatty():
        # Loaded for terminals only: in a pipe the worker starts a tenth of a second sooner without it.
        from streamkit.cli.live import live_reporter

        with live_reporter(job, ends=ends) as reporter:
            yield reporter
    else:
        yield _PlainReporter(job, Pace(ends=ends))


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
                    "skipped": summary.skipped,
                    "dead_letters": summary.dead_letters,
                    "seconds": round(summary.seconds, 3),
                    "finished": summary.finished,
                }
            )
        )


class _PlainReporter:
    """A line every few seconds, and the summary."""

    def __init__(self, job: str, pace: Pace) -> None:
        self._job, self._pace, self._shown_seconds = job, pace, 0.0

    def progress(self, progress: Progress) -> None:
        if progress.seconds - self._shown_seconds >= _PLAIN_SECONDS:
            self._shown_seconds = progress.seconds
            click.echo(line_of(self._job, progress, self._pace.of(progress)))

    def summary(self, summary: Summary) -> None:
        click.echo(end_of(self._job, summary))
