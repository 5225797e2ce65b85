"""From the changelogs of a task to its stores: the one path of `restore`, of a comparison and of a cold start.

Every changelog is folded into sorted tables (`folding`); then the contents are digested and can be held against what
the last position says.

Not here: where the store lies, and what becomes of one that is not right (`restore`, `opening`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from streamkit.broker import EARLIEST, Broker, Fetcher
from streamkit.errors import DigestMismatchError, UnknownTopicError
from streamkit.records import TopicPartition
from streamkit.runtime.folding import ChangelogFold, Fault
from streamkit.runtime.position import Position
from streamkit.runtime.reading import read_to
from streamkit.runtime.task_plan import task_id
from streamkit.state import Digest, StateStore, store_range
from streamkit.state.ranges import RangeDigests
from streamkit.topology import StoreSpec, SubTopology, Topology
from streamkit.topology.left_behind import LEFT_HINT, left_behind, said_of

__all__ = ["FoldedTask", "RestoredStore", "StatefulTask", "Told", "check_right", "fold_task", "stateful_tasks"]

Told: TypeAlias = Callable[[TopicPartition, int], None]
"""Told before a partition is read, and after each fetch of it, how many more of its offsets were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatefulTask:
    """One task with stores."""

    sub: SubTopology
    partition: int

    @property
    def task_id(self) -> str:
        """Its id."""
        return task_id(self.sub.index, self.partition)

    def places(self) -> dict[TopicPartition, StoreSpec]:
        """Return its changelog partitions, that of the first store first."""
        return {TopicPartition(spec.changelog_topic, self.partition): spec for spec in self.sub.stores}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredStore:
    """What one store of one task became.

    Args:
        task: Id of the task.
        spec: The store.
        ranges: Digests of its contents.
        said: The digest that the last position of its changelog says; None if there is none, or none of the store.
        position: That position.
        record_count: How many records the changelog partition had.
        faults: What is wrong with them.
    """

    task: str
    spec: StoreSpec
    ranges: RangeDigests
    said: Digest | None
    position: Position | None
    record_count: int
    faults: Sequence[Fault]

    @property
    def right(self) -> bool:
        """Whether the changelog is whole and the contents are what its last position says."""
        return not self.faults and (self.said is None or self.said == self.ranges.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedTask:
    """What the changelogs of a task gave.

    Args:
        stores: What each store became.
        places: Of each changelog topic, offset and CRC-32 of its last position.
        position: The newest of these; None if there is none.
    """

    stores: Sequence[RestoredStore]
    places: Mapping[str, tuple[int, int]]
    position: Position | None


def stateful_tasks(topology: Topology, broker: Broker) -> list[StatefulTask]:
    """Return the tasks of a job that have stores, in their order.

    Raises:
        UnknownTopicError: A changelog topic does not exist: the job has not run, or a store was renamed since.
    """
    topics = broker.admin.describe_topics()
    left = left_behind(topology, topics)
    tasks = []
    for sub in topology.sub_topologies:
        for spec in sub.stores:
            if spec.changelog_topic not in topics:
                raise UnknownTopicError(
                    f"the changelog topic {spec.changelog_topic!r} of job {topology.job!r} does not exist",
                    detail=said_of(left),
                    hint=LEFT_HINT if left else "it is made by the first run: streamkit run JOB",
                )
        if sub.stores:
            count = topics[sub.stores[0].changelog_topic].partition_count
            tasks += [StatefulTask(sub=sub, partition=partition) for partition in range(count)]
    return tasks


def fold_task(task: StatefulTask, store: StateStore, broker: Broker, fetcher: Fetcher, told: Told) -> FoldedTask:
    """Fold the changelogs of a task into an empty store, and digest what it holds then.

    Args:
        task: Which.
        store: Is written to, but bears no stamp.
        broker: Where the changelogs are.
        fetcher: Reads them.
        told: Hears how it is going; what it raises ends the fold.

    Raises:
        CorruptBatchError: A changelog is damaged. The store has some of it.

    Cost: 2 us a record of 116 B, and 0.5 us a key for its digest; memory for 64 MiB of entries.
    """
    folds = []
    for number, (place, spec) in enumerate(task.places().items()):
        offset = broker.admin.list_offsets({place: EARLIEST})[place]
        fold = ChangelogFold(spec, place, store, begin_offset=offset, complete=number == 0)
        told(place, 0)
        for records in read_to(broker, fetcher, place, offset):
            fold.take(records)
            told(place, int(records.offsets[-1]) + 1 - offset)
            offset = int(records.offsets[-1]) + 1
        fold.end()
        folds.append(fold)
    positions = [fold.position for fold in folds if fold.position is not None]
    return FoldedTask(
        stores=[_restored(task, fold, store) for fold in folds],
        places={fold.place.topic: fold.stamp_place for fold in folds if fold.stamp_place is not None},
        position=max(positions, key=lambda position: position.transaction, default=None),
    )


def _restored(task: StatefulTask, fold: ChangelogFold, store: StateStore) -> RestoredStore:
    text = None if fold.position is None else fold.position.digests.get(fold.spec.name)
    return RestoredStore(
        task=task.task_id,
        spec=fold.spec,
        ranges=RangeDigests.of(store.scan(*store_range(fold.spec.index))),
        said=None if text is None else Digest.from_text(text),
        position=fold.position,
        record_count=fold.record_count,
        faults=tuple(fold.faults),
    )


def check_right(store: RestoredStore) -> None:
    """Raise unless a store is what its changelog's last position says, and the changelog is whole.

    Raises:
        DigestMismatchError: It is not.
    """
    if store.right:
        return
    hint = "streamkit verify JOB says more; streamkit replay JOB computes state and changelog anew from the inputs"
    if store.faults:
        raise DigestMismatchError(str(store.faults[0]), hint=hint)
    assert store.said is not None, "without it there is nothing to differ from"
    raise DigestMismatchError(
        f"store {store.spec.name} of task {store.task} is not what its changelog says",
        detail=f"its contents have the digest {store.ranges.total.to_text()}, the position says {store.said.to_text()}",
        hint=hint,
    )
