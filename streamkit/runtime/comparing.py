"""Comparing the stores of a job: what the changelog says with what the state has, and with what a replay makes.

Two stores are compared at equal positions alone. Where the positions cannot be made equal, the answer is not that they
differ but why they cannot be compared.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from streamkit.broker import EARLIEST, Broker, CommittedOffset
from streamkit.errors import DigestMismatchError
from streamkit.graph import Aggregation, Join, TableJoin
from streamkit.graph.nodes import Process
from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.changelogs import RestoredStore
from streamkit.runtime.folding import Fault
from streamkit.runtime.operators.aggregate import RUN_BYTES
from streamkit.runtime.position import Note, Run, RunMark
from streamkit.runtime.reading import read_to
from streamkit.state import StateStore, store_range
from streamkit.state.ranges import KeyRange, RangeDigests
from streamkit.topology import StoreSpec, Topology

__all__ = [
    "Comparison",
    "Past",
    "Side",
    "check_equal",
    "compare_stores",
    "contents",
    "past_of",
    "read_offset",
    "unread_places",
]

Side: TypeAlias = Literal["changelog", "state", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What comparing one store of one task came to.

    Args:
        task: Id of the task.
        spec: The store.
        side: What was held against what the last position of its changelog says.
        equal: None if the two are not comparable.
        reason: Why they are not comparable, or how they differ.
        faults: Where they differ.
        digest: Of what was held against it, as text; empty if it was not digested.
    """

    task: str
    spec: StoreSpec
    side: Side
    equal: bool | None
    reason: str = ""
    faults: Sequence[Fault] = ()
    digest: str = ""


def check_equal(comparisons: Iterable[Comparison]) -> None:
    """Raise if any two stores differ.

    Raises:
        DigestMismatchError: It names the first difference of which the keys are known; without one, the first.
    """
    faults = [fault for one in comparisons if one.equal is False for fault in one.faults]
    # A transaction that lost its only entry does not say which, but the state or the replay may.
    faults.sort(key=lambda fault: fault.keys is None)
    if faults:
        raise DigestMismatchError(
            str(faults[0]),
            detail="" if len(faults) == 1 else f"and {len(faults) - 1} more",
            hint="streamkit replay JOB computes state and changelog anew from the inputs; if a replay itself differs, "
            "the job is not a function of its inputs, or the state was changed from outside",
        )


def contents(
    store: StateStore, spec: StoreSpec, keys: KeyRange | None = None, *, any_run: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs of one store of a task.

    Args:
        store: Of the task.
        spec: Which.
        keys: Those wanted; None for all.
        any_run: Leave out what a value says of the run that changed it last: several runs of a job say what one, made
            of the same records, does not.
    """
    begin, end = store_range(spec.index)
    if keys is not None:
        begin, end = max(begin, keys.begin), end if keys.end is None else keys.end
    pairs = store.scan(begin, end)
    if not any_run or spec.windowed:
        return pairs
    return ((key, value[RUN_BYTES:]) for key, value in pairs)


def compare_stores(
    one: RestoredStore, other: StateStore, side: Side, one_store: StateStore | None = None, *, run_count: int = 1
) -> Comparison:
    """Compare the contents of a store with what was restored from its changelog.

    Args:
        one: What was restored; with several runs its ranges are those of `contents` of any run.
        other: The store that is held against it, at the same position.
        side: Which it is.
        one_store: The restored store itself, so that the first key that differs can be named; without it a range is.
        run_count: How many runs made what was restored, where one run made the other.
    """
    any_run = run_count > 1 and not one.spec.windowed
    ranges = RangeDigests.as_in(one.ranges, contents(other, one.spec, any_run=any_run))
    digest = RangeDigests.of(contents(other, one.spec)).total if any_run else ranges.total
    keys = one.ranges.first_difference(ranges)
    if keys is None:
        reason = f"but for which of the job's {run_count} runs changed a key last" if any_run else ""
        return Comparison(task=one.task, spec=one.spec, side=side, equal=True, reason=reason, digest=digest.to_text())
    if one_store is not None:
        first = first_difference(
            contents(one_store, one.spec, keys, any_run=any_run), contents(other, one.spec, keys, any_run=any_run)
        )
        keys = KeyRange(begin=first, end=keys.end or store_range(one.spec.index)[1])
    else:
        keys = KeyRange(begin=max(keys.begin, store_range(one.spec.index)[0]), end=keys.end)
    reason = (
        f"the {side} has {ranges.total.pair_count} keys, the changelog {one.ranges.total.pair_count}, and they differ"
    )
    fault = Fault(store=one.spec, where=f"task {one.task}", reason=reason, keys=keys)
    return Comparison(
        task=one.task,
        spec=one.spec,
        side=side,
        equal=False,
        reason=reason,
        faults=(fault,),
        digest=digest.to_text(),
    )


def first_difference(one: Iterator[tuple[bytes, bytes]], other: Iterator[tuple[bytes, bytes]]) -> bytes:
    """Return the first key that has not the same value in both; there is one."""
    for here, there in itertools.zip_longest(one, other):
        if here != there:
            return min(pair[0] for pair in (here, there) if pair is not None)
    raise AssertionError("two ranges with different digests are equal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the committed offsets of a job say of what it has done.

    Args:
        begins: From where on each source partition counts in the state.
        ends: How far each source partition was read.
        marks: What its last run reads of each source partition.
        partition_counts: Of each source topic, when that run began.
        finished: Whether that run was a bounded one and has ended.
        run_count: How many runs it has made.
        obstacle: Why a replay from `begins` cannot come to the same state; empty if it can.
    """

    begins: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    marks: Mapping[TopicPartition, RunMark]
    partition_counts: Mapping[str, int]
    finished: bool
    run_count: int
    obstacle: str

    @property
    def bounded(self) -> bool:
        """Whether the last run was bounded."""
        return any(mark.run.bounded for mark in self.marks.values())

    def notes(self, starts: Mapping[TopicPartition, int]) -> dict[TopicPartition, CommittedOffset]:
        """Return what is committed for a first run that reads from these starts to the same ends."""
        run = Run(number=1, bounded=self.bounded)
        return {
            place: CommittedOffset(
                offset=starts[place],
                metadata=Note(
                    mark=RunMark(run=run, end_offset=mark.end_offset, begin_offset=starts[place]),
                    partition_count=self.partition_counts[place.topic],
                ).to_text(),
            )
            for place, mark in self.marks.items()
        }


def past_of(
    topology: Topology,
    broker: Broker,
    committed: Mapping[TopicPartition, CommittedOffset],
    kept: Collection[str] = (),
) -> Past:
    """Return how far a job has come by its committed offsets, and whether a replay can come to the same state.

    Args:
        topology: Of the job.
        broker: Where its topics are.
        committed: The offsets of its group.
        kept: Sources of which nothing can have been removed, whatever their first offset: files.
    """
    notes = {place: Note.from_text(offset.metadata) for place, offset in committed.items()}
    sources = {topic for sub in topology.sub_topologies for topic in sub.source_topics}
    marks = {place: note.mark for place, note in notes.items() if place.topic in sources and note.mark is not None}
    number = max((mark.run.number for mark in marks.values()), default=0)
    bounded = any(mark.run.bounded for mark in marks.values())
    firsts = broker.admin.list_offsets(dict.fromkeys(marks, EARLIEST))
    past = Past(
        begins={place: firsts[place] if place.topic in kept else mark.begin_offset for place, mark in marks.items()},
        ends={place: read_offset(committed[place]) for place in marks},
        marks=marks,
        partition_counts={place.topic: notes[place].partition_count for place in marks},
        finished=bounded and all(note.ended_run >= number for note in notes.values()),
        run_count=number,
        obstacle="",
    )
    return replace(past, obstacle=_obstacle(topology, broker, past, firsts))


def _obstacle(topology: Topology, broker: Broker, past: Past, firsts: Mapping[TopicPartition, int]) -> str:
    if not past.run_count:
        return "the job has not run"
    if any(max(mark.published_ms, mark.run.published_ms) > NEVER_MS for mark in past.marks.values()):
        return (
            f"the job has made {past.run_count} runs, and the end of one before the last closed windows that one run "
            "would have kept open"
        )
    obstacle = _obstacle_of_job(topology, past.run_count)
    if obstacle:
        return obstacle
    if broker.group(topology.job).members():
        return "workers of the job are running"
    for place, begin in sorted(past.begins.items()):
        if begin < firsts[place]:
            return (
                f"records were removed from the start of {place}: it begins at offset {firsts[place]}, the state "
                f"was made from {begin} on"
            )
    unread = unread_places(topology, broker)
    if unread:
        return f"rows wait in {unread[0]}: let the job run until it has caught up"
    waiting = _waiting_places(topology, broker)
    return f"rows wait in {waiting[0]} for rows of other inputs that come before them" if waiting else ""


def _obstacle_of_job(topology: Topology, run_count: int) -> str:
    """Return what in a job keeps a replay from coming to the same state."""
    for node in topology.graph.nodes:
        if isinstance(node, Join | TableJoin | Process) and node.order == "arrival":
            return f'{node.name} says order="arrival": in which order it took its rows, no replay repeats'
    if run_count > 1 and (store := _of_no_aggregation(topology)) is not None:
        return f"the job has made {run_count} runs, and what one leaves in the store {store} is not known"
    if run_count > 1 and any(sub.ordered for sub in topology.sub_topologies):
        return f"the job has made {run_count} runs, and the end of one lets rows go that waited for other inputs"
    return ""


def _waiting_places(topology: Topology, broker: Broker) -> list[TopicPartition]:
    """Return the repartition partitions of which rows were read that wait for their turn."""
    shuffles = {repartition.topic for repartition in topology.repartitions}
    committed = broker.group(topology.job).committed()
    return [
        place
        for place, offset in committed.items()
        if place.topic in shuffles and Note.from_text(offset.metadata).read_offset
    ]


def _of_no_aggregation(topology: Topology) -> str | None:
    """Return the first store that is of no aggregation: what `contents` says of runs holds for these alone."""
    aggregations = {node.name for node in topology.graph.nodes if isinstance(node, Aggregation)}
    stores = [spec.name for sub in topology.sub_topologies for spec in sub.stores]
    return next((name for name in stores if name not in aggregations), None)


def read_offset(committed: CommittedOffset) -> int:
    """Return how far an input was read: what waits lies beyond its committed offset."""
    return max(committed.offset, Note.from_text(committed.metadata).read_offset)


def unread_places(topology: Topology, broker: Broker) -> list[TopicPartition]:
    """Return the repartition partitions whose records were not all read by their task."""
    topics = broker.admin.describe_topics()
    committed = broker.group(topology.job).committed()
    unread = []
    fetcher = broker.fetcher("read_committed")
    try:
        for repartition in topology.repartitions:
            if repartition.topic not in topics:
                continue
            for partition in range(topics[repartition.topic].partition_count):
                place = TopicPartition(repartition.topic, partition)
                begin = read_offset(committed[place]) if place in committed else None
                # Markers at the end are nothing to read.
                if any(len(records) for records in read_to(broker, fetcher, place, begin)):
                    unread.append(place)
    finally:
        fetcher.close()
    return unread
