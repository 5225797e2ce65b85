"""A job as a service of a Faust app: it starts when the app has started, and stops with it."""

import asyncio
from dataclasses import replace
from typing import Any

from mode import Service

from streamkit.broker.state_root import state_root
from streamkit.dsl import Job
from streamkit.errors import ConfigError
from streamkit.graph import Source
from streamkit.hosts.faust.topics import Topics
from streamkit.hosts.faust.urls import PREFIX, broker_url, url_as_written
from streamkit.hosts.leases import Lease, lease
from streamkit.runtime import RunOptions, Worker
from streamkit.runtime.service import WorkerService
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import Topology, compile_graph

__all__ = ["mount"]


def mount(
    app: Any, job: Job, *, broker: str | None = None, state_dir: str | None = None, options: RunOptions | None = None
) -> None:
    """Run a job inside a Faust app: a worker on a thread, as a service that starts and stops with the app.

    The job's results, its consumer group and its state are those of `streamkit run`: it can go on there, and the
    other way round, one at a time. Source topics that do not exist are made, as the app makes its own.
    An error of the job crashes the app. Stopping the app commits what the job has read.

    Args:
        app: A `faust.App` that was not started.
        job: It is built, hence frozen.
        broker: As for `streamkit run --broker`; the app's own unless said.
        state_dir: Root of the state; unless said, that of `streamkit run`: `DIR/state` for `log://DIR`,
            `.streamkit/kafka/ID` for the Kafka cluster with that id, memory for `memory://`.
        options: How it is run, `state_dir` aside.

    Raises:
        DefinitionError: The job is wrong.
        ConfigError: The app's broker is not streamkit's and no other is said, or app and job share their group.
    """
    topology = compile_graph(job.build())
    url = broker if broker is not None else _own_broker(app)
    if topology.job == app.conf.id:
        raise ConfigError(
            f"the job and the app are both called {job.name!r}, so both would commit offsets in that group",
            hint="give one of them another name",
        )
    chosen = options or RunOptions()
    chosen = replace(chosen, state_dir=state_dir or chosen.state_dir)

    class MountedHere(MountedJob):
        """The job as a class, which is what a Faust app is told of."""

        def __init__(self, **place: Any) -> None:
            super().__init__(app, topology, url, chosen, **place)

    app.service(MountedHere)


def _own_broker(app: Any) -> str:
    urls = app.conf.broker
    if not urls[0].scheme.startswith(PREFIX):
        raise ConfigError(
            f"the app's broker {str(urls[0])!r} is none of streamkit's, so the job needs one of its own",
            hint='mount(app, job, broker="log://.streamkit"), or kafka://HOST:PORT',
        )
    return broker_url(urls, url_as_written(app))


class MountedJob(Service):
    """A job's worker among the services of a Faust app.

    Args:
        app: The Faust app.
        topology: Of the job.
        url: Of the broker.
        options: How it is run; without a `state_dir` its state lies where the broker has it.
        place: Where mode puts the service.
    """

    def __init__(self, app: Any, topology: Topology, url: str, options: RunOptions, **place: Any) -> None:
        """Open nothing yet."""
        super().__init__(**place)
        self._app, self._topology, self._url, self._options = app, topology, url, options
        self._lease: Lease | None = None
        self._worker: WorkerService | None = None

    @property
    def label(self) -> str:
        """What the host's log calls it."""
        return f"Job: {self._topology.job}"

    @property
    def shortlabel(self) -> str:
        """The same."""
        return self.label

    async def on_start(self) -> None:
        """Open the broker, or share it with who has it open in this process, and start the worker.

        Raises:
            StreamkitError: The broker cannot be opened, a source topic is missing and may not be made, or the Kafka
                cluster's id is no name for a directory.
        """
        self._lease = await asyncio.to_thread(lease, self._url)
        broker = self._lease.broker
        await Topics(broker, self._app).counts(_sources(self._topology))
        state_dir = self._options.state_dir or await asyncio.to_thread(state_root, self._url, broker)
        worker = Worker(
            self._topology,
            broker,
            options=replace(self._options, state_dir=state_dir),
            fs=SystemFileSystem(),
            clock=SystemClock(),
        )
        self._worker = WorkerService(worker)
        await self._worker.start()
        self.add_future(self._watch(self._worker))

    async def _watch(self, worker: WorkerService) -> None:
        """Raise what stopped the worker: mode makes it the app's crash."""
        summary = await worker.outcome()
        self.log.info("%s ended: %d records in, %d out", self._topology.job, summary.records_in, summary.records_out)

    async def on_stop(self) -> None:
        """Finish the job's commits, and give the broker back."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()
        held, self._lease = self._lease, None
        if held is not None:
            await asyncio.to_thread(held.release)


def _sources(topology: Topology) -> list[str]:
    return [node.topic for node in topology.graph.nodes if isinstance(node, Source)]
