"""Cuts a graph into sub-topologies at its shuffles. Pure: the same graph always gives the same topology."""

from collections.abc import Sequence

from streamkit.errors import TopologyError
from streamkit.graph import Aggregation, Join, KeyBy, LogicalGraph, Node, Sink, Source, TableJoin, Window
from streamkit.graph.nodes import Process, store_names
from streamkit.topology.model import Repartition, StoreSpec, SubTopology, Topology
from streamkit.topology.names import changelog_topic, dead_letter_topic, repartition_topic, store_index
from streamkit.topology.ordering import (
    carries_facts,
    check_shuffled_whole,
    depends_on_order,
    shuffles_above,
    takes_rows,
    waits_for_itself,
)
from streamkit.topology.plans import filters_updates, is_stateless, plan_nodes
from streamkit.topology.processing import check_keys_of_rows, store_users

__all__ = ["compile_graph"]


def compile_graph(graph: LogicalGraph) -> Topology:
    """Return the topology of a graph.

    Raises:
        TopologyError: A node leads nowhere, streams of different keys are grouped together, a node that depends on
            order mixes results of windows with other rows, a shuffle leads back to the tasks that write it, a node
            keeps state by a key that `process` may have changed, or the job uses one of its internal topics by hand.
    """
    return _Compiler(graph).compile()


class _Compiler:
    def __init__(self, graph: LogicalGraph) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._stores = tuple(dict.fromkeys(name for node in graph.nodes for name in store_names(node)))
        self._plans = plan_nodes(graph)
        self._placed: dict[str, str] = {}
        """Of each node with state behind a shuffle, of partial results or of rows, that shuffle."""
        self._roots: dict[str, str] = {}
        self._keys: dict[str, frozenset[str | None]] = {}
        self._whole: dict[str, list[str]] = {}
        """The shuffles that carry rows whole, each with its readers."""
        self._facts: dict[str, bool] = {}
        """Those of them whose rows are in the order of the log, and whether they are results of windows."""
        self._ordered: set[int] = set()

    def compile(self) -> Topology:
        self._check_reached()
        self._find_whole()
        for node in self._graph.nodes:
            self._place(node)
        groups = self._groups()
        self._check_shared_stores()
        self._find_ordered(groups)
        repartitions = self._repartitions(groups)
        self._check_store_indexes()
        self._check_internal_topics()
        subs = tuple(self._sub(index, names, repartitions) for index, names in enumerate(groups))
        return Topology(
            job=self._graph.job, graph=self._graph, sub_topologies=subs, repartitions=repartitions, plans=self._plans
        )

    def _check_reached(self) -> None:
        if not self._nodes:
            raise TopologyError(f"the job {self._graph.job!r} has no nodes", hint="begin with job.stream(topic)")
        for node in self._graph.nodes:
            if not isinstance(node, Sink) and not store_names(node) and not self._graph.children(node.name):
                raise TopologyError(
                    f"the node {node.name!r} of job {self._graph.job!r} leads nowhere",
                    hint="send its rows on with .to(topic), or remove it",
                )

    def _check_internal_topics(self) -> None:
        """Refuse to read or write by hand what the job keeps for itself."""
        internal = {repartition_topic(self._graph.job, name) for name in (*self._placed.values(), *self._whole)}
        internal |= {changelog_topic(self._graph.job, name) for name in self._stores}
        if "dead_letter" in (*self._graph.policies().values(), self._graph.on_error):
            internal.add(dead_letter_topic(self._graph.job))
        for node in self._graph.nodes:
            if isinstance(node, Source | Sink) and node.topic in internal:
                raise TopologyError(
                    f"the node {node.name!r} uses {node.topic!r}, an internal topic of job {self._graph.job!r}",
                    hint="use a topic of another name; a table is written to one with .to(topic)",
                )

    def _check_store_indexes(self) -> None:
        names: dict[int, str] = {}
        for name in self._stores:
            other = names.setdefault(store_index(name), name)
            if other != name:
                raise TopologyError(
                    f"the stores {other!r} and {name!r} of job {self._graph.job!r} would share their keys",
                    hint="both names have one hash of 16 bits: rename one, or pass another name=",
                )

    def _find_whole(self) -> None:
        """Find the shuffles whose rows cannot be folded before them."""
        for node in self._graph.nodes:
            self._keys[node.name] = self._keys_after(node)
            if takes_rows(self._graph, node):
                for name in node.inputs:
                    shuffle = self._shuffle_before(node, name)
                    if shuffle is not None:
                        keyed = self._nodes[shuffle]
                        assert isinstance(keyed, KeyBy), "only these change keys"
                        check_shuffled_whole(self._graph, self._plans, keyed, node.name)
                        self._whole.setdefault(shuffle, [])

    def _place(self, node: Node) -> None:
        """Join a node with its inputs, unless a shuffle lies between."""
        self._roots[node.name] = node.name
        self._keys[node.name] = self._keys_after(node)
        if isinstance(node, Aggregation):
            shuffle = self._shuffle_before(node, node.inputs[0])
            if shuffle is not None:
                for name, other in self._placed.items():
                    if other == shuffle:
                        self._join(name, node.name)
                self._placed[node.name] = shuffle
                return
        if store_names(node):
            self._join_users(node)
            above = shuffles_above(self._graph, node, self._whole)
            if above:
                self._placed[node.name] = min(above)
        for name in node.inputs:
            if name in self._whole:
                self._whole[name].append(node.name)
                self._join(self._whole[name][0], node.name)
            else:
                self._join(name, node.name)

    def _check_shared_stores(self) -> None:
        """Refuse a store that is fed by results of windows and by other rows, which have no order among them."""
        for name, users in store_users(self._graph).items():
            ordered = [node for node in users if node.order == "log"]
            if ordered:
                every = tuple(dict.fromkeys(above for node in users for above in node.inputs))
                carries_facts(self._graph, Node(name=name, inputs=every), self._whole)

    def _find_ordered(self, groups: Sequence[tuple[str, ...]]) -> None:
        """Find the sub-topologies that take their rows in the order of the log, and those that must hand them on so."""
        where = {name: index for index, names in enumerate(groups) for name in names}
        waiting = [node for node in self._graph.nodes if depends_on_order(node)]
        while waiting:
            node = waiting.pop()
            facts = carries_facts(self._graph, node, self._whole)
            if isinstance(node, KeyBy):
                self._facts[node.name] = facts
            if not facts:
                self._ordered.add(where[node.name])
                waiting += [self._nodes[name] for name in shuffles_above(self._graph, node, self._whole)]

    def _join_users(self, node: Node) -> None:
        """Join a node with those that use its stores: a store belongs to one task."""
        for name in store_names(node):
            first = store_users(self._graph).get(name, [node])[0]
            if first is not node:
                self._join(first.name, node.name)

    def _keys_after(self, node: Node) -> frozenset[str | None]:
        """Return which nodes changed the key of a node's rows since the last shuffle; None: it is in place."""
        if isinstance(node, KeyBy) or (isinstance(node, Process) and node.rekeys):
            return frozenset({node.name})
        if isinstance(node, Aggregation | Source | Join | TableJoin):
            return frozenset({None})
        return frozenset().union(*(self._keys_of(name) for name in node.inputs))

    def _keys_of(self, name: str) -> frozenset[str | None]:
        return frozenset({None}) if name in self._whole else self._keys[name]

    def _shuffle_before(self, node: Node, upstream: str) -> str | None:
        keys = self._keys_of(upstream)
        check_keys_of_rows(node, keys, self._nodes)
        if len(keys) > 1:
            raise TopologyError(
                f"{node.name!r} groups rows of several streams, whose keys were not made by one node",
                detail=f"they are {', '.join(sorted(key or 'of the source' for key in keys))}",
                hint="merge first, then group_by() or key_by() the merged stream",
            )
        return next(iter(keys))

    def _root(self, name: str) -> str:
        while self._roots[name] != name:
            name = self._roots[name]
        return name

    def _join(self, one: str, other: str) -> None:
        self._roots[self._root(other)] = self._root(one)

    def _groups(self) -> list[tuple[str, ...]]:
        """Return the nodes of each sub-topology, ordered by their first nodes: a later node renumbers none of them."""
        members: dict[str, list[str]] = {}
        for node in self._graph.nodes:
            members.setdefault(self._root(node.name), []).append(node.name)
        return [tuple(names) for names in members.values()]

    def _repartitions(self, groups: Sequence[tuple[str, ...]]) -> tuple[Repartition, ...]:
        where = {name: index for index, names in enumerate(groups) for name in names}
        made = []
        for node in self._graph.nodes:
            if not isinstance(node, KeyBy):
                continue
            aggregations = tuple(name for name, shuffle in self._placed.items() if shuffle == node.name)
            readers = self._whole.get(node.name) or aggregations
            if readers:
                made.append(
                    Repartition(
                        name=node.name,
                        topic=repartition_topic(self._graph.job, node.name),
                        shards=node.shards,
                        upstream=(where[node.name],),
                        downstream=where[readers[0]],
                        aggregations=aggregations,
                        whole=node.name in self._whole,
                        ordered=node.name in self._facts,
                        facts=self._facts.get(node.name, False),
                    )
                )
        self._check_ahead(made)
        return tuple(made)

    def _check_ahead(self, shuffles: Sequence[Repartition]) -> None:
        """Refuse a shuffle that leads back where its reader would wait for itself, or a store be part of two tasks."""
        shared = any(len(users) > 1 for users in store_users(self._graph).values())
        for shuffle in shuffles:
            to_itself = shared and shuffle.downstream in shuffle.upstream
            if to_itself or (shuffle.ordered and waits_for_itself(shuffle, shuffles)):
                raise TopologyError(
                    f"the shuffle {shuffle.name!r} leads back into the tasks that write it",
                    detail="what reads it shares a merge, a join or a store with what is above it",
                    hint="give the nodes on the two sides stores of their own, or a join or process "
                    'order="arrival"; or read the shuffled rows in a second job',
                )

    def _sub(self, index: int, names: tuple[str, ...], repartitions: Sequence[Repartition]) -> SubTopology:
        inside = [self._nodes[name] for name in names]
        outgoing = [one for one in repartitions if index in one.upstream]
        return SubTopology(
            index=index,
            nodes=names,
            source_topics=tuple(node.topic for node in inside if isinstance(node, Source)),
            repartitions_in=tuple(one.name for one in repartitions if one.downstream == index),
            repartitions_out=tuple(one.name for one in outgoing),
            combines=tuple(name for one in outgoing if not one.whole for name in one.aggregations),
            stores=self._store_specs(inside),
            sink_topics=tuple(dict.fromkeys(node.topic for node in inside if isinstance(node, Sink))),
            chains=self._chains(inside),
            ordered=index in self._ordered,
        )

    def _store_specs(self, inside: Sequence[Node]) -> tuple[StoreSpec, ...]:
        windowed = {node.name for node in inside if node.inputs and isinstance(self._nodes[node.inputs[0]], Window)}
        return tuple(
            StoreSpec(
                name=name,
                index=store_index(name),
                changelog_topic=changelog_topic(self._graph.job, name),
                windowed=name in windowed,
            )
            for name in dict.fromkeys(name for node in inside for name in store_names(node))
        )

    def _chains(self, inside: Sequence[Node]) -> tuple[tuple[str, ...], ...]:
        chains: list[list[str]] = []
        for node in inside:
            if not is_stateless(node) or filters_updates(self._graph, node):
                continue
            previous = node.inputs[0]
            last = next((chain for chain in chains if chain[-1] == previous), None)
            if previous in self._whole:
                chains.append([node.name])
            elif last is not None and len(self._graph.children(previous)) == 1:
                last.append(node.name)
            else:
                chains.append([node.name])
        return tuple(map(tuple, chains))
