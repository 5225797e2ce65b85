"""The worker: joins the job's group, fetches for the tasks it is assigned, runs them on a few threads, commits them.

One thread (the caller's) fetches and schedules; the others compute and commit. Polars, fsync and the log release the
GIL, so fetching and decoding the next batch overlaps with computing on this one. Python functions hold it, so the
tasks that call them for each row take turns on one thread. A task is run by one thread at a time. What is read next
changes memory and speed, never results.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from streamkit.broker import Broker
from streamkit.broker.assignment import assign_tasks
from streamkit.broker.protocols import Member, Membership
from streamkit.graph import Window
from streamkit.records import NEVER_MS
from streamkit.runtime.commit import Observe, unobserved
from streamkit.runtime.crew import Crew
from streamkit.runtime.loop import Loop
from streamkit.runtime.options import Progress, RunOptions, Summary
from streamkit.runtime.runner import NO_COUNTS, RunnerEnvironment
from streamkit.runtime.setup import JobPlan, prepare
from streamkit.runtime.stores import DirectoryStores, MemoryStores, Stores
from streamkit.runtime.task_plan import unchecked
from streamkit.seams import Clock, FileSystem, ThreadEventLoop
from streamkit.topology import Topology

__all__ = ["Worker"]

_SKEW_FLOOR_MS: Final = 60_000
_WAITING_FETCH_BYTES_MAX: Final = 256 * 1024


def _untold(progress: Progress) -> None:
    """Tell nobody."""


class Worker:
    """Runs the tasks of one job that are assigned to it.

    Args:
        topology: Of the job.
        broker: Where its topics are.
        options: What the user asked for.
        fs: For state directories.
        clock: For intervals.
        observe: Told each step of setting up, of each opening and each commit, for crash tests.
    """

    def __init__(
        self,
        topology: Topology,
        broker: Broker,
        *,
        options: RunOptions,
        fs: FileSystem,
        clock: Clock,
        observe: Observe = unobserved,
    ) -> None:
        """Open nothing yet."""
        self._topology, self._broker, self._options = topology, broker, options
        self._fs, self._clock, self._observe = fs, clock, observe
        self._crew: Crew | None = None

    def run(self, stop: threading.Event, on_progress: Callable[[Progress], None] | None = None) -> Summary:
        """Run until `stop` is set, or to the end of a bounded run.

        Stopping finishes what was read and commits it. Progress and summary are of this worker's tasks alone.

        Raises:
            StreamkitError: The job is wrong, a record is bad, or the log failed. What was committed before is
                intact; the next run goes on from there.
        """
        started_ms = self._clock.monotonic_ms()
        plan = prepare(self._topology, self._broker, self._options, unchecked, self._observe, self._clock)
        if plan.finished:
            return self._summary(started_ms, already_finished=True, finished=True)
        event_loop = ThreadEventLoop()
        environment = RunnerEnvironment(
            broker=self._broker,
            stores=self._stores(),
            clock=self._clock,
            options=self._options,
            observe=self._observe,
            event_loop=event_loop,
        )
        told = on_progress if on_progress is not None else _untold
        membership = self._join(plan)
        try:
            with Crew(plan, environment, membership) as self._crew:
                loop = Loop(self._crew, self._broker, self._loop_options(plan), self._clock, self._skew_max_ms())
                loop.run(stop, lambda: told(self._progress(started_ms, loop.left)))
        finally:
            # Only now: whoever gets a task next finds its directory given back.
            membership.leave()
            event_loop.close()
        return self._summary(started_ms, finished=loop.ended)

    def _loop_options(self, plan: JobPlan) -> RunOptions:
        """Return the options, with a smaller fetch where records wait for async functions: it delays a commit."""
        if not any(task.waits for task in plan.tasks):
            return self._options
        return replace(self._options, fetch_bytes_max=min(self._options.fetch_bytes_max, _WAITING_FETCH_BYTES_MAX))

    def _join(self, plan: JobPlan) -> Membership:
        tasks = [task.task_id for task in plan.tasks]
        topics = sorted({topic for sub in self._topology.sub_topologies for topic in sub.source_topics})
        member = Member(id=self._options.worker_id)
        return self._broker.join(self._topology.job, topics, member, lambda members: assign_tasks(members, tasks))

    def _stores(self) -> Stores:
        if self._options.state_dir is None:
            return MemoryStores()
        return DirectoryStores(self._fs, self._options.state_dir, self._topology.job, self._broker.admin.log_id())

    def _skew_max_ms(self) -> int:
        if self._options.skew_max_ms is not None:
            return self._options.skew_max_ms
        sizes = [node.window.size_ms for node in self._topology.graph.nodes if isinstance(node, Window)]
        return max([_SKEW_FLOOR_MS, *sizes])

    def _progress(self, started_ms: float, lag: int) -> Progress:
        assert self._crew is not None, "its loop is running"
        running = self._crew.running.values()
        counts = self._crew.totals()
        watermark_ms = min((runner.task.watermark_ms for runner in running), default=NEVER_MS)
        return Progress(
            **counts._asdict(),
            seconds=(self._clock.monotonic_ms() - started_ms) / 1000,
            lag=lag,
            watermark_ms=None if watermark_ms == NEVER_MS else watermark_ms,
            state_bytes=sum(runner.state_bytes() for runner in running),
        )

    def _summary(self, started_ms: float, *, finished: bool, already_finished: bool = False) -> Summary:
        counts = NO_COUNTS if self._crew is None else self._crew.totals()
        seconds = (self._clock.monotonic_ms() - started_ms) / 1000
        return Summary(
            **counts._asdict(),
            seconds=seconds,
            finished=finished,
            already_finished=already_finished,
        )
