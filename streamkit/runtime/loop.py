"""The loop of a worker: what is fetched next, which task computes, which commits.

One thread fetches and schedules, the others compute and commit. A task computes on one thread at a time, and has at
most one commit under way.
"""

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final

from streamkit.broker import Broker, Fetched
from streamkit.errors import Answer, StreamkitError
from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.crew import Crew
from streamkit.runtime.marks import run_ended
from streamkit.runtime.options import RunOptions
from streamkit.runtime.runner import TaskRunner
from streamkit.runtime.stalls import StallWatch
from streamkit.runtime.task import Sealed
from streamkit.runtime.task_plan import TaskPlan
from streamkit.runtime.trims import Trims
from streamkit.seams import Clock

__all__ = ["Loop", "next_positions"]

_COMMIT_THREADS: Final = 4
_WAITING_THREADS: Final = 64
_IDLE_MS: Final = 100.0
_BUSY_SECONDS: Final = 0.05
_DUE_MS: Final = 10.0
_PROGRESS_MS: Final = 500.0
_ENDED_MS: Final = 250.0
_SMALL_LAG: Final = 1000

_log = logging.getLogger(__name__)


class Loop:
    """Feeds and commits the tasks of one worker until they are done or it is stopped.

    Args:
        crew: The tasks, as they come and go.
        broker: To fetch from.
        options: What the user asked for.
        clock: For intervals.
        skew_max_ms: How far one source may be ahead of the slowest.
    """

    def __init__(self, crew: Crew, broker: Broker, options: RunOptions, clock: Clock, skew_max_ms: int) -> None:
        """Schedule nothing yet."""
        self._crew, self._broker, self._options, self._clock = crew, broker, options, clock
        self._skew_max_ms = skew_max_ms
        self._fetcher = broker.fetcher("read_committed")
        self._watch = StallWatch(broker.admin, clock)
        self._queues: dict[str, list[Fetched]] = defaultdict(list)
        self._read: dict[TopicPartition, int] = {}
        self._computing: dict[Future[Sealed | None], TaskRunner] = {}
        self._committing: dict[Future[None], tuple[TaskRunner, Sealed]] = {}
        self._stop = threading.Event()
        self._trims = Trims(broker.admin)
        self._looked_ms = -_ENDED_MS
        self.ended = False
        """Whether every task of a bounded run has committed its end, on whatever worker."""

    def run(self, stop: threading.Event, on_progress: Callable[[], None]) -> None:
        """Run until every task of a bounded run has finished, or `stop` is set and what was read is committed.

        A worker that has nothing left to do in a bounded run stays, in case it is given a task, until all have ended.

        Raises:
            StreamkitError: The first error that a task cannot answer itself. Commits under way are finished.
        """
        told_ms = self._clock.monotonic_ms()
        self._stop = stop
        try:
            # Commits wait for the disk, not for a core: they have threads of their own.
            with (
                ThreadPoolExecutor(_COMMIT_THREADS, thread_name_prefix="streamkit-commit") as commits,
                ThreadPoolExecutor(self._options.thread_count, thread_name_prefix="streamkit-columns") as columns,
                # Python functions hold the GIL: two tasks of them at once only take it from each other, and were
                # a quarter slower (measured).
                ThreadPoolExecutor(1, thread_name_prefix="streamkit-python") as python,
                # Async functions wait, on a loop of their own: their tasks do so side by side.
                ThreadPoolExecutor(_WAITING_THREADS, thread_name_prefix="streamkit-waiting") as waiting,
                self._interrupting(),
            ):
                while True:
                    self._collect(commits)
                    self._tend()
                    if self._done():
                        return
                    self._start(_Pools(columns, python, waiting))
                    if stop.is_set() or not self._fetch():
                        self._pause()
                    if self._clock.monotonic_ms() - told_ms >= _PROGRESS_MS:
                        told_ms = self._clock.monotonic_ms()
                        on_progress()
        finally:
            self._fetcher.close()

    @contextlib.contextmanager
    def _interrupting(self) -> Iterator[None]:
        """On an error, let no thread wait on for what comes to nothing: all threads are waited for on the way out."""
        try:
            yield
        except BaseException:
            for runner in (*self._crew.running.values(), *self._crew.leaving.values()):
                runner.interrupt()
            raise

    @property
    def lag(self) -> int:
        """Source records that this worker's tasks still have to read, as of the last fetch."""
        return sum(sum(runner.lags.values()) for runner in self._crew.running.values())

    @property
    def left(self) -> int:
        """The lag, and what was fetched and waits to be computed."""
        waiting = 0
        for runner in self._crew.running.values():
            positions = runner.task.positions()
            waiting += sum(
                max(0, self._read.get(place, position) - position)
                for place, position in positions.items()
                if place in runner.lags
            )
        return self.lag + waiting

    def _tend(self) -> None:
        busy = {runner.plan.task_id for runner in self._computing.values()}
        busy |= {runner.plan.task_id for runner, _ in self._committing.values()}
        self._crew.tend(busy, stopping=self._stop.is_set())
        running = self._crew.running
        for task_id in self._queues.keys() - running.keys():
            del self._queues[task_id]
        places = {place for runner in running.values() for place in runner.task.places()}
        self._read = {place: position for place, position in self._read.items() if place in places}

    def _done(self) -> bool:
        if self._computing or self._committing or self._trims.under_way:
            return False
        crew = self._crew
        if self._stop.is_set():
            return not any(runner.task.dirty for runner in (*crew.running.values(), *crew.leaving.values()))
        bounded = crew.plan.run.bounded
        if bounded and not crew.leaving and all(runner.task.finished for runner in crew.running.values()):
            self.ended = crew.complete or self._ended_elsewhere()
        return self.ended

    def _ended_elsewhere(self) -> bool:
        """Ask the committed offsets, now and then, whether the other workers have finished their tasks."""
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._looked_ms < _ENDED_MS:
            return False
        self._looked_ms = now_ms
        plan = self._crew.plan
        topology, counts = plan.tasks[0].topology, plan.tasks[0].partition_counts
        try:
            committed = self._broker.group(topology.job).committed()
        except StreamkitError as error:
            self._wait_to_retry(error)
            return False
        return run_ended(topology, committed, counts, plan.run.number)

    def _pause(self) -> None:
        """Wait a moment for what is under way; without anything, fetching has waited already."""
        under_way: list[Future[Any]] = [*self._computing, *self._committing, *self._trims.under_way]
        under_way += self._crew.under_way
        if under_way:
            wait(under_way, timeout=_BUSY_SECONDS, return_when=FIRST_COMPLETED)

    def _collect(self, commits: ThreadPoolExecutor) -> None:
        """Take the results of what has ended; the first error that no task can answer is raised."""
        for computed in [future for future in self._computing if future.done()]:
            runner = self._computing.pop(computed)
            sealed = self._result(computed, runner)
            if sealed is not None and self._crew.is_current(runner):
                self._committing[commits.submit(runner.finish, sealed)] = (runner, sealed)
        for committed in [future for future in self._committing if future.done()]:
            runner, sealed = self._committing.pop(committed)
            self._result(committed, runner)
            if self._crew.is_current(runner):
                self._crew.retries.went_well(runner.plan.task_id)
                consumed = {place: sealed.offsets[place].offset for place in runner.task.consumed()}
                self._trims.add(consumed, runner.take_read_bytes())
        self._trims.collect()
        self._trims.start(commits)

    def _result(self, future: Future[Any], runner: TaskRunner) -> Any:
        """Return what a task has done; after an error it is given up, and what it still does comes to nothing."""
        try:
            return future.result()
        except StreamkitError as error:
            if self._crew.is_current(runner):
                self._crew.give_up(runner, error)
            return None

    def _start(self, pools: "_Pools") -> None:
        """Give free threads to the tasks whose watermark is lowest, and to commits that are due."""
        busy = {runner.plan.task_id for runner in self._computing.values()}
        behind, stopping = self._behind, self._stop.is_set()
        leaving = self._crew.leaving
        waiting = sorted((*self._crew.running.values(), *leaving.values()), key=lambda runner: runner.task.watermark_ms)
        for runner in waiting:
            task_id = runner.plan.task_id
            if task_id in busy:
                continue
            pool = pools.of(runner.plan)
            if runner.rewinding:
                self._rewind(runner, pool)
                continue
            last = stopping or task_id in leaving
            queued = [] if last or runner.full else self._queues.pop(task_id, [])
            due = last and runner.task.dirty and not runner.committing.is_set()
            if queued or due or runner.commit_due(behind=behind):
                self._computing[pool.submit(_compute, runner, queued, behind=behind, due=due)] = runner

    def _rewind(self, runner: TaskRunner, pool: ThreadPoolExecutor) -> None:
        """Send a task back to its last commit, once no commit is under way; what was fetched since is fetched again."""
        self._queues.pop(runner.plan.task_id, None)
        for place in runner.task.places():
            self._read.pop(place, None)
        if not runner.committing.is_set():
            self._computing[pool.submit(_rewound, runner)] = runner

    @property
    def _behind(self) -> bool:
        return self._crew.plan.run.bounded or self.lag > _SMALL_LAG

    def _fetch(self) -> bool:
        """Fetch ahead for every input with nothing queued; return whether anything came."""
        positions = self._positions()
        running = self._crew.running.values()
        wait_ms = 0.0
        if not self._computing and not self._committing and not any(self._queues.values()):
            due_soon = self._crew.under_way or any(runner.task.dirty for runner in running)
            wait_ms = _DUE_MS if due_soon else _IDLE_MS
        if not positions:
            self._wait_for_tasks(wait_ms)
            return False
        try:
            fetched = self._fetcher.fetch(positions, wait_ms=wait_ms, bytes_max=self._options.fetch_bytes_max)
        except StreamkitError as error:
            self._wait_to_retry(error)
            return False
        self._crew.retries.went_well("")
        self._take(fetched)
        stalled = self._watch.stalled(positions, fetched)
        if stalled:
            _log.warning("fetching of %s has stalled; beginning anew", ", ".join(map(str, sorted(stalled))))
            self._fetcher.close()
            self._fetcher = self._broker.fetcher("read_committed")
        return bool(fetched)

    def _take(self, fetched: Sequence[Fetched]) -> None:
        owners = {place: runner for runner in self._crew.running.values() for place in runner.task.places()}
        for part in fetched:
            place = part.topic_partition
            runner = owners[place]
            self._read[place] = part.next_offset
            if place in runner.lags:
                end_offset = runner.task.end_offset(place)
                end_offset = part.end_offset if end_offset is None else min(end_offset, part.end_offset)
                runner.lags[place] = max(0, end_offset - part.next_offset)
            self._queues[runner.plan.task_id].append(part)

    def _wait_for_tasks(self, wait_ms: float) -> None:
        """Wait where there is nothing to fetch; what is under way is waited for by `_pause`."""
        if wait_ms and not self._crew.under_way:
            until_due_ms = self._crew.wait_ms
            self._clock.wait(self._stop, wait_ms if until_due_ms is None else min(wait_ms, until_due_ms))

    def _wait_to_retry(self, error: StreamkitError) -> None:
        """Wait, longer each time, until the broker may answer again.

        Raises:
            StreamkitError: `error`, if it is none to be tried again, or came too often.
        """
        if error.answer is not Answer.RETRY:
            raise error
        self._clock.wait(self._stop, self._crew.retries.pause_ms("", error))

    def _positions(self) -> dict[TopicPartition, int]:
        """Return where to fetch next: inputs with nothing queued, not at their end, not too far ahead in time."""
        wanted: dict[TopicPartition, int] = {}
        watermarks_ms: dict[TopicPartition, int] = {}
        unread: set[TopicPartition] = set()
        for runner in self._crew.running.values():
            if runner.rewinding:
                continue
            queued = {part.topic_partition for part in self._queues.get(runner.plan.task_id, [])}
            for place, position in runner.task.positions().items():
                ahead = max(position, self._read.get(place, position))
                if place in runner.lags:
                    watermarks_ms[place] = runner.task.input_watermark_ms(place)
                    if ahead > position or runner.lags[place]:
                        unread.add(place)
                end_offset = runner.task.end_offset(place)
                if place not in queued and (end_offset is None or ahead < end_offset):
                    wanted[place] = ahead
        return next_positions(wanted, watermarks_ms, unread, self._skew_max_ms)


@dataclass(frozen=True, slots=True)
class _Pools:
    """The threads that tasks compute on."""

    columns: ThreadPoolExecutor
    python: ThreadPoolExecutor
    waiting: ThreadPoolExecutor

    def of(self, plan: TaskPlan) -> ThreadPoolExecutor:
        """Return where a task computes."""
        if plan.waits:
            return self.waiting
        return self.python if plan.in_python else self.columns


def next_positions(
    wanted: dict[TopicPartition, int],
    watermarks_ms: dict[TopicPartition, int],
    unread: Set[TopicPartition],
    skew_max_ms: int,
) -> dict[TopicPartition, int]:
    """Leave out the sources that are too far ahead in event time of one that has records to read.

    A source that is caught up holds nobody back: waiting for it would stop everything.

    Args:
        wanted: Where each input would be read next.
        watermarks_ms: Of all source partitions that are not at their end, wanted now or not.
        unread: Those of them that have records that are not computed yet.
        skew_max_ms: How far ahead is too far.
    """
    waiting = [
        watermark_ms for place, watermark_ms in watermarks_ms.items() if place in unread and watermark_ms > NEVER_MS
    ]
    if not waiting:
        return wanted
    limit_ms = min(waiting) + skew_max_ms
    return {
        place: position
        for place, position in wanted.items()
        if place not in watermarks_ms or watermarks_ms[place] <= limit_ms
    }


def _compute(runner: TaskRunner, queued: list[Fetched], *, behind: bool, due: bool) -> Sealed | None:
    """Run what was fetched; seal when a commit is due."""
    for fetched in queued:
        runner.feed(fetched)
        if runner.rewinding:
            return None
    if due or runner.commit_due(behind=behind):
        return runner.seal()
    return None


def _rewound(runner: TaskRunner) -> None:
    runner.rewind()
