"""What happens once before any task opens: topics are checked and made, tasks counted, the run fixed (`marks`).

Several workers may do so at once: topics that are there are fine, and the run is fixed by one of them.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from streamkit.broker import Broker, TopicDescription
from streamkit.errors import ConfigError, TopologyError, UnknownTopicError
from streamkit.graph import Join, Source, TableJoin
from streamkit.graph.nodes import store_names
from streamkit.log.header import BATCH_BYTES_MAX
from streamkit.records import TopicPartition
from streamkit.runtime.commit import Observe, unobserved
from streamkit.runtime.keys_check import warn_of_misplaced_keys
from streamkit.runtime.marks import RunRequest, check_counts, fix_run
from streamkit.runtime.new_shuffles import check_stores_behind
from streamkit.runtime.operators.stateless import StepCheck
from streamkit.runtime.options import RunOptions
from streamkit.runtime.position import Run
from streamkit.runtime.task_plan import TaskPlan, task_id
from streamkit.seams import Clock, SystemClock
from streamkit.topology import Repartition, SubTopology, Topology
from streamkit.topology.absent import absent_nodes
from streamkit.topology.names import dead_letter_topic, replay_topic

__all__ = ["JobPlan", "check_not_replayed", "count_tasks", "prepare"]

_REPARTITION_CONFIG = {"cleanup.policy": "delete", "retention.ms": "-1", "segment.bytes": str(64 * 1024 * 1024)}
_SINK_CONFIG = {"retention.ms": "-1"}
"""Results bear event time: by its usual retention Kafka would delete those of old records as they come."""
_LETTER_HEADERS_BYTES = 64 * 1024
_MESSAGE_BYTES_CAP = 64 * 1024 * 1024
"""As much as the embedded log takes."""
_CHANGELOG_CONFIG = {"cleanup.policy": "compact", "delete.retention.ms": str(7 * 86_400_000)}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """All tasks of a run, of all workers; `finished` if there is nothing left to do in it."""

    tasks: tuple[TaskPlan, ...]
    run: Run
    finished: bool


def prepare(
    topology: Topology,
    broker: Broker,
    options: RunOptions,
    check: StepCheck,
    observe: Observe = unobserved,
    clock: Clock | None = None,
) -> JobPlan:
    """Check and make the topics, and fix what this run reads.

    Args:
        topology: Of the job.
        broker: Where its topics are.
        options: What the user asked for.
        check: Wraps columnar steps.
        observe: Told each step of fixing the run before it.
        clock: For pauses while others fix the run at the same time; the machine's without it.

    Raises:
        UnknownTopicError: A source topic does not exist. Nothing was made.
        ConfigError: The job is being replayed. Nothing was made.
        TopologyError: Partition counts do not fit, or changed since an earlier run; or a store is behind another
            shuffle than it was. The message names the fix.
    """
    topics = broker.admin.describe_topics()
    if not options.replaying:
        check_not_replayed(topology.job, topics)
    task_counts = count_tasks(topology, topics)
    committed = broker.group(topology.job).committed()
    check_counts(committed, {name: topic.partition_count for name, topic in topics.items()})
    warn_of_misplaced_keys(topology, broker, topics)
    counts = _make_topics(topology, broker, topics, task_counts)
    if counts.keys() - topics.keys():
        # How much room a topic has that was just made is the broker's to say.
        topics = broker.admin.describe_topics()
    check_stores_behind(topology, broker, counts, committed)
    task_ids = [task_id(sub.index, part) for sub in topology.sub_topologies for part in range(task_counts[sub.index])]
    request = RunRequest(topology=topology, broker=broker, options=options, counts=counts, task_ids=task_ids)
    marks, finished = fix_run(request, clock or SystemClock(), observe)
    run = next(iter(marks.values())).run
    channels = {one.topic: tuple(_channels(topology, one, counts, task_counts)) for one in topology.repartitions}
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


def _channels(
    topology: Topology, shuffle: Repartition, counts: Mapping[str, int], task_counts: Mapping[int, int]
) -> Iterator[str]:
    """Yield the ids of the tasks that write a shuffle."""
    for upstream in shuffle.upstream:
        sub = topology.sub_topologies[upstream]
        for partition in range(task_counts[upstream]):
            if shuffle.name not in absent_nodes(topology, sub, partition, counts):
                yield task_id(upstream, partition)


def check_not_replayed(job: str, topics: Collection[str]) -> None:
    """Check that no replay of a job has begun that has not ended: what it has removed is not all there again.

    Raises:
        ConfigError: One has.
    """
    if replay_topic(job) in topics:
        raise ConfigError(
            f"a replay of job {job} was begun and has not ended",
            detail=f"the topic {replay_topic(job)} says how far it is",
            hint="the same streamkit replay command goes on with it",
        )


def count_tasks(topology: Topology, topics: Mapping[str, TopicDescription]) -> dict[int, int]:
    """Return how many tasks each sub-topology has, by its index.

    Raises:
        UnknownTopicError: A source topic does not exist.
        TopologyError: What one aggregation or join reads differs in its partition counts.
    """
    _check_sources(topology, topics)
    return {sub.index: _task_count(topology, sub, topics) for sub in topology.sub_topologies}


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
    shards = {one.topic: one.shards for one in map(topology.repartition, sub.repartitions_in)}
    nodes = list(map(topology.graph.node, sub.nodes))
    join = next((node.name for node in nodes if isinstance(node, Join | TableJoin)), None)
    if join is not None:
        hint = "give both topics the same partition count"
        _check_equal_counts(counts, f"the join {join!r} needs each key in the same partition of both", hint)
    elif any(map(store_names, nodes)):
        hint = "give both topics the same partition count, or group_by() the key so that it is shuffled"
        _check_equal_counts(counts, "one store is fed by both", hint)
    return max((counts or shards).values())


def _check_equal_counts(counts: Mapping[str, int], but: str, hint: str) -> None:
    if len(set(counts.values())) > 1:
        (one, one_count), (other, other_count) = sorted(counts.items(), key=lambda item: item[1])[:: len(counts) - 1]
        raise TopologyError(f"{one!r} has {one_count} partitions and {other!r} has {other_count}, but {but}", hint=hint)


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
                detail=_reason(topology, topic, topics),
                hint="partition counts are part of the state: set shards= back, or give the job a new name",
            )
    for sub in topology.sub_topologies:
        for topic in sub.sink_topics:
            if topic not in topics:
                wanted.setdefault(topic, (task_counts[sub.index], _SINK_CONFIG))
    wanted |= _dead_letters(topology, topics, task_counts)
    for topic, (count, config) in wanted.items():
        if topic not in topics:
            broker.admin.create_topic(topic, count, config)
    counts = {topic: description.partition_count for topic, description in topics.items()}
    return counts | {topic: count for topic, (count, _) in wanted.items()}


def _dead_letters(
    topology: Topology, topics: Mapping[str, TopicDescription], task_counts: Mapping[int, int]
) -> dict[str, tuple[int, Mapping[str, str]]]:
    """Return partition count and config of the topic of dead letters, if a source has some."""
    policies, topic = topology.graph.policies(), dead_letter_topic(topology.job)
    if "dead_letter" not in (*policies.values(), topology.graph.on_error):
        return {}
    if topic in topics:
        return {topic: (topics[topic].partition_count, {})}
    # A letter is as large as its record, and bears headers.
    room_bytes = max(_message_bytes_max(topics.get(source)) for source in policies) + _LETTER_HEADERS_BYTES
    config = {**_SINK_CONFIG, "max.message.bytes": str(min(room_bytes, _MESSAGE_BYTES_CAP))}
    return {topic: (max(task_counts.values()), config)}


def _reason(topology: Topology, internal: str, topics: Mapping[str, TopicDescription]) -> str:
    """Say which sources decide the count of a changelog; behind a shuffle `shards=` does."""
    for sub in topology.sub_topologies:
        if sub.source_topics and any(store.changelog_topic == internal for store in sub.stores):
            return ", ".join(f"{topic!r} has {topics[topic].partition_count} partitions" for topic in sub.source_topics)
    return ""


def _internal_topics(topology: Topology, task_counts: Mapping[int, int]) -> dict[str, tuple[int, Mapping[str, str]]]:
    """Return partition count and config of each repartition and changelog topic."""
    wanted: dict[str, tuple[int, Mapping[str, str]]] = {}
    for repartition in topology.repartitions:
        wanted[repartition.topic] = (task_counts[repartition.downstream], _REPARTITION_CONFIG)
    for sub in topology.sub_topologies:
        for store in sub.stores:
            wanted[store.changelog_topic] = (task_counts[sub.index], _CHANGELOG_CONFIG)
    return wanted
