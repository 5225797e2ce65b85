"""What `restore`, `verify` and `replay` share: which job and where, and how they show themselves.

Progress is a live line, plain lines, or JSON lines.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click
import orjson

from streamkit.broker import Broker
from streamkit.broker.state_root import state_root
from streamkit.cli.broker import opened
from streamkit.cli.files import Bindings, begun_run, over_files
from streamkit.cli.load import load_job
from streamkit.errors import ConfigError
from streamkit.files import FileRun
from streamkit.runtime import RunOptions
from streamkit.runtime.changelogs import RestoredStore
from streamkit.runtime.restore import RebuildProgress
from streamkit.topology import Topology, compile_graph

__all__ = ["RebuiltJob", "as_object", "progress_shown", "rebuilt_job", "store_line"]

_LINE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuiltJob:
    """A job whose state is rebuilt, or compared.

    Args:
        name: What the user calls it.
        topology: As it runs: a run over files may have a name of its own.
        broker: Where its topics are.
        state_dir: The root of its state.
        options: How its inputs are run again.
        files: The run over files; None if it runs on topics alone.
    """

    name: str
    topology: Topology
    broker: Broker
    state_dir: str
    options: RunOptions
    files: FileRun | None = None

    @property
    def kept(self) -> Sequence[str]:
        """The sources that are files: nothing was ever removed from them."""
        return () if self.files is None else self.files.sources


@contextlib.contextmanager
def rebuilt_job(
    job: str, url: str, state_dir: str | None, bindings: tuple[Sequence[str], Sequence[str]]
) -> Iterator[RebuiltJob]:
    """Find a job, or the run of it that has these bindings.

    Args:
        job: A module or a file.
        url: Of the broker.
        state_dir: What `--state-dir` said.
        bindings: What `--input` and `--output` said.

    Raises:
        ConfigError: The broker keeps no state, or there is no such run.
    """
    topology = compile_graph(load_job(job).build())
    bound = Bindings(inputs=bindings[0], outputs=bindings[1])
    if bound:
        with begun_run(topology, bound, url) as (files, broker):
            yield RebuiltJob(
                name=topology.job,
                topology=files.topology,
                broker=broker,
                state_dir=state_dir or files.state_directory,
                options=over_files(RunOptions(), files),
                files=files,
            )
        return
    with opened(url) as broker:
        root = state_dir or state_root(url, broker)
        if root is None:
            raise ConfigError(f"{url!r} keeps no state", hint="name a directory with --state-dir")
        yield RebuiltJob(name=topology.job, topology=topology, broker=broker, state_dir=root, options=RunOptions())


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
