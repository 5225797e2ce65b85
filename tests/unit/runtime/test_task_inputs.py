"""Which partitions each worker reads, from the job to the assignment: a task is the unit."""

import pytest
from machine import Machine
from scenarios import SCENARIOS

from streamkit.broker.assignment import assign_tasks
from streamkit.broker.protocols import Member
from streamkit.records import TopicPartition
from streamkit.runtime import RunOptions
from streamkit.runtime.opening import input_places
from streamkit.runtime.setup import prepare
from streamkit.runtime.task_plan import unchecked


@pytest.mark.parametrize("worker_count", [1, 2, 3, 7])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_input_partition_has_one_worker_and_what_a_task_joins_stays_together(
    name: str, worker_count: int
) -> None:
    scenario = SCENARIOS[name]
    machine: Machine = scenario.machine(4)
    plan = prepare(machine.topology, machine.broker, RunOptions(), unchecked)
    members = [Member(id=f"host-{number}") for number in range(worker_count)]
    placed = assign_tasks(members, [task.task_id for task in plan.tasks])
    workers = {task: worker for worker, tasks in placed.items() for task in tasks}
    readers: dict[TopicPartition, str] = {}
    for task in plan.tasks:
        for place in input_places(task):
            assert place.partition == task.partition
            assert place not in readers, "one reader each"
            readers[place] = workers[task.task_id]
    sources = {topic for sub in machine.topology.sub_topologies for topic in sub.source_topics}
    shuffles = {repartition.topic for repartition in machine.topology.repartitions}
    counts = plan.tasks[0].partition_counts
    assert set(readers) == {TopicPartition(topic, at) for topic in sources | shuffles for at in range(counts[topic])}
    for sub in machine.topology.sub_topologies:
        for at in range(4):
            together = {
                readers[place] for place in readers if place.topic in sub.source_topics and place.partition == at
            }
            assert len(together) <= 1
