"""`streamkit replay`: state and outputs of a job, computed anew from its inputs."""

import sys

import click

from streamkit.broker import EARLIEST, Broker
from streamkit.cli.broker import broker_option, state_dir_option
from streamkit.cli.files import binding_options
from streamkit.cli.moments import moment_ms
from streamkit.cli.rebuilds import progress_shown, rebuilt_job
from streamkit.cli.verify import print_comparisons
from streamkit.runtime.comparing import check_equal
from streamkit.runtime.replay import Replay, ReplayEnvironment, emptied_topics
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import Topology

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
@binding_options
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
def replay(  # noqa: PLR0913  # a parameter an option
    job: str,
    url: str,
    state_dir: str | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    begin: int,
    yes: bool,
    as_json: bool,
) -> None:
    """Compute state and outputs of JOB anew from its inputs, up to where it has been.

    Its state, its internal topics and the records that it has written are removed first; offsets of its sinks go on.
    Cut short in any way, the same command goes on. Exit code 1 if a store is not what it was.

    With --input or --output it is the run over files that has these bindings; the files are read from their start.
    """
    with rebuilt_job(job, url, state_dir, (inputs, outputs)) as found:
        if not yes:
            _ask(found.topology, found.broker)
        with progress_shown(found.name, as_json=as_json) as told:
            environment = ReplayEnvironment(
                broker=found.broker,
                state_dir=found.state_dir,
                options=found.options,
                fs=SystemFileSystem(),
                clock=SystemClock(),
                told=told,
                kept=found.kept,
            )
            replaying = Replay(found.topology, environment, begin)
            comparisons = replaying.run()
        if found.files is not None and replaying.finished:
            found.files.write_outputs()
    print_comparisons(found.name, comparisons, "replayed", as_json=as_json, with_digests=True)
    check_equal(comparisons)


def _ask(topology: Topology, broker: Broker) -> None:
    topics = emptied_topics(topology, broker)
    if not sys.stdin.isatty():
        raise click.UsageError(f"this removes the records of {', '.join(topics)} and the state; --yes says that it may")
    click.confirm(f"Remove the records of {', '.join(topics)} and the state of {topology.job}?", abort=True)
