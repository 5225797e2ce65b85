"""What `process` asks of a topology: where its stores lie, and where its rows must come one at a time. Pure."""

from collections.abc import Collection, Mapping, Sequence

from streamkit.errors import TopologyError
from streamkit.graph import Join, LogicalGraph, Node, Source, TableJoin, ToStream
from streamkit.graph.nodes import Process, store_names
from streamkit.topology.ordering import depends_on_order

__all__ = ["check_keys_of_rows", "inputs_row_by_row", "store_users"]


def store_users(graph: LogicalGraph) -> dict[str, list[Process]]:
    """Return the nodes that use each store of `process`, in definition order."""
    users: dict[str, list[Process]] = {}
    for node in graph.nodes:
        if isinstance(node, Process):
            for name in store_names(node):
                users.setdefault(name, []).append(node)
    return users


def check_keys_of_rows(node: Node, keys: frozenset[str | None], nodes: Mapping[str, Node]) -> None:
    """Refuse state behind a `process` that may change keys: where such a row lies says nothing about its key.

    Args:
        node: Keeps state.
        keys: The nodes that changed the keys of its rows.
        nodes: By name.

    Raises:
        TopologyError: One of them is a `process`.
    """
    for name in sorted(filter(None, keys)):
        if isinstance(nodes[name], Process):
            raise TopologyError(
                f"{node.name!r} keeps state by key, but {name!r} may have changed the keys of its rows",
                detail=f"process(rekeys=True) leaves rows where they are, so one key may come to several tasks of "
                f"{node.name!r}",
                hint="change the key by key_by() or group_by() between the two: that shuffles",
            )


def inputs_row_by_row(graph: LogicalGraph, whole: Collection[str]) -> frozenset[str]:
    """Return the nodes whose rows must go on one at a time, or results would depend on where a batch is cut.

    A batch goes through one node after the other. Two nodes with one store, or one node whose rows have an order and
    that a row reaches on two ways, would take all rows of the batch on the first way, then all on the second.
    """
    found: set[str] = set()
    one_by_one = [
        node for node in graph.nodes if isinstance(node, Process | Join | TableJoin) or depends_on_order(node)
    ]
    one_by_one += [graph.node(name) for name in whole]
    users: list[Sequence[Node]] = [*store_users(graph).values(), *([node] for node in one_by_one)]
    for together in users:
        ways: dict[str, int] = {}
        for node in together:
            _count_ways(graph, node, whole, ways)
        found.update(name for name, count in ways.items() if count > 1)
    return frozenset(found)


def _count_ways(graph: LogicalGraph, node: Node, whole: Collection[str], ways: dict[str, int]) -> None:
    """Count on how many ways rows come from each node where they enter a task; `whole` are the shuffles of rows."""
    for name in node.inputs:
        above = graph.node(name)
        if name in whole or isinstance(above, Source | ToStream):
            ways[name] = ways.get(name, 0) + 1
        else:
            _count_ways(graph, above, whole, ways)
