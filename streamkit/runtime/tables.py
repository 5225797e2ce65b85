"""Builds what the tables of one task are made of: their keepers, who can be asked what they have, and joins."""

from collections.abc import Mapping

from streamkit.graph import Join, Latest, LogicalGraph, Node, TableJoin
from streamkit.runtime.context import TaskContext
from streamkit.runtime.keyed import KeyedState
from streamkit.runtime.operators.joining import JoinOperator, TableJoinOperator
from streamkit.runtime.operators.latest import LatestOperator
from streamkit.runtime.operators.lookups import Lookup, StepLookup
from streamkit.runtime.operators.stateless import StepCheck, step_for
from streamkit.serde import Serde, value_serde
from streamkit.state import Digest
from streamkit.topology import SubTopology, Topology

__all__ = ["Tables"]


class Tables:
    """The tables of one task, by name.

    Args:
        topology: Of the job.
        sub: Of the task.
        check: Wraps columnar steps.
        context: Of the task.
        digests: Of its stores, by name.
    """

    def __init__(
        self,
        topology: Topology,
        sub: SubTopology,
        check: StepCheck,
        context: TaskContext,
        digests: Mapping[str, Digest],
    ) -> None:
        """Start without tables."""
        self._topology, self._sub, self._check = topology, sub, check
        self._context, self._digests = context, digests
        self._graph: LogicalGraph = topology.graph
        self.latest: list[LatestOperator] = []
        self._lookups: dict[str, Lookup] = {}

    def add(self, table: str, keeper: Lookup) -> None:
        """Learn who can be asked what a table has."""
        self._lookups[table] = keeper

    def keep(self, node: Latest) -> LatestOperator:
        """Return the table of a topic."""
        store = next(store for store in self._sub.stores if store.name == node.name)
        state = KeyedState(store.index, self._context.overlay, self._digests[store.name])
        latest = LatestOperator(node.name, state, self._values(node))
        self.latest.append(latest)
        self.add(node.name, latest)
        return latest

    def join(self, node: Join) -> JoinOperator:
        """Return the join of a stream with a table that is there."""
        return JoinOperator(node.name, node.fn, self._values(node), self._lookup(node.inputs[1]))

    def join_tables(self, node: TableJoin) -> TableJoinOperator:
        """Return the join of two tables that are there."""
        one, other = map(self._lookup, node.inputs)
        join = TableJoinOperator(node.name, node.fn, self._values(node), (one, other))
        self.add(node.name, join)
        return join

    def _values(self, node: Node) -> Serde:
        return value_serde(self._topology.plans[node.name].value_type)

    def _lookup(self, table: str) -> Lookup:
        """Return who is to be asked: the table's keeper, seen through the steps behind it."""
        if table in self._lookups:
            return self._lookups[table]
        node = self._graph.node(table)
        return StepLookup(self._lookup(node.inputs[0]), step_for(node, self._topology.plans[table], self._check))
