"""`streamkit run`: a worker in this process, its signals and its summary; or several, each in a process of its own."""

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import replace
from typing import Final

import click

from streamkit.broker.state_root import state_root
from streamkit.cli.broker import broker_option, opened, state_dir_option
from streamkit.cli.exits import SIGNALLED
from streamkit.cli.files import Bindings, file_options, file_run, is_bounded, over_files
from streamkit.cli.lines import Reporter
from streamkit.cli.load import load_job
from streamkit.cli.lock import refuse_unlocked
from streamkit.cli.progress import reporter_for
from streamkit.cli.workers import ChildReporter, run_workers, when_orphaned
from streamkit.errors import ConfigError
from streamkit.runtime import Guarantee, RunOptions, Summary, Worker
from streamkit.runtime.service import WorkerService
from streamkit.runtime.setup import prepare
from streamkit.runtime.task_plan import unchecked
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import Topology, compile_graph

__all__ = ["run"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@click.command()
@click.argument("job")
@broker_option
@state_dir_option
@file_options
@click.option("--bounded", is_flag=True, help="Read to the end as it is at the first start, close every window, exit.")
@click.option("--continue", "go_on", is_flag=True, help="After a finished bounded run: read what came since.")
@click.option(
    "--guarantee",
    type=click.Choice(["exactly-once", "at-least-once"]),
    default="exactly-once",
    show_default=True,
    help="at-least-once sends outputs sooner; after a crash some may come twice.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes; more on Kafka only."
)
@click.option("--worker-id", metavar="ID", help="The same at each start.  [default: host name, and a number]")
@click.option("--json", "as_json", is_flag=True, help="Print progress as JSON lines; the last one is the summary.")
@click.option("--child", is_flag=True, hidden=True)
def run(  # noqa: PLR0913  # a parameter an option
    job: str,
    url: str,
    state_dir: str | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    overwrite: bool,
    bounded: bool,
    go_on: bool,
    guarantee: Guarantee,
    workers: int,
    worker_id: str | None,
    as_json: bool,
    child: bool,
) -> None:
    """Run JOB, a module or a file, from where it was committed.

    Sinks that are missing are made, and keep their records for ever (retention.ms=-1).

    Ctrl-C finishes the commit that is under way; a second one does not wait for it. Neither loses anything.
    """
    if go_on and not bounded:
        raise click.UsageError("--continue goes with --bounded")
    topology = compile_graph(load_job(job).build())
    refuse_unlocked(job, topology)
    if workers > 1 and not url.startswith("kafka://"):
        raise ConfigError(
            f"--workers {workers} goes with Kafka: one process uses an embedded log at a time",
            detail=f"the broker is {url}",
            hint="leave --workers out, or use --broker kafka://host:9092",
        )
    bindings = Bindings(inputs=inputs, outputs=outputs, overwrite=overwrite)
    if bindings and (workers > 1 or go_on or guarantee != "exactly-once"):
        raise click.UsageError("--workers, --continue and --guarantee go with topics, not with --input and --output")
    host = worker_id or os.uname().nodename
    options = RunOptions(
        bounded=bounded or (bool(bindings) and is_bounded(topology, bindings)),
        go_on=go_on,
        guarantee=guarantee,
        worker_id=worker_id or f"{host}-0",
    )
    if workers > 1:
        arguments = ["run", job, "--child", "--broker", url, "--guarantee", guarantee]
        arguments += ["--bounded"] if bounded else []
        arguments += ["--state-dir", state_dir] if state_dir is not None else []
        ids = [f"{host}-{number}" for number in range(workers)]
        sys.exit(_run_workers(topology, url, options, (arguments, ids), as_json=as_json))
    told = (
        contextlib.nullcontext(ChildReporter())
        if child
        else reporter_for(topology.job, as_json=as_json, ends=options.bounded)
    )
    if bindings:
        with told as reporter:
            _run_files(topology, bindings, url, replace(options, state_dir=state_dir), reporter)
        return
    with opened(url) as broker:
        options = replace(options, state_dir=state_dir or state_root(url, broker))
        worker = Worker(topology, broker, options=options, fs=SystemFileSystem(), clock=SystemClock())
        with told as reporter:
            summary, caught = asyncio.run(_supervise(worker, reporter, child=child))
            reporter.summary(summary)
    if bounded and caught is not None and not summary.finished:
        sys.exit(SIGNALLED + caught)


def _run_files(topology: Topology, bindings: Bindings, url: str, options: RunOptions, reporter: Reporter) -> None:
    """Run over files to the end, and tell it once the outputs are in their places."""
    summary = Summary(records_in=0, records_out=0, late=0, seconds=0.0, finished=True)
    with file_run(topology, bindings, url, bounded=options.bounded) as (files, broker):
        if broker is not None:
            options = over_files(replace(options, state_dir=options.state_dir or files.state_directory), files)
            worker = Worker(files.topology, broker, options=options, fs=SystemFileSystem(), clock=SystemClock())
            summary, caught = asyncio.run(_supervise(worker, reporter, child=False))
            if not summary.finished:
                reporter.summary(summary)
                sys.exit(SIGNALLED + caught if options.bounded and caught is not None else 0)
    reporter.summary(replace(summary, already_finished=False))


def _run_workers(
    topology: Topology, url: str, options: RunOptions, command: tuple[list[str], list[str]], *, as_json: bool
) -> int:
    """Fix the run here, so that a child that comes late cannot begin another one, and leave it to the children."""
    with opened(url) as broker:
        plan = prepare(topology, broker, options, unchecked)
    with reporter_for(topology.job, as_json=as_json, ends=options.bounded) as reporter:
        if plan.finished:
            nothing = Summary(records_in=0, records_out=0, late=0, seconds=0.0, finished=True, already_finished=True)
            reporter.summary(nothing)
            return 0
        return run_workers(*command, reporter, SystemClock(), bounded=options.bounded)


async def _supervise(worker: Worker, reporter: Reporter, *, child: bool) -> tuple[Summary, int | None]:
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
    if child:
        when_orphaned(service.finish)
    await service.start()
    try:
        summary = await service.outcome()
    finally:
        await service.stop()
        for each in _SIGNALS:
            # The worker has ended; what is left is to close the log, and that is not to be cut short.
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_IGN)
    return summary, caught[0] if caught else None
