"""How a restore, a comparison and a replay show themselves: a live line, plain lines, or JSON lines."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import click
import orjson

from streamkit.runtime.restore import RebuildProgress, RestoredStore

__all__ = ["as_object", "progress_shown", "store_line"]

_LINE_SECONDS: Final = 5.0


@contextlib.contextmanager
def progress_shown(job: str, *, as_json: bool) -> Iterator[Callable[[RebuildProgress], None]]:
    """Give what shows progress where standard output goes."""
    if as_json:
        yield _EveryFewSeconds(lambda progress: click.echo(orjson.dumps(_progress_object(progress))), 0.5).show
    elif sys.stdout.isatty():
        # Loaded for terminals only, as in `progress`.
        from streamkit.cli.live import changing_line

        with changing_line() as show:
            yield lambda progress: show(_line_of(job, progress))
    else:
        yield _EveryFewSeconds(lambda progress: click.echo(_line_of(job, progress)), _LINE_SECONDS).show


class _EveryFewSeconds:
    """Shows something every few seconds."""

    def __init__(self, show: Callable[[RebuildProgress], None], every_seconds: float) -> None:
        self._show, self._every_seconds, self._shown_seconds = show, every_seconds, 0.0

    def show(self, progress: RebuildProgress) -> None:
        if progress.seconds - self._shown_seconds >= self._every_seconds:
            self._shown_seconds = progress.seconds
            self._show(progress)


def _line_of(job: str, progress: RebuildProgress) -> str:
    left = progress.seconds_left
    share = 100 * progress.done_count // progress.total_count if progress.total_count else 100
    return (
        f"{job}: {progress.doing}, {progress.done_count:,} of {progress.total_count:,} offsets ({share} %), "
        f"{progress.seconds:.1f} s" + ("" if left is None else f", {left:.0f} s left")
    )


def _progress_object(progress: RebuildProgress) -> dict[str, Any]:
    left = progress.seconds_left
    return {
        "doing": progress.doing,
        "done": progress.done_count,
        "total": progress.total_count,
        "seconds": round(progress.seconds, 3),
        "seconds_left": None if left is None else round(left, 1),
    }


def store_line(store: RestoredStore) -> str:
    """Return what a store became, in one line."""
    total = store.ranges.total
    return f"  {store.task} {store.spec.name}: {total.pair_count:,} keys, digest {total.to_text()}, {_compared(store)}"


def _compared(store: RestoredStore) -> str:
    if store.said is None:
        return "not comparable: nothing was committed" if store.position is None else "not comparable: none was written"
    assert store.position is not None, "a digest stands in a position"
    return f"{'equal' if store.right else 'NOT equal'} at transaction {store.position.transaction}"


def as_object(store: RestoredStore) -> dict[str, Any]:
    """Return what a store became, as JSON has it."""
    return {
        "task": store.task,
        "store": store.spec.name,
        "keys": store.ranges.total.pair_count,
        "digest": store.ranges.total.to_text(),
        "said": None if store.said is None else store.said.to_text(),
        "transaction": None if store.position is None else store.position.transaction,
        "equal": None if store.said is None else store.right,
    }
