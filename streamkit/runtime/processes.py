"""Makes the `process` operators of one task, and the stores that they share."""

from collections.abc import Mapping, Sequence
from typing import Any

from streamkit.graph.nodes import Process
from streamkit.records import NEVER_MS
from streamkit.runtime.context import TaskContext
from streamkit.runtime.keyed import KeyedState
from streamkit.runtime.operators.process import ProcessOperator
from streamkit.runtime.typed_store import TypedStore
from streamkit.state import Digest
from streamkit.topology import NodePlan, StoreSpec

__all__ = ["Processes"]


class Processes:
    """The operators made so far.

    Args:
        specs: Stores of the task.
        digests: Of each of them, changed in place.
        stream_times_ms: The largest timestamp that each node has received, as of the task's position.
        context: Of the task.
    """

    def __init__(
        self,
        specs: Sequence[StoreSpec],
        digests: Mapping[str, Digest],
        stream_times_ms: Mapping[str, int],
        context: TaskContext,
    ) -> None:
        """Begin with none."""
        self._indexes = {spec.name: spec.index for spec in specs}
        self._digests, self._stream_times_ms, self._context = digests, stream_times_ms, context
        self._stores: dict[str, TypedStore[Any, Any]] = {}
        self.operators: list[ProcessOperator] = []

    def make(self, node: Process, plan: NodePlan) -> ProcessOperator:
        """Return the operator of one node; `plan` is of what it yields."""
        for store in node.stores:
            if store.name not in self._stores:
                state = KeyedState(self._indexes[store.name], self._context.overlay, self._digests[store.name])
                self._stores[store.name] = TypedStore(store, state)
        operator = ProcessOperator(
            node,
            plan,
            {store.name: self._stores[store.name] for store in node.stores},
            self._context.partition,
            self._stream_times_ms.get(node.name, NEVER_MS),
        )
        self.operators.append(operator)
        return operator
