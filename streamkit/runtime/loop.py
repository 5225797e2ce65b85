"""The loop of a worker: what is fetched next, which task computes, which commits.

One thread fetches and schedules, the others compute and commit. A task computes on one thread at a time, and has at
most one commit under way.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final

from streamkit.broker import LAST_STABLE, Broker, Fetched
from streamkit.errors import Answer, CommitFailedError, StreamkitError
from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.options import RunOptions
from streamkit.runtime.runner import TaskRunner
from streamkit.runtime.task import Sealed
from streamkit.seams import Clock

__all__ = ["Loop", "next_positions"]

_COMMIT_THREADS: Final = 4
_IDLE_MS: Final = 100.0
_BUSY_SECONDS: Final = 0.05
_DUE_MS: Final = 10.0
_PROGRESS_MS: Final = 500.0
_SMALL_LAG: Final = 1000
_TRIM_BYTES: Final = 16 * 1024 * 1024
_ATTEMPTS_MAX: Final = 5
_RETRIES_MAX: Final = 64
"""With the pauses below, a broker that does not answer is given about five minutes."""
_RETRY_MIN_MS: Final = 100.0
_RETRY_MAX_MS: Final = 5000.0


class Loop:
    """Feeds and commits the tasks of one worker until they are done or it is stopped.

    Args:
        runners: The opened tasks.
        broker: To fetch from.
        options: What the user asked for.
        clock: For intervals.
        skew_max_ms: How far one source may be ahead of the slowest.
    """

    def __init__(
        self, runners: Iterable[TaskRunner], broker: Broker, options: RunOptions, clock: Clock, skew_max_ms: int
    ) -> None:
        """Schedule nothing yet."""
        self._runners = {runner.plan.task_id: runner for runner in runners}
        self._broker, self._options, self._clock, self._skew_max_ms = broker, options, clock, skew_max_ms
        self._fetcher = broker.fetcher("read_committed")
        self._queues: dict[str, list[Fetched]] = defaultdict(list)
        self._read: dict[TopicPartition, int] = {}
        self._lags: dict[TopicPartition, int] = {}
        self._computing: dict[Future[Sealed | None], TaskRunner] = {}
        self._committing: dict[Future[None], tuple[TaskRunner, Sealed]] = {}
        self._failures: dict[str, int] = defaultdict(int)
        self._stop = threading.Event()
        self._untrimmed_bytes = 0
        self._trimmed: dict[TopicPartition, int] = {}

    def run(self, stop: threading.Event, on_tick: Callable[[], None]) -> None:
        """Run until every task of a bounded run has finished, or `stop` is set and what was read is committed.

        Raises:
            StreamkitError: The first error that a task cannot answer itself. Commits under way are finished.
        """
        ticked_ms = self._clock.monotonic_ms()
        self._stop = stop
        self._lags = self._first_lags()
        try:
            # Commits wait for the disk, not for a core: they have threads of their own.
            with (
                ThreadPoolExecutor(_COMMIT_THREADS, thread_name_prefix="streamkit-commit") as commits,
                ThreadPoolExecutor(self._options.thread_count, thread_name_prefix="streamkit-columns") as columns,
                # Python functions hold the GIL: two tasks of them at once only take it from each other, and were
                # a quarter slower (measured).
                ThreadPoolExecutor(1, thread_name_prefix="streamkit-python") as python,
            ):
                while not self._done(stop):
                    self._collect(commits)
                    self._start(columns, python, stopping=stop.is_set())
                    if stop.is_set() or not self._fetch():
                        self._pause()
                    if self._clock.monotonic_ms() - ticked_ms >= _PROGRESS_MS:
                        ticked_ms = self._clock.monotonic_ms()
                        on_tick()
        finally:
            self._fetcher.close()

    @property
    def lag(self) -> int:
        """Source records still to read, as of the last fetch."""
        return sum(self._lags.values())

    def _done(self, stop: threading.Event) -> bool:
        if self._computing or self._committing:
            return False
        if stop.is_set():
            return not any(runner.task.dirty for runner in self._runners.values())
        return all(runner.task.finished for runner in self._runners.values())

    def _pause(self) -> None:
        """Wait a moment for a computing or committing task; without one, fetching has waited already."""
        under_way: list[Future[Any]] = [*self._computing, *self._committing]
        if under_way:
            wait(under_way, timeout=_BUSY_SECONDS, return_when=FIRST_COMPLETED)

    def _collect(self, commits: ThreadPoolExecutor) -> None:
        """Take the results of what has ended; the first error that no task can answer is raised."""
        for computed in [future for future in self._computing if future.done()]:
            runner = self._computing.pop(computed)
            try:
                sealed = computed.result()
            except StreamkitError as error:
                self._answer(runner, error)
                continue
            if sealed is not None:
                self._committing[commits.submit(runner.finish, sealed)] = (runner, sealed)
        for committed in [future for future in self._committing if future.done()]:
            runner, sealed = self._committing.pop(committed)
            try:
                committed.result()
            except StreamkitError as error:
                self._answer(runner, error)
                continue
            self._failures[runner.plan.task_id] = 0
            self._trim(runner, sealed)

    def _answer(self, runner: TaskRunner, error: StreamkitError) -> None:
        """Reopen a task whose commit is unknown, whose store is damaged or whose broker did not answer.

        Raises:
            StreamkitError: What stops the worker: any other error, or one that came too often.
        """
        # Whatever the task still does, it does with the producer and the store that are given up now.
        under_way: list[Future[Any]] = [future for future, owner in self._computing.items() if owner is runner]
        under_way += [future for future, (owner, _) in self._committing.items() if owner is runner]
        wait(under_way)
        self._computing = {future: owner for future, owner in self._computing.items() if owner is not runner}
        self._committing = {future: pair for future, pair in self._committing.items() if pair[0] is not runner}
        self._queues.pop(runner.plan.task_id, None)
        for place in runner.task.places():
            self._read.pop(place, None)
        while True:
            self._wait_to_retry(runner.plan.task_id, error)
            try:
                return runner.reopen(error)
            except StreamkitError as again:
                error = again

    def _wait_to_retry(self, what: str, error: StreamkitError) -> None:
        """Wait, longer each time, before something is tried again; raise what must not be, or was too often."""
        self._failures[what] += 1
        failures = self._failures[what]
        retriable = error.answer is Answer.RETRY
        if not retriable and not isinstance(error, CommitFailedError) and error.answer is not Answer.RESTORE:
            raise error
        if failures > (_RETRIES_MAX if retriable else _ATTEMPTS_MAX):
            raise error
        if failures > 1 or retriable:
            self._clock.wait(self._stop, min(_RETRY_MIN_MS * 2.0**failures, _RETRY_MAX_MS))

    def _start(self, columns: ThreadPoolExecutor, python: ThreadPoolExecutor, *, stopping: bool) -> None:
        """Give free threads to the tasks whose watermark is lowest, and to commits that are due."""
        busy = {runner.plan.task_id for runner in self._computing.values()}
        behind = self._behind
        waiting = sorted(self._runners.values(), key=lambda runner: runner.task.watermark_ms)
        for runner in waiting:
            task_id = runner.plan.task_id
            if task_id in busy:
                continue
            queued = [] if stopping or runner.full else self._queues.pop(task_id, [])
            due = stopping and runner.task.dirty and not runner.committing.is_set()
            if queued or due or runner.commit_due(behind=behind):
                pool = python if runner.plan.in_python else columns
                self._computing[pool.submit(_compute, runner, queued, behind=behind, due=due)] = runner

    @property
    def _behind(self) -> bool:
        bounded = any(runner.task.context.run.bounded for runner in self._runners.values())
        return bounded or self.lag > _SMALL_LAG

    def _fetch(self) -> bool:
        """Fetch ahead for every input with nothing queued; return whether anything came."""
        positions = self._positions()
        idle = not self._computing and not self._committing and not any(self._queues.values())
        due_soon = any(runner.task.dirty for runner in self._runners.values())
        wait_ms = (_DUE_MS if due_soon else _IDLE_MS) if idle else 0.0
        try:
            fetched = self._fetcher.fetch(positions, wait_ms=wait_ms, bytes_max=self._options.fetch_bytes_max)
        except StreamkitError as error:
            if error.answer is not Answer.RETRY:
                raise
            self._wait_to_retry("", error)
            return False
        self._failures[""] = 0
        owners = {place: runner for runner in self._runners.values() for place in runner.task.places()}
        for part in fetched:
            place = part.topic_partition
            runner = owners[place]
            self._read[place] = part.next_offset
            if place.topic in runner.plan.sub.source_topics:
                end_offset = runner.task.end_offset(place)
                end_offset = part.end_offset if end_offset is None else min(end_offset, part.end_offset)
                self._lags[place] = max(0, end_offset - part.next_offset)
            self._queues[runner.plan.task_id].append(part)
        return bool(fetched)

    def _positions(self) -> dict[TopicPartition, int]:
        """Return where to fetch next: inputs with nothing queued, not at their end, not too far ahead in time."""
        wanted: dict[TopicPartition, int] = {}
        watermarks_ms: dict[TopicPartition, int] = {}
        unread: set[TopicPartition] = set()
        for runner in self._runners.values():
            queued = {part.topic_partition for part in self._queues.get(runner.plan.task_id, [])}
            for place, position in runner.task.positions().items():
                ahead = max(position, self._read.get(place, position))
                if place in self._lags:
                    watermarks_ms[place] = runner.task.input_watermark_ms(place)
                    if ahead > position or self._lags[place]:
                        unread.add(place)
                end_offset = runner.task.end_offset(place)
                if place not in queued and (end_offset is None or ahead < end_offset):
                    wanted[place] = ahead
        return next_positions(wanted, watermarks_ms, unread, self._skew_max_ms)

    def _first_lags(self) -> dict[TopicPartition, int]:
        """Return how much there is to read of every source partition before anything is fetched."""
        lags = {}
        for runner in self._runners.values():
            positions = {
                place: position
                for place, position in runner.task.positions().items()
                if place.topic in runner.plan.sub.source_topics
            }
            ends = self._broker.admin.list_offsets(dict.fromkeys(positions, LAST_STABLE))
            for place, position in positions.items():
                end_offset = runner.task.end_offset(place)
                lags[place] = max(0, (ends[place] if end_offset is None else end_offset) - position)
        return lags

    def _trim(self, runner: TaskRunner, sealed: Sealed) -> None:
        """Let go of repartition records that every reader has committed, some megabytes at a time."""
        self._untrimmed_bytes += runner.take_read_bytes()
        channels = runner.task.consumed()
        self._trimmed.update({place: sealed.offsets[place].offset for place in channels})
        if self._untrimmed_bytes >= _TRIM_BYTES and self._trimmed:
            self._broker.admin.delete_records(self._trimmed)
            self._untrimmed_bytes, self._trimmed = 0, {}


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
    if due or runner.commit_due(behind=behind):
        return runner.seal()
    return None
