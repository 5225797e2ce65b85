"""The worker: fetches for its tasks, runs them on a few threads, and commits them.

One thread (the caller's) fetches and schedules; the others compute and commit. Polars, fsync and the log release the
GIL, so fetching and decoding the next batch overlaps with computing on this one. Python functions hold it, so the
tasks that call them for each row take turns on one thread. A task is run by one thread at a time. What is read next
changes memory and speed, never results.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Final

from streamkit.broker import Broker
from streamkit.graph import Window
from streamkit.records import NEVER_MS
from streamkit.runtime.build import unchecked
from streamkit.runtime.commit import Observe, unobserved
from streamkit.runtime.loop import Loop
from streamkit.runtime.options import Progress, RunOptions, Summary
from streamkit.runtime.runner import RunnerEnvironment, TaskRunner
from streamkit.runtime.setup import prepare
from streamkit.runtime.stores import DirectoryStores, MemoryStores, Stores
from streamkit.seams import Clock, FileSystem
from streamkit.topology import Topology

__all__ = ["Worker"]

_SKEW_FLOOR_MS: Final = 60_000


def _untold(progress: Progress) -> None:
    """Tell nobody."""


class Worker:
    """Runs all tasks of one job in this process.

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
        self._runners: list[TaskRunner] = []

    def run(self, stop: threading.Event, on_progress: Callable[[Progress], None] | None = None) -> Summary:
        """Run until `stop` is set, or to the end of a bounded run.

        Stopping finishes what was read and commits it.

        Raises:
            StreamkitError: The job is wrong, a record is bad, or the log failed. What was committed before is
                intact; the next run goes on from there.
        """
        started_ms = self._clock.monotonic_ms()
        plan = prepare(self._topology, self._broker, self._options, unchecked, self._observe)
        if plan.finished:
            return self._summary(started_ms, already_finished=True, finished=True)
        environment = RunnerEnvironment(
            broker=self._broker,
            stores=self._stores(),
            clock=self._clock,
            options=self._options,
            observe=self._observe,
        )
        with contextlib.ExitStack() as closing:
            for task in plan.tasks:
                self._runners.append(TaskRunner(task, environment))
                closing.callback(self._runners[-1].close)
            loop = Loop(self._runners, self._broker, self._options, self._clock, self._skew_max_ms())
            told = on_progress if on_progress is not None else _untold
            loop.run(stop, lambda: told(self._progress(started_ms, loop.lag)))
            return self._summary(started_ms, finished=plan.run.bounded and all(r.task.finished for r in self._runners))

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
        records_in, records_out, late = self._totals()
        watermark_ms = min(runner.task.watermark_ms for runner in self._runners)
        return Progress(
            records_in=records_in,
            records_out=records_out,
            late=late,
            seconds=(self._clock.monotonic_ms() - started_ms) / 1000,
            lag=lag,
            watermark_ms=None if watermark_ms == NEVER_MS else watermark_ms,
            state_bytes=sum(runner.state_bytes() for runner in self._runners),
        )

    def _totals(self) -> tuple[int, int, int]:
        totals = [runner.this_run() for runner in self._runners]
        return sum(one[0] for one in totals), sum(one[1] for one in totals), sum(one[2] for one in totals)

    def _summary(self, started_ms: float, *, finished: bool, already_finished: bool = False) -> Summary:
        records_in, records_out, late = self._totals()
        seconds = (self._clock.monotonic_ms() - started_ms) / 1000
        return Summary(
            records_in=records_in,
            records_out=records_out,
            late=late,
            seconds=seconds,
            finished=finished,
            already_finished=already_finished,
        )
