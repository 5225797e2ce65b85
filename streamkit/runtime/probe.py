"""Finds all bad records of what was fetched at once: tries them on a task of its own, whose results nobody sees.

One by one, each bad record would take the task back to its last commit.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from streamkit.errors import RecordError
from streamkit.graph import Aggregation, Join, Late, Latest, LogicalGraph, TableJoin
from streamkit.graph.nodes import Process
from streamkit.records import Batch, TopicPartition
from streamkit.runtime.aside import Aside, PickedRecords
from streamkit.runtime.position import Position
from streamkit.runtime.task import Task
from streamkit.runtime.task_plan import TaskPlan
from streamkit.state import MemoryStore

__all__ = ["bad_records", "bad_results"]

_NOTHING: Final = Aside({}, None)
_ROWS_TOGETHER: Final = 128
"""Fewer cost more calls, more cost more rows for each bad one."""

Rows: TypeAlias = npt.NDArray[np.int64]


def bad_records(
    plan: TaskPlan, place: TopicPartition, records: PickedRecords, error: RecordError
) -> dict[int, RecordError]:
    """Return the errors of the records that are bad by themselves, whatever came before them, by offset.

    What a fold, a `process` or the reader of late rows says is not believed: here
    is neither the state nor the watermark that it would meet. But a node that failed on several records at once is,
    as there is no other way to tell which it was.

    Args:
        plan: Of the task.
        place: The source partition.
        records: What was handed on when the error was raised.
        error: That error.

    Cost: what it takes to process the records, and for each bad one some of them again.
    """
    believed = _alone(plan.topology.graph) | (set() if error.exact else {error.node})
    source = Task(plan, MemoryStore(), Position(), _NOTHING).source(place)

    def row_of(caught: RecordError) -> int | None:
        known = caught.exact and caught.node in believed and (caught.topic, caught.partition) == place
        return int(np.searchsorted(records.offsets, caught.offset)) if known else None

    caught = _caught(len(records), lambda rows: source.receive(PickedRecords.of(records, rows)), row_of)
    return {int(records.offsets[row]): one for row, one in caught.items() if one.node in believed}


def bad_results(plan: TaskPlan, table: str, batch: Batch) -> dict[int, RecordError]:
    """Return the errors of the results of a table that cannot be taken by what is behind it, by row.

    What a `process` says is not believed: here is not the state that it would meet.

    Args:
        plan: Of the task.
        table: The aggregation.
        batch: The results that were handed on when an error was raised.
    """
    aggregates = Task(plan, MemoryStore(), Position(), _NOTHING).aggregates
    out = next(aggregate.out for aggregate in aggregates if aggregate.spec.node == table)
    found = _caught(len(batch), lambda rows: out.receive(batch.take(rows)), lambda _: None)
    stateful = {node.name for node in plan.topology.graph.nodes if isinstance(node, Process)}
    return {row: error for row, error in found.items() if error.node not in stateful}


def _caught(
    count: int, attempt: Callable[[Rows], None], row_of: Callable[[RecordError], int | None]
) -> dict[int, RecordError]:
    """Return the errors of single rows: some rows are tried together, then without the bad one, or in halves.

    Args:
        count: How many rows there are.
        attempt: Raises the error of one of the rows that it is given.
        row_of: Returns which one, None if the error does not say.
    """
    found: dict[int, RecordError] = {}
    every = np.arange(count, dtype=np.int64)
    waiting = [every[begin : begin + _ROWS_TOGETHER] for begin in range(0, count, _ROWS_TOGETHER)]
    while waiting:
        rows = waiting.pop()
        try:
            attempt(rows)
        except RecordError as error:
            row = row_of(error)
            if len(rows) == 1:
                found[int(rows[0])] = error
            elif row is not None and row in rows:
                found[row] = error
                waiting.append(rows[rows != row])
            else:
                waiting += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return found


def _alone(graph: LogicalGraph) -> set[str]:
    """Return the nodes that see one record at a time, and neither state nor watermark."""
    alone: set[str] = set()
    for node in graph.nodes:
        stateful = isinstance(node, Aggregation | Late | Latest | Join | TableJoin | Process)
        if not stateful and alone.issuperset(node.inputs):
            alone.add(node.name)
    return alone
