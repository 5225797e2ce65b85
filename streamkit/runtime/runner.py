"""Runs one task: feeds it, decides when it commits, commits, reopens it when it must be.

One commit is under way at a time; computing goes on meanwhile in the other generation of the overlay.
"""

import contextlib
import threading
from dataclasses import dataclass
from typing import Final

from streamkit.broker import Broker, Fetched
from streamkit.errors import Answer, StateError, StreamkitError
from streamkit.runtime.build import TaskPlan
from streamkit.runtime.commit import Commit, Observe, Publisher
from streamkit.runtime.opening import Opened, open_task
from streamkit.runtime.options import RunOptions
from streamkit.runtime.stores import Stores
from streamkit.runtime.task import Sealed, Task
from streamkit.seams import Clock

__all__ = ["RunnerEnvironment", "TaskRunner"]

_FLOOR_MS: Final = 10
_EBB_FACTOR: Final = 4
"""Windows have just closed when the rows held are this much fewer than they were."""
_EBB_INTERVAL_PART: Final = 20
"""Then a commit need only be this part of the interval away from what it commits."""
_FLUSH_MS: Final = 30_000
_FLUSH_RECORDS: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerEnvironment:
    """What all runners of one worker share. `observe` is told the steps of every opening and every commit."""

    broker: Broker
    stores: Stores
    clock: Clock
    options: RunOptions
    observe: Observe


class TaskRunner:
    """One task with its producer, its store and its clockwork.

    Args:
        plan: Of the task.
        environment: Of the worker.
    """

    def __init__(self, plan: TaskPlan, environment: RunnerEnvironment) -> None:
        """Open the task."""
        self.plan, self._environment = plan, environment
        self._publisher: Publisher | None = None
        if environment.options.guarantee == "at-least-once":
            self._publisher = Publisher(environment.broker.producer())
        self._read_bytes = 0
        self._open()
        counters = self.task.context.counters
        self._at_start = (counters.records_in, counters.records_out, counters.late)

    def _open(self) -> None:
        environment = self._environment
        self._opened: Opened = open_task(
            self.plan, environment.broker, environment.stores, environment.clock, environment.observe
        )
        self.task = Task(self.plan, self._opened.store, self._opened.position)
        self._committed_ms = environment.clock.monotonic_ms()
        self._flushed_ms = self._read_ms = self._committed_ms
        self._bytes_since = self._held_count_max = 0
        self._unflushed_count = 0
        self.committing = threading.Event()

    def feed(self, fetched: Fetched) -> int:
        """Run fetched batches through the task; return how many records it was."""
        if not self.task.dirty:
            self._read_ms = self._environment.clock.monotonic_ms()
        count = self.task.process(fetched)
        size_bytes = sum(map(len, fetched.record_batches))
        self._bytes_since += size_bytes
        self._read_bytes += size_bytes
        if self._publisher is not None:
            # Outputs go out as soon as they exist.
            self.task.merge_updates()
            self._publisher.send(self.task.context.outputs.take())
        # Rows that were merged just now are to be stored whenever the commit comes, so they are no longer held.
        self._held_count_max = max(self._held_count_max, self.task.held_count)
        return count

    @property
    def full(self) -> bool:
        """Whether it has read enough for another commit while one is under way: it must wait for that first."""
        return self.committing.is_set() and self._bytes_since >= self._environment.options.commit_bytes_max

    def commit_due(self, *, behind: bool) -> bool:
        """Return whether a commit should start now: soon when caught up, by time or bytes when behind."""
        if not self.task.dirty or self.committing.is_set():
            return False
        options = self._environment.options
        if self.task.ended or self._bytes_since >= options.commit_bytes_max:
            return True
        now_ms = self._environment.clock.monotonic_ms()
        if not behind:
            return now_ms - self._committed_ms >= min(_FLOOR_MS, options.commit_interval_ms)
        # When windows have just closed there is least to store, so that is the time for a commit.
        ebb = _EBB_FACTOR * self.task.held_count < self._held_count_max
        return now_ms - self._read_ms >= options.commit_interval_ms / (_EBB_INTERVAL_PART if ebb else 1)

    def seal(self) -> Sealed:
        """Freeze what the next transaction writes; computing may go on."""
        assert not self.committing.is_set(), "one commit at a time"
        self.committing.set()
        self._bytes_since = self._held_count_max = 0
        self._committed_ms = self._environment.clock.monotonic_ms()
        sealed = self.task.seal()
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

    def this_run(self) -> tuple[int, int, int]:
        """Return records in, records out and late records since this worker opened the task."""
        counters = self.task.context.counters
        records_in, records_out, late = self._at_start
        return counters.records_in - records_in, counters.records_out - records_out, counters.late - late

    def state_bytes(self) -> int:
        """Return the size of the store."""
        return self._opened.store.size_bytes() if self.plan.sub.stores else 0

    def reopen(self, error: StreamkitError) -> None:
        """Drop everything since the last commit and open the task again, in the order of opening.

        The outcome of the last commit is read from the log; a store that `error` says is damaged is restored.
        """
        self._opened.producer.close()
        # A store that cannot be flushed is closed all the same, and is brought forward or restored.
        with contextlib.suppress(StateError):
            self._opened.store.close()
        if error.answer is Answer.RESTORE:
            self._environment.stores.set_aside(self.plan.task_id, error.primary)
        self._environment.stores.close(self.plan.task_id)
        self._open()

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
