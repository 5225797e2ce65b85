"""`streamkit run`: a worker in this process, its signals and its summary."""

import asyncio
import signal
import sys
from typing import Final

import click

from streamkit.cli.broker import broker_option, log_directory, opened
from streamkit.cli.exits import SIGNALLED
from streamkit.cli.lines import Reporter
from streamkit.cli.load import load_job
from streamkit.cli.progress import reporter_for
from streamkit.runtime import Guarantee, RunOptions, Summary, Worker
from streamkit.runtime.service import WorkerService
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

__all__ = ["run"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@click.command()
@click.argument("job")
@broker_option
@click.option("--state-dir", metavar="DIR", help="Root of the state.  [default: DIR/state of log://DIR]")
@click.option("--bounded", is_flag=True, help="Read to the end as it is at the first start, close every window, exit.")
@click.option("--continue", "go_on", is_flag=True, help="After a finished bounded run: read what came since.")
@click.option(
    "--guarantee",
    type=click.Choice(["exactly-once", "at-least-once"]),
    default="exactly-once",
    show_default=True,
    help="at-least-once sends outputs sooner; after a crash some may come twice.",
)
@click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines; the last one is the summary.")
def run(  # noqa: PLR0913  # a parameter an option
    job: str, url: str, state_dir: str | None, bounded: bool, go_on: bool, guarantee: Guarantee, as_json: bool
) -> None:
    """Run JOB, a module or a file, from where it was committed.

    Ctrl-C finishes the commit that is under way; a second one does not wait for it. Neither loses anything.
    """
    if go_on and not bounded:
        raise click.UsageError("--continue goes with --bounded")
    topology = compile_graph(load_job(job).build())
    directory = log_directory(url)
    if state_dir is None and directory is not None:
        state_dir = f"{directory}/state"
    options = RunOptions(bounded=bounded, go_on=go_on, guarantee=guarantee, state_dir=state_dir)
    with opened(url) as broker:
        worker = Worker(topology, broker, options=options, fs=SystemFileSystem(), clock=SystemClock())
        with reporter_for(topology.job, as_json=as_json) as reporter:
            summary, caught = asyncio.run(_supervise(worker, reporter))
    if bounded and caught is not None and not summary.finished:
        sys.exit(SIGNALLED + caught)


async def _supervise(worker: Worker, reporter: Reporter) -> tuple[Summary, int | None]:
    """Run the worker to its end; return its summary and the signal that asked it to stop."""
    service = WorkerService(worker, reporter.progress)
    caught: list[int] = []
    loop = asyncio.get_running_loop()

    def ask_to_stop(number: int) -> None:
        caught.append(number)
        service.finish()
        for each in _SIGNALS:
            # A second signal kills, as if nobody listened: what is committed is safe.
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for each in _SIGNALS:
        loop.add_signal_handler(each, ask_to_stop, each)
    await service.start()
    try:
        summary = await service.outcome()
    finally:
        await service.stop()
        for each in _SIGNALS:
            # The worker has ended; what is left is to close the log, and that is not to be cut short.
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_IGN)
    reporter.summary(summary)
    return summary, caught[0] if caught else None
