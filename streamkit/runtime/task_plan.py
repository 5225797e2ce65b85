"""What a task is built from, and the names that it has in the log."""

from collections.abc import Mapping
from dataclasses import dataclass

from streamkit.graph import Aggregation, Join, Map, Node, TableJoin, Typed
from streamkit.graph.nodes import Process
from streamkit.runtime.coroutines import Coroutines
from streamkit.runtime.operators.stateless import Step, StepCheck
from streamkit.runtime.position import Run, RunMark
from streamkit.topology import SubTopology, Topology
from streamkit.topology.plans import is_stateless

__all__ = ["TaskPlan", "task_id", "transactional_id", "unchecked"]


def task_id(sub_topology: int, partition: int) -> str:
    """Return the id of a task: sub-topology and partition, `0_3`."""
    return f"{sub_topology}_{partition}"


def transactional_id(job: str, task_id: str) -> str:
    """Return the id of a task's producer: whoever opens it last owns the task."""
    return f"{job}-{task_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """What a task is built from.

    Args:
        topology: Of the job.
        sub: Which kind of task.
        partition: Which one of them.
        partition_counts: Of every topic the job touches.
        message_bytes_max: Of every topic the job touches: how large a record batch it takes.
        channels: For each repartition topic, the ids of the tasks that write it.
        run: The run that is going on.
        marks: For each source topic, what that run reads of this partition.
        check: Wraps columnar steps (a test driver runs them twice).
        coroutines: Runs its async functions; None before a worker has taken the task.
    """

    topology: Topology
    sub: SubTopology
    partition: int
    partition_counts: Mapping[str, int]
    message_bytes_max: Mapping[str, int]
    channels: Mapping[str, tuple[str, ...]]
    run: Run
    marks: Mapping[str, RunMark]
    check: StepCheck
    coroutines: Coroutines | None = None

    @property
    def in_python(self) -> bool:
        """Whether a step, a join, a `process` or an aggregation calls a Python function for each row."""
        nodes = map(self.topology.graph.node, (*self.sub.nodes, *self.sub.combines))
        return any(
            self.topology.plans[node.name].spelling == "python"
            for node in nodes
            if isinstance(node, Aggregation | Join | TableJoin | Process)
            or (is_stateless(node) and not isinstance(node, Typed))
        )

    @property
    def waits(self) -> bool:
        """Whether a step calls an async function."""
        nodes = map(self.topology.graph.node, self.sub.nodes)
        return any(isinstance(node, Map) and node.calls is not None for node in nodes)

    @property
    def task_id(self) -> str:
        """Sub-topology and partition, `0_3`."""
        return task_id(self.sub.index, self.partition)


def unchecked(node: Node, step: Step) -> Step:  # noqa: ARG001  # the shape of a check
    """Run a columnar step once: the check that production uses."""
    return step
