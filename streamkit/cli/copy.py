"""`streamkit topics copy`: topics from one log or cluster to another."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import click
import orjson

from streamkit.broker.copy import CopyProgress, copy_topic
from streamkit.cli.broker import described, opened
from streamkit.cli.lines import size_text
from streamkit.seams import SystemClock

__all__ = ["copy"]

_LINE_SECONDS: Final = 5.0


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="TOPIC...")
@click.option("--from", "source_url", metavar="URL", required=True, help="Where the topics are.")
@click.option("--to", "target_url", metavar="URL", required=True, help="Where they go; log://DIR is made if missing.")
@click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines; the last of a topic is finished.")
def copy(names: tuple[str, ...], source_url: str, target_url: str, as_json: bool) -> None:
    """Copy the committed records of each TOPIC to its end as it is now.

    A topic that the target lacks is made like the source's. Cut short in any way, the same command goes on where it
    was; run again later, it adds what came since.
    """
    if source_url == target_url:
        raise click.UsageError("--from and --to name the same place")
    with opened(source_url) as source:
        for name in names:
            described(source, name)
        with opened(target_url, make=True) as target:
            for name in dict.fromkeys(names):
                with _shown(as_json=as_json) as show:
                    done = copy_topic(source, target, name, clock=SystemClock(), told=show)
                click.echo(orjson.dumps(_as_object(done, finished=True)) if as_json else _end_of(done))


@contextlib.contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[CopyProgress], None]]:
    """Give what shows progress where standard output goes."""
    if as_json:
        yield lambda progress: click.echo(orjson.dumps(_as_object(progress, finished=False)))
    elif sys.stdout.isatty():
        # Loaded for terminals only, as in `progress`.
        from streamkit.cli.live import changing_line

        with changing_line() as show:
            yield lambda progress: show(_line_of(progress))
    else:
        yield _Seldom().show


class _Seldom:
    """A line every few seconds."""

    def __init__(self) -> None:
        self._shown_seconds = 0.0

    def show(self, progress: CopyProgress) -> None:
        if progress.seconds - self._shown_seconds >= _LINE_SECONDS:
            self._shown_seconds = progress.seconds
            click.echo(_line_of(progress))


def _as_object(progress: CopyProgress, *, finished: bool) -> Mapping[str, Any]:
    return {
        "topic": progress.topic,
        "records": progress.record_count,
        "bytes": progress.size_bytes,
        "seconds": round(progress.seconds, 3),
        "remaining": progress.remaining_count,
        "removed": progress.removed_count,
        "finished": finished,
    }


def _line_of(progress: CopyProgress) -> str:
    return (
        f"{progress.topic}: {progress.record_count:,} records, {size_text(progress.size_bytes)}, "
        f"{progress.seconds:.1f} s, {progress.remaining_count:,} offsets to go"
    )


def _end_of(done: CopyProgress) -> str:
    records = f"{done.record_count:,} record{'' if done.record_count == 1 else 's'}"
    rate = done.record_count / done.seconds if done.seconds else 0.0
    line = f"{done.topic}: {records} copied, {size_text(done.size_bytes)}, {done.seconds:.2f} s ({rate:,.0f} records/s)"
    if done.removed_count:
        line += f"\n  {done.removed_count:,} offsets were removed from the source before they could be copied"
    return line
