"""Runs one task: feeds it, decides when it commits, commits.

One commit is under way at a time; computing goes on meanwhile in the other generation of the overlay.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from streamkit.broker import LAST_STABLE, Broker, Fetched
from streamkit.errors import Answer, RecordError, StreamkitError
from streamkit.records import TopicPartition
from streamkit.runtime.aside import Aside, PickedRecords
from streamkit.runtime.commit import Commit, Observe, Publisher
from streamkit.runtime.coroutines import Coroutines
from streamkit.runtime.opening import Opened, open_task
from streamkit.runtime.options import RunOptions
from streamkit.runtime.probe import bad_records, bad_results
from streamkit.runtime.stores import Stores
from streamkit.runtime.task import Sealed, Task
from streamkit.runtime.task_plan import TaskPlan
from streamkit.seams import Clock, EventLoop
from streamkit.topology.names import dead_letter_topic

__all__ = ["NO_COUNTS", "Counts", "RunnerEnvironment", "TaskRunner", "sum_counts"]

_FLOOR_MS: Final = 10
_EBB_FACTOR: Final = 4
"""Windows have just closed when the rows held are this much fewer than they were."""
_EBB_INTERVAL_PART: Final = 20
"""Then a commit need only be this part of the interval away from what it commits."""
_FLUSH_MS: Final = 30_000
_FLUSH_RECORDS: Final = 200_000


class Counts(NamedTuple):
    """What one task or several have done; `skipped` has the `dead_letters` in it."""

    records_in: int
    records_out: int
    late: int
    skipped: int
    dead_letters: int


NO_COUNTS: Final = Counts(0, 0, 0, 0, 0)


def sum_counts(*counts: Counts) -> Counts:
    """Return the sums of each of them."""
    return Counts(*map(sum, zip(*counts, strict=True))) if counts else NO_COUNTS


def _since(began: Counts, now: Counts) -> Counts:
    return Counts(*(after - before for before, after in zip(began, now, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerEnvironment:
    """What all runners of one worker share. `observe` is told the steps of every opening and every commit."""

    broker: Broker
    stores: Stores
    clock: Clock
    options: RunOptions
    observe: Observe
    event_loop: EventLoop


class TaskRunner:
    """One task with its producer, its store and its clockwork.

    Args:
        plan: Of the task.
        environment: Of the worker.
        stop: Set when the task is no longer wanted while it is opened.
        began: The task's totals when this worker opened it first, if this is not the first time; see `this_run`.
    """

    def __init__(
        self,
        plan: TaskPlan,
        environment: RunnerEnvironment,
        stop: threading.Event | None = None,
        began: Counts | None = None,
    ) -> None:
        """Open the task.

        Raises:
            StreamkitError: What `open_task` raises. Everything was given back.
        """
        self._coroutines = Coroutines(environment.event_loop)
        self.plan, self._environment = replace(plan, coroutines=self._coroutines), environment
        self.committing = threading.Event()
        self.rewinding = False
        """Whether the task is to go back to its last commit before anything else: see `rewind`."""
        self._aside, self._careful, self._commit_soon = _aside_of(plan, environment.options), False, False
        self._publisher: Publisher | None = None
        self._read_bytes = self._bytes_since = self._held_count_max = self._unflushed_count = 0
        self._opened: Opened = open_task(
            plan, environment.broker, environment.stores, environment.clock, environment.observe, stop
        )
        try:
            self._position = self._opened.position
            self.task = Task(self.plan, self._opened.store, self._position, self._aside)
            if environment.options.guarantee == "at-least-once":
                self._publisher = Publisher(environment.broker.producer())
            self.lags = self._first_lags()
        except BaseException as error:
            self.give_up(error)
            raise
        self._committed_ms = environment.clock.monotonic_ms()
        self._flushed_ms = self._read_ms = self._committed_ms
        self._sealed_counts = self._committed_counts = self._counts()
        self.began = self._counts() if began is None else began

    def _first_lags(self) -> dict[TopicPartition, int]:
        """Return how much there is to read of every source partition before anything is fetched."""
        sources = {
            place: position
            for place, position in self.task.positions().items()
            if place.topic in self.plan.sub.source_topics
        }
        ends = self._environment.broker.admin.list_offsets(dict.fromkeys(sources, LAST_STABLE))
        lags = {}
        for place, position in sources.items():
            end_offset = self.task.end_offset(place)
            lags[place] = max(0, (ends[place] if end_offset is None else end_offset) - position)
        return lags

    def feed(self, fetched: Fetched) -> int:
        """Run fetched batches through the task; return how many records it was."""
        if not self.task.dirty:
            self._read_ms = self._environment.clock.monotonic_ms()
        try:
            count = self.task.process(fetched)
            if self._publisher is not None:
                self.task.merge_updates()
        except RecordError as error:
            # A record that waited for its turn may be of another input than what was fetched.
            own = TopicPartition(error.topic, error.partition)
            self._set_aside(own if own in self.task.places() else fetched.topic_partition, error)
            return 0
        self._bytes_since += fetched.size_bytes
        self._read_bytes += fetched.size_bytes
        if self._publisher is not None:
            # Outputs go out as soon as they exist.
            self._publisher.send(self.task.context.outputs.take())
        # Rows that were merged just now are to be stored whenever the commit comes, so they are no longer held.
        self._held_count_max = max(self._held_count_max, self.task.held_count)
        return count

    def _set_aside(self, place: TopicPartition | None, error: RecordError) -> None:
        """Find out which records are to be left out, if the policy says so; then the task is to be rewound.

        Raises:
            RecordError: `error`, which stops the run.
        """
        if place is not None and self._aside.takes(place, error):
            records = self.task.source(place).receiving
            assert records is not None, "an error is of what was handed on"
            picked = PickedRecords.of(records, np.arange(len(records), dtype=np.int64))
            found = self._aside.unknown(place, bad_records(self.plan, place, picked, error))
            if not found and error.exact:
                found = {error.offset: error}
            if not self._aside.add(place, found):
                # Nothing more to leave out: it would come back for ever.
                raise error
        elif self._is_shuffled_row(error):
            # What the record did before the shuffle stays: only the rows of it that came here are left out.
            if not self._aside.add(TopicPartition(error.topic, error.partition), {error.offset: error}):
                raise error
        elif error.topic in self.task.context.emitted and self._aside.takes_results(error.topic, error):
            batch = self.task.context.emitted[error.topic]
            if not self._aside.add_results(error.topic, batch, bad_results(self.plan, error.topic, batch)):
                raise error
        elif self._aside.lenient and not error.topic and not self._careful:
            # Groups know no records any more: the same rows again, each looked at where it is known.
            self._careful = True
        else:
            raise error
        self.rewinding = True

    def _is_shuffled_row(self, error: RecordError) -> bool:
        """Whether an error is of one row that came through a shuffle of whole rows, and need not stop the run."""
        source = TopicPartition(error.topic, error.partition)
        through_shuffle = any(self.plan.topology.repartition(name).whole for name in self.plan.sub.repartitions_in)
        return through_shuffle and error.exact and error.offset >= 0 and self._aside.takes(source, error)

    def rewind(self) -> None:
        """Go back to the last commit, in memory; what was read since must be fetched again.

        No commit may be under way. The next one comes soon, so that another bad record costs less.
        """
        assert not self.committing.is_set(), "what is committed is known"
        self._aside.keep_from({place: read.next_offset for place, read in self._position.inputs.items()})
        self.task = Task(self.plan, self._opened.store, self._position, self._aside, careful=self._careful)
        self._bytes_since = self._held_count_max = 0
        self._commit_soon, self.rewinding = True, False

    @property
    def full(self) -> bool:
        """Whether it has read enough for another commit while one is under way: it must wait for that first."""
        return self.committing.is_set() and self._bytes_since >= self._environment.options.commit_bytes_max

    def commit_due(self, *, behind: bool) -> bool:
        """Return whether a commit should start now: soon when caught up, by time or bytes when behind."""
        if not self.task.dirty or self.committing.is_set() or self.rewinding:
            return False
        if self._commit_soon:
            return True
        options = self._environment.options
        if self.task.ended or self._bytes_since >= options.commit_bytes_max:
            return True
        now_ms = self._environment.clock.monotonic_ms()
        if not behind:
            return now_ms - self._committed_ms >= min(_FLOOR_MS, options.commit_interval_ms)
        # When windows have just closed there is least to store, so that is the time for a commit.
        ebb = _EBB_FACTOR * self.task.held_count < self._held_count_max
        return now_ms - self._read_ms >= options.commit_interval_ms / (_EBB_INTERVAL_PART if ebb else 1)

    def seal(self) -> Sealed | None:
        """Freeze what the next transaction writes; computing may go on. None: the task must be rewound first."""
        assert not self.committing.is_set(), "one commit at a time"
        try:
            sealed = self.task.seal()
        except RecordError as error:
            self._set_aside(None, error)
            return None
        self.committing.set()
        self._commit_soon = False
        self._aside.forget_results()
        self._bytes_since = self._held_count_max = 0
        self._committed_ms = self._environment.clock.monotonic_ms()
        self._sealed_counts = self._counts()
        if self._publisher is not None:
            self._publisher.send(sealed.outputs)
        return sealed

    def finish(self, sealed: Sealed) -> None:
        """Commit what was sealed, and flush the store when its changelog tail has grown long."""
        store = self._opened.store if self.plan.sub.stores else None
        stamp = (self._environment.broker.admin.log_id(), self._opened.places, self._environment.clock.now_ms())
        commit = Commit(sealed, self._opened.producer, self._publisher, self.plan.topology.job, store, stamp)
        commit.run(self._environment.observe)
        self.task.applied()
        self._position = sealed.position
        self._careful = self.task.context.careful = False
        self._committed_counts = self._sealed_counts
        self.committing.clear()
        self._unflushed_count += sum(map(len, sealed.changelogs.values()))
        now_ms = self._environment.clock.monotonic_ms()
        long_ago = now_ms - self._flushed_ms >= _FLUSH_MS
        if store is not None and self._unflushed_count and (long_ago or self._unflushed_count >= _FLUSH_RECORDS):
            store.flush()
            self._unflushed_count, self._flushed_ms = 0, now_ms

    def take_read_bytes(self) -> int:
        """Return how many bytes were read since the last call."""
        read_bytes, self._read_bytes = self._read_bytes, 0
        return read_bytes

    def this_run(self) -> Counts:
        """Return what was done since this worker opened the task."""
        return _since(self.began, self._counts())

    def committed_run(self) -> Counts:
        """Return what of `this_run` is committed."""
        return _since(self.began, self._committed_counts)

    def _counts(self) -> Counts:
        counters = self.task.context.counters
        return Counts(counters.records_in, counters.records_out, counters.late, counters.skipped, counters.dead_letters)

    def state_bytes(self) -> int:
        """Return the size of the store."""
        return self._opened.store.size_bytes() if self.plan.sub.stores else 0

    def interrupt(self) -> None:
        """Cancel the async functions that run for this task: what it computes comes to nothing. Safe in any thread."""
        self._coroutines.give_up()

    def give_up(self, error: BaseException) -> None:
        """Close without a commit: everything since the last one is dropped. A store that is damaged is set aside."""
        self._give_back(self._opened.producer.close)
        if self._publisher is not None:
            self._give_back(self._publisher.close)
        # A store that cannot be flushed is closed all the same, and is brought forward or restored.
        self._give_back(self._opened.store.close)
        if isinstance(error, StreamkitError) and error.answer is Answer.RESTORE:
            self._environment.stores.set_aside(self.plan.task_id, error.primary)
        self._environment.stores.close(self.plan.task_id)

    @staticmethod
    def _give_back(close: Callable[[], None]) -> None:
        # What is wrong with the task is being answered already.
        with contextlib.suppress(StreamkitError):
            close()

    def close(self) -> None:
        """Close cleanly: flush the store, give everything back. Uncommitted work is dropped.

        Raises:
            StreamkitError: Something could not be closed; the rest is closed all the same.
        """
        with contextlib.ExitStack() as closing:
            closing.callback(self._environment.stores.close, self.plan.task_id)
            closing.callback(self._opened.store.close)
            if self._publisher is not None:
                closing.callback(self._publisher.close)
            closing.callback(self._opened.producer.close)


def _aside_of(plan: TaskPlan, options: RunOptions) -> Aside:
    topology = plan.topology
    topic = dead_letter_topic(topology.job)
    count = plan.partition_counts.get(topic)
    letters = None if count is None else TopicPartition(topic, plan.partition % count)
    return Aside(topology.graph.policies(), letters, topology.graph.on_error, options.place_of)
