"""What happens once before any task opens: topics are checked and made, tasks counted, the run's ends fixed.

The end offsets of a bounded run, and the partition count of its sources, are committed as notes beside the source
offsets when the run first starts, in one commit: whoever resumes it ends where the first would have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from streamkit.broker import EARLIEST, LAST_STABLE, Broker, CommittedOffset, Group, TopicDescription
from streamkit.errors import TopologyError, UnknownTopicError
from streamkit.graph import Aggregation, Source
from streamkit.log.header import BATCH_BYTES_MAX
from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.build import TaskPlan, task_id, transactional_id
from streamkit.runtime.keys_check import warn_of_misplaced_keys
from streamkit.runtime.operators.stateless import StepCheck
from streamkit.runtime.options import RunOptions
from streamkit.runtime.position import Note, Run, RunMark
from streamkit.topology import SubTopology, Topology

__all__ = ["JobPlan", "prepare"]

_REPARTITION_CONFIG = {"cleanup.policy": "delete", "retention.ms": "-1", "segment.bytes": str(64 * 1024 * 1024)}
_CHANGELOG_CONFIG = {"cleanup.policy": "compact", "delete.retention.ms": str(7 * 86_400_000)}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """All tasks of a run; `finished` if there is nothing left to do in it."""

    tasks: tuple[TaskPlan, ...]
    run: Run
    finished: bool


def prepare(topology: Topology, broker: Broker, options: RunOptions, check: StepCheck) -> JobPlan:
    """Check and make the topics, and fix what this run reads.

    Raises:
        UnknownTopicError: A source topic does not exist. Nothing was made.
        TopologyError: Partition counts do not fit, or changed since an earlier run. The message names the fix.
    """
    topics = broker.admin.describe_topics()
    _check_sources(topology, topics)
    warn_of_misplaced_keys(topology, broker, topics)
    task_counts = {sub.index: _task_count(topology, sub, topics) for sub in topology.sub_topologies}
    counts = _make_topics(topology, broker, topics, task_counts)
    marks, finished = _fix_run(topology, broker, options, counts, task_counts)
    run = next(iter(marks.values())).run
    channels = {
        repartition.topic: tuple(
            task_id(upstream, partition)
            for upstream in repartition.upstream
            for partition in range(task_counts[upstream])
        )
        for repartition in topology.repartitions
    }
    tasks = tuple(
        TaskPlan(
            topology=topology,
            sub=sub,
            partition=partition,
            partition_counts=counts,
            message_bytes_max={topic: _message_bytes_max(topics.get(topic)) for topic in counts},
            channels=channels,
            run=run,
            marks={topic: marks[TopicPartition(topic, partition)] for topic in _read_here(sub, partition, counts)},
            check=check,
        )
        for sub in topology.sub_topologies
        for partition in range(task_counts[sub.index])
    )
    return JobPlan(tasks=tasks, run=run, finished=finished)


def _message_bytes_max(topic: TopicDescription | None) -> int:
    """Return how large a record batch a topic takes; Kafka's default if nothing else was set."""
    return BATCH_BYTES_MAX if topic is None else int(topic.config.get("max.message.bytes", BATCH_BYTES_MAX))


def _read_here(sub: SubTopology, partition: int, counts: Mapping[str, int]) -> list[str]:
    return [topic for topic in sub.source_topics if partition < counts[topic]]


def _check_sources(topology: Topology, topics: Mapping[str, TopicDescription]) -> None:
    for node in topology.graph.nodes:
        if isinstance(node, Source) and node.topic not in topics:
            raise UnknownTopicError(
                f"the topic {node.topic!r}, which {node.name!r} of job {topology.job!r} reads, does not exist",
                detail=f"there are: {', '.join(sorted(topics)) or 'none'}",
                hint=f"streamkit topics create {node.topic}, or streamkit produce {node.topic} FILE",
            )


def _task_count(topology: Topology, sub: SubTopology, topics: Mapping[str, TopicDescription]) -> int:
    counts = {topic: topics[topic].partition_count for topic in sub.source_topics}
    shuffles = {name: topology.repartition(name) for name in sub.repartitions_in}
    keyed = any(isinstance(topology.graph.node(name), Aggregation) for name in sub.nodes)
    if keyed and len(set(counts.values())) > 1:
        (one, one_count), (other, other_count) = sorted(counts.items(), key=lambda item: item[1])[:: len(counts) - 1]
        raise TopologyError(
            f"{one!r} has {one_count} partitions and {other!r} has {other_count}, but one aggregation reads both",
            hint="give both topics the same partition count, or group_by() the key so that it is shuffled",
        )
    return max([*counts.values(), *([] if counts else [shuffle.shards for shuffle in shuffles.values()])])


def _make_topics(
    topology: Topology,
    broker: Broker,
    topics: Mapping[str, TopicDescription],
    task_counts: Mapping[int, int],
) -> dict[str, int]:
    """Make sinks and internal topics where missing; return the partition count of every topic of the job."""
    wanted = _internal_topics(topology, task_counts)
    for topic, (count, _) in wanted.items():
        if topic in topics and topics[topic].partition_count != count:
            raise TopologyError(
                f"internal topic {topic!r} has {topics[topic].partition_count} partitions, the job now needs {count}",
                hint="partition counts are part of the state: set shards= back, or give the job a new name",
            )
    for sub in topology.sub_topologies:
        for topic in sub.sink_topics:
            if topic not in topics:
                wanted.setdefault(topic, (task_counts[sub.index], {}))
    for topic, (count, config) in wanted.items():
        if topic not in topics:
            broker.admin.create_topic(topic, count, config)
    counts = {topic: description.partition_count for topic, description in topics.items()}
    return counts | {topic: count for topic, (count, _) in wanted.items()}


def _internal_topics(topology: Topology, task_counts: Mapping[int, int]) -> dict[str, tuple[int, Mapping[str, str]]]:
    """Return partition count and config of each repartition and changelog topic."""
    wanted: dict[str, tuple[int, Mapping[str, str]]] = {}
    for repartition in topology.repartitions:
        wanted[repartition.topic] = (task_counts[repartition.downstream], _REPARTITION_CONFIG)
    for sub in topology.sub_topologies:
        for store in sub.stores:
            wanted[store.changelog_topic] = (task_counts[sub.index], _CHANGELOG_CONFIG)
    return wanted


def _fix_run(
    topology: Topology,
    broker: Broker,
    options: RunOptions,
    counts: Mapping[str, int],
    task_counts: Mapping[int, int],
) -> tuple[dict[TopicPartition, RunMark], bool]:
    """Return what the run reads of each source partition, and whether it is finished."""
    group = broker.group(topology.job)
    sources = [
        TopicPartition(topic, partition)
        for sub in topology.sub_topologies
        for topic in sub.source_topics
        for partition in range(counts[topic])
    ]
    before = _Before.read(topology, group, sources, counts)
    if before.resumed_by(options):
        return before.marks, before.finished
    if before.notes:
        # Their offsets are written anew: nobody may move them meanwhile.
        _fence(topology, broker, task_counts)
        before = _Before.read(topology, group, sources, counts)
    ends = dict(broker.admin.list_offsets(dict.fromkeys(sources, LAST_STABLE))) if options.bounded else {}
    published_ms = before.published_ms(sources)
    run = before.next_run(bounded=options.bounded, published_ms=max(published_ms.values()))
    marks = {place: RunMark(run=run, end_offset=ends.get(place), published_ms=published_ms[place]) for place in sources}
    starts = broker.admin.list_offsets({place: EARLIEST for place in sources if place not in before.offsets})
    group.commit(
        {
            place: CommittedOffset(
                offset=before.offsets.get(place, starts.get(place, 0)),
                metadata=replace(
                    before.notes.get(place, Note()), mark=mark, partition_count=counts[place.topic]
                ).to_text(),
            )
            for place, mark in marks.items()
        }
    )
    return marks, False


def _fence(topology: Topology, broker: Broker, task_counts: Mapping[int, int]) -> None:
    """Take every task away from whoever still runs it."""
    for sub in topology.sub_topologies:
        for partition in range(task_counts[sub.index]):
            broker.producer(transactional_id(topology.job, task_id(sub.index, partition))).close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """What the committed offsets say of the runs so far: the marks are those of the last one."""

    offsets: Mapping[TopicPartition, int]
    notes: Mapping[TopicPartition, Note]
    marks: dict[TopicPartition, RunMark]
    complete: bool
    finished: bool

    @classmethod
    def read(
        cls, topology: Topology, group: Group, sources: list[TopicPartition], counts: Mapping[str, int]
    ) -> "_Before":
        """Read it.

        Raises:
            TopologyError: A source had another partition count.
        """
        committed = group.committed()
        notes = {place: Note.from_text(offset.metadata) for place, offset in committed.items()}
        _check_counts(notes, counts)
        marks = {place: mark for place in sources if place in notes and (mark := notes[place].mark) is not None}
        last = max((mark.run.number for mark in marks.values()), default=0)
        bounded = any(mark.run.bounded for mark in marks.values())
        return cls(
            offsets={place: offset.offset for place, offset in committed.items()},
            notes=notes,
            marks=marks,
            complete=len(marks) == len(sources),
            finished=bounded and _all_ended(topology, notes, counts, last),
        )

    def resumed_by(self, options: RunOptions) -> bool:
        """Return whether a run with these options is the last one, gone on with."""
        if not self.complete:
            return False
        bounded = any(mark.run.bounded for mark in self.marks.values())
        return bounded and (not self.finished or not options.go_on) if options.bounded else not bounded

    @property
    def last(self) -> Run:
        """The last run, number 0 if there was none."""
        return max((mark.run for mark in self.marks.values()), key=lambda run: run.number, default=Run(number=0))

    def published_ms(self, sources: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Return how far windows of each source partition's records have been published by the ends of runs.

        Where the end of a run closed windows, it closed all that had begun: those of a task, and behind a shuffle
        those that any source partition may have rows in.
        """
        closed = {place for place, note in self.notes.items() if note.closed_run >= self.last.number > 0}
        everywhere = not closed <= set(sources)
        seen_ms = max((note.max_timestamp_ms for note in self.notes.values()), default=NEVER_MS)
        before = {place: self.marks.get(place, RunMark()).published_ms for place in sources}
        return {
            place: max(before_ms, seen_ms) if everywhere or place in closed else before_ms
            for place, before_ms in before.items()
        }

    def next_run(self, *, bounded: bool, published_ms: int) -> Run:
        """Return the run that follows."""
        last = self.last
        left_run = last.number if last.bounded and not self.finished else 0
        return Run(number=last.number + 1, bounded=bounded, published_ms=published_ms, left_run=left_run)


def _check_counts(notes: Mapping[TopicPartition, Note], counts: Mapping[str, int]) -> None:
    for place, note in notes.items():
        if note.partition_count and counts.get(place.topic, note.partition_count) != note.partition_count:
            raise TopologyError(
                f"{place.topic!r} had {note.partition_count} partitions when the job first ran, "
                f"now it has {counts[place.topic]}",
                hint="a changed count moves keys: give the job a new name to read everything again",
            )


def _all_ended(topology: Topology, notes: Mapping[TopicPartition, Note], counts: Mapping[str, int], run: int) -> bool:
    for sub in topology.sub_topologies:
        topics = [*sub.source_topics, *(topology.repartition(name).topic for name in sub.repartitions_in)]
        for topic in topics:
            for partition in range(counts[topic]):
                note = notes.get(TopicPartition(topic, partition))
                if note is None or note.ended_run < run:
                    return False
    return True
