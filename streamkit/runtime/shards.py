"""The tasks of a job as the log and the group know them, looked at from outside: nothing is opened or changed."""

from collections.abc import Sequence
from dataclasses import dataclass

from streamkit.broker import EARLIEST, LAST_STABLE, Broker
from streamkit.broker.assignment import assign_tasks, moved_tasks
from streamkit.broker.protocols import Member
from streamkit.records import TopicPartition
from streamkit.runtime.position import Note
from streamkit.runtime.setup import count_tasks
from streamkit.runtime.task_plan import task_id
from streamkit.topology import Topology

__all__ = ["Shard", "list_shards", "preview_moves"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One task of a job.

    Args:
        task: Its id.
        owner: The worker that has it; None if there is none, or the group is rebalancing.
        transaction: The number of its last commit.
        lag: The offsets of its inputs that it has not committed; markers of transactions count too.
    """

    task: str
    owner: str | None
    transaction: int
    lag: int


def list_shards(topology: Topology, broker: Broker) -> list[Shard]:
    """Return the tasks of a job, in their order.

    Raises:
        UnknownTopicError: A source topic does not exist.
    """
    topics = broker.admin.describe_topics()
    group = broker.group(topology.job)
    committed = group.committed()
    owners = {task: member.id for member in group.members() for task in member.tasks}
    inputs: dict[str, list[TopicPartition]] = {}
    counts = count_tasks(topology, topics)
    for sub in topology.sub_topologies:
        reads = topology.input_topics(sub)
        for partition in range(counts[sub.index]):
            inputs[task_id(sub.index, partition)] = [
                TopicPartition(topic, partition)
                for topic in reads
                if topic in topics and partition < topics[topic].partition_count
            ]
    every = [place for places in inputs.values() for place in places]
    ends = broker.admin.list_offsets(dict.fromkeys(every, LAST_STABLE))
    begins = broker.admin.list_offsets({place: EARLIEST for place in every if place not in committed})
    return [
        Shard(
            task=task,
            owner=owners.get(task),
            transaction=max(
                (Note.from_text(committed[at].metadata).transaction for at in places if at in committed), default=0
            ),
            lag=sum(max(0, ends[at] - (committed[at].offset if at in committed else begins[at])) for at in places),
        )
        for task, places in inputs.items()
    ]


def preview_moves(
    members: Sequence[Member], tasks: Sequence[str], worker_ids: Sequence[str]
) -> dict[str, tuple[str | None, str]]:
    """Return the tasks that would move if the members were these workers, with their owners before and after.

    Args:
        members: Of the group, with their tasks.
        tasks: All of the job.
        worker_ids: Who would be there; of the members the others would have left.
    """
    known = {member.id: member for member in members}
    before = {member.id: member.tasks for member in members}
    after = assign_tasks([known.get(name, Member(id=name)) for name in worker_ids], tasks)
    moves: dict[str, tuple[str | None, str]] = dict(moved_tasks(before, after))
    owned = {task for some in before.values() for task in some}
    for worker, some in after.items():
        moves |= {task: (None, worker) for task in some if task not in owned}
    return moves
