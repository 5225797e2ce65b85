"""The one line that changes in place, on a terminal."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from streamkit.cli.lines import Pace, Reporter, end_of, line_of
from streamkit.runtime import Progress, Summary

__all__ = ["changing_line", "live_reporter"]


@contextlib.contextmanager
def live_reporter(job: str, *, ends: bool) -> Iterator[Reporter]:
    """Give a reporter that owns the terminal's last line."""
    console = Console()
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield _LiveReporter(job, live, console, Pace(ends=ends))


@contextlib.contextmanager
def changing_line() -> Iterator[Callable[[str], None]]:
    """Give a function that replaces the terminal's last line; in the end the line is gone."""
    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        yield lambda line: live.update(Text(line))


class _LiveReporter:
    """Progress is one line; the summary stays."""

    def __init__(self, job: str, live: Live, console: Console, pace: Pace) -> None:
        self._job, self._live, self._console, self._pace = job, live, console, pace

    def progress(self, progress: Progress) -> None:
        self._live.update(Text(line_of(self._job, progress, self._pace.of(progress))))

    def summary(self, summary: Summary) -> None:
        self._live.stop()
        self._console.print(end_of(self._job, summary), highlight=False, markup=False, soft_wrap=True)
