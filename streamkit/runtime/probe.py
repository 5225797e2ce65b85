"""Finds all bad records of what was fetched at once: tries them on a task of its own, whose results nobody sees.

One by one, each bad record would take the task back to its last commit.
"""

from typing import Final

import numpy as np

from streamkit.errors import RecordError
from streamkit.graph import Aggregation, Late, LogicalGraph
from streamkit.records import TopicPartition
from streamkit.runtime.aside import Aside, PickedRecords
from streamkit.runtime.build import TaskPlan
from streamkit.runtime.position import Position
from streamkit.runtime.task import Task
from streamkit.state import MemoryStore

__all__ = ["bad_records"]

_NOTHING: Final = Aside({}, None)


def bad_records(
    plan: TaskPlan, place: TopicPartition, records: PickedRecords, error: RecordError
) -> dict[int, RecordError]:
    """Return the errors of the records that are bad by themselves, whatever came before them, by offset.

    Records are tried in halves, down to single ones. What a fold or the reader of late rows says is not believed: here
    is neither the state nor the watermark that it would meet. But a node that failed on several records at once is,
    as there is no other way to tell which it was.

    Args:
        plan: Of the task.
        place: The source partition.
        records: What was handed on when the error was raised.
        error: That error.

    Cost: what it takes to process the records, about twice for one bad record; per bad record, some more of it.
    """
    believed = _alone(plan.topology.graph) | (set() if error.exact else {error.node})
    source = Task(plan, MemoryStore(), Position(), _NOTHING).source(place)
    found: dict[int, RecordError] = {}
    waiting = [(0, len(records))]
    while waiting:
        begin, end = waiting.pop()
        try:
            source.receive(PickedRecords.of(records, np.arange(begin, end, dtype=np.int64)))
        except RecordError as caught:
            if end - begin > 1:
                middle = (begin + end) // 2
                waiting += [(middle, end), (begin, middle)]
            elif caught.node in believed:
                found[int(records.offsets[begin])] = caught
    return found


def _alone(graph: LogicalGraph) -> set[str]:
    """Return the nodes that see one record at a time, and neither state nor watermark."""
    alone: set[str] = set()
    for node in graph.nodes:
        if not isinstance(node, Aggregation | Late) and alone.issuperset(node.inputs):
            alone.add(node.name)
    return alone
