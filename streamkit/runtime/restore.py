"""Restore: from the changelogs of a job to its stores, without a task.

Each store is built beside the one that is there and takes its place when it is whole and its digest is the one that the
changelog's last position says. Killed at any moment, what is there is the old state, or the new one, or for an instant
between two renames neither; the next restore, or the next opening of the task, puts that right.

Nothing is written to the log, and nobody is fenced: a task that runs meanwhile elsewhere goes on, and whoever opens the
restored store brings it forward.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from streamkit.broker import EARLIEST, LAST_STABLE, Broker
from streamkit.errors import CorruptBatchError, DigestMismatchError
from streamkit.records import TopicPartition
from streamkit.runtime.changelogs import RestoredStore, StatefulTask, check_right, fold_task, stateful_tasks
from streamkit.runtime.commit import stamp_of
from streamkit.seams import Clock, FileSystem
from streamkit.state import (
    POSITION_KEY,
    Changes,
    RocksDBResources,
    RocksDBStore,
    StateDirectory,
    StateStore,
)
from streamkit.topology import Topology

__all__ = ["RebuildProgress", "Restorer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildProgress:
    """How a restore, a replay or a comparison is going.

    Args:
        doing: What is done now.
        done_count: Offsets that were read, of `total_count`.
        total_count: Offsets that are to be read.
        seconds: Since it began.
    """

    doing: str
    done_count: int
    total_count: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """How long it still takes if it goes on as it did; None before anything was done."""
        if not self.done_count:
            return None
        return self.seconds * (self.total_count - self.done_count) / self.done_count


class Restorer:
    """Restores stores of one job.

    Args:
        topology: Of the job.
        broker: Where its changelogs are.
        fs: For the state directories.
        clock: Dates the stores, and measures.
        told: Called after each fetch.
    """

    def __init__(
        self,
        topology: Topology,
        broker: Broker,
        *,
        fs: FileSystem,
        clock: Clock,
        told: Callable[[RebuildProgress], None] = lambda _: None,
    ) -> None:
        """Read nothing yet."""
        self._topology, self._broker, self._fs, self._clock, self._told = topology, broker, fs, clock, told
        self._resources = RocksDBResources()
        self._began_ms = clock.monotonic_ms()
        self._done_count = self._total_count = 0

    def restore(self, state_dir: str) -> list[RestoredStore]:
        """Build the stores of all tasks below a state directory anew.

        Returns:
            What each store became; each is what its changelog says.

        Raises:
            UnknownTopicError: The job has not run.
            StoreInUseError: A task that has not been restored yet is in use. Those before it are restored.
            DigestMismatchError: A changelog is not what was written to it. The state of that task and of those behind
                it is as it was.

        Cost: that of `fold_task`.
        """
        restored = []
        for task in self.tasks():
            with self.directory(state_dir, task) as directory:
                made = self.build(task, directory.begin_beside())
                for store in made:
                    check_right(store)
                directory.take_beside()
            restored += made
        return restored

    def tasks(self) -> list[StatefulTask]:
        """Return the tasks that have stores, and learn how much there is to read."""
        tasks = stateful_tasks(self._topology, self._broker)
        places = [place for task in tasks for place in task.places()]
        ends = self._broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE))
        begins = self._broker.admin.list_offsets(dict.fromkeys(places, EARLIEST))
        self._total_count += sum(ends[place] - begins[place] for place in places)
        return tasks

    @contextlib.contextmanager
    def directory(self, state_dir: str, task: StatefulTask) -> Iterator[StateDirectory]:
        """Hold the state directory of a task."""
        log_id = self._broker.admin.log_id()
        job = self._topology.job
        directory = StateDirectory.open(self._fs, state_dir, job=job, task=task.task_id, log_id=log_id)
        try:
            yield directory
        finally:
            directory.close()

    def build(self, task: StatefulTask, path: str) -> list[RestoredStore]:
        """Build the stores of a task in a new RocksDB directory; it is durable and closed on return."""
        with contextlib.closing(RocksDBStore(path, resources=self._resources)) as store:
            return self.fold(task, store)

    def fold(self, task: StatefulTask, store: StateStore) -> list[RestoredStore]:
        """Fold the changelogs of a task into an empty store, and stamp it with the place that it stands for."""
        place = next(iter(task.places()))

        def told(reading: TopicPartition, count: int) -> None:
            nonlocal place
            place = reading
            self._done_count += count
            self._tell(place)

        try:
            with contextlib.closing(self._broker.fetcher("read_committed")) as fetcher:
                folded = fold_task(task, store, self._broker, fetcher, told)
        except CorruptBatchError as error:
            raise DigestMismatchError(
                f"the changelog {place} of store {task.places()[place].name} is damaged: {error.primary}",
                detail=error.detail,
                hint="streamkit replay JOB computes state and changelog anew from the inputs",
            ) from error
        if folded.position is not None:
            said = orjson.dumps(folded.position.to_json())
            stamp = stamp_of(self._broker.admin.log_id(), folded.places, said, now_ms=self._clock.now_ms())
            store.write(Changes(values={POSITION_KEY: stamp}))
            store.flush()
        return list(folded.stores)

    def _tell(self, place: TopicPartition) -> None:
        self._told(
            RebuildProgress(
                doing=f"restoring from {place}",
                done_count=min(self._done_count, self._total_count),
                total_count=self._total_count,
                seconds=(self._clock.monotonic_ms() - self._began_ms) / 1000,
            )
        )
