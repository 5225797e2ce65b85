"""`streamkit replay`: state and outputs of a job, computed anew from its inputs."""

import sys

import click

from streamkit.broker import EARLIEST, Broker
from streamkit.broker.state_root import state_root
from streamkit.cli.broker import broker_option, opened, state_dir_option
from streamkit.cli.load import load_job
from streamkit.cli.moments import moment_ms
from streamkit.cli.rebuilds import progress_shown
from streamkit.cli.verify import print_comparisons
from streamkit.errors import ConfigError
from streamkit.runtime import RunOptions
from streamkit.runtime.comparing import check_equal
from streamkit.runtime.options import BATCH_COMMIT_BYTES, BATCH_COMMIT_MS
from streamkit.runtime.replay import Replay, ReplayEnvironment, emptied_topics
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import Topology, compile_graph

__all__ = ["replay"]


def _begin(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    """Return the spec for `list_offsets`."""
    if text == "earliest":
        return EARLIEST
    return moment_ms(text, "earliest nor")


@click.command()
@click.argument("job")
@broker_option
@state_dir_option
@click.option(
    "--from",
    "begin",
    callback=_begin,
    default="earliest",
    show_default=True,
    metavar="earliest|TIME",
    help="Where to begin in the sources; a time is ISO 8601, UTC unless it says otherwise.",
)
@click.option("--yes", is_flag=True, help="Do not ask before the state and the outputs are removed.")
@click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines; the last one has the answers.")
def replay(job: str, url: str, state_dir: str | None, begin: int, yes: bool, as_json: bool) -> None:
    """Compute state and outputs of JOB anew from its inputs, up to where it has been.

    Its state, its internal topics and the records that it has written are removed first; offsets of its sinks go on.
    Cut short in any way, the same command goes on. Exit code 1 if a store is not what it was.
    """
    topology = compile_graph(load_job(job).build())
    with opened(url) as broker:
        root = state_dir or state_root(url, broker)
        if root is None:
            raise ConfigError(f"{url!r} keeps no state", hint="name a directory with --state-dir")
        if not yes:
            _ask(topology, broker)
        with progress_shown(topology.job, as_json=as_json) as told:
            environment = ReplayEnvironment(
                broker=broker,
                state_dir=root,
                options=RunOptions(commit_bytes_max=BATCH_COMMIT_BYTES, commit_interval_ms=BATCH_COMMIT_MS),
                fs=SystemFileSystem(),
                clock=SystemClock(),
                told=told,
            )
            comparisons = Replay(topology, environment, begin).run()
    print_comparisons(topology.job, comparisons, "replayed", as_json=as_json, with_digests=True)
    check_equal(comparisons)


def _ask(topology: Topology, broker: Broker) -> None:
    topics = emptied_topics(topology, broker)
    if not sys.stdin.isatty():
        raise click.UsageError(f"this removes the records of {', '.join(topics)} and the state; --yes says that it may")
    click.confirm(f"Remove the records of {', '.join(topics)} and the state of {topology.job}?", abort=True)
