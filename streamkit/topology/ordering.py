"""Which nodes depend on the order of their rows, and what that asks of shuffles and of tasks. Pure.

Such a node that has several inputs takes their rows in one order that the log alone decides: by (largest timestamp of
the source partition so far, source, partition, offset). So a shuffle before it carries rows one by one, not partial
results, and the task reads its inputs in that order.
"""

from collections.abc import Collection, Mapping, Sequence

from streamkit.errors import TopologyError
from streamkit.graph import (
    Aggregation,
    Filter,
    Fold,
    Join,
    KeyBy,
    LogicalGraph,
    Map,
    MapValues,
    Node,
    Reduce,
    Source,
    TableJoin,
    ToStream,
    Typed,
)
from streamkit.graph.nodes import Process
from streamkit.topology.model import NodePlan, Repartition

__all__ = [
    "carries_facts",
    "check_shuffled_whole",
    "depends_on_order",
    "shuffles_above",
    "takes_rows",
    "waits_for_itself",
]


def depends_on_order(node: Node) -> bool:
    """Whether what a node makes depends on the order of its rows, and the log must decide it."""
    match node:
        case Aggregation(how=Fold(merge=None)) | Aggregation(how=Reduce(commutative=False)):
            return True
        case Join() | TableJoin():
            return node.order == "log"
        case Process():
            return node.order == "log" and bool(node.stores or node.punctuations)
        case _:
            return False


def takes_rows(graph: LogicalGraph, node: Node) -> bool:
    """Whether a node behind a shuffle needs the rows themselves: no partial results of it can be made before.

    Who looks a table up in the order of the log must find what the rows before have made of it.
    """
    if isinstance(node, Join | Process):
        return isinstance(node, Join) or bool(node.stores)
    return depends_on_order(node) or (isinstance(node, Aggregation) and _looked_up(graph, node))


def _looked_up(graph: LogicalGraph, table: Node) -> bool:
    readers = graph.children(table.name)
    return any(
        depends_on_order(reader)
        if isinstance(reader, Join | TableJoin)
        else isinstance(reader, MapValues | Filter | Typed) and _looked_up(graph, reader)
        for reader in readers
    )


def carries_facts(graph: LogicalGraph, node: Node, whole: Collection[str]) -> bool:
    """Return whether what a node reads, since the last shuffle of rows, are results of windows taken as facts.

    Raises:
        TopologyError: They are, and it reads others too: facts come when a watermark moves, between any rows.
    """
    origins = set().union(*(_origins(graph, name, whole) for name in node.inputs))
    facts = origins - {None}
    if facts and len(origins) > 1:
        raise TopologyError(
            f"{node.name!r} depends on the order of its rows, and reads results of windows beside others",
            detail=f"windows of {' and '.join(sorted(map(str, facts)))} close between any two rows of another input",
            hint="shuffle the results by themselves first: key_by() on what to_stream() returns",
        )
    return bool(facts)


def _origins(graph: LogicalGraph, name: str, whole: Collection[str]) -> set[str | None]:
    """Return the tables of windows that rows come from; None: a source, or a shuffle."""
    node = graph.node(name)
    if isinstance(node, ToStream):
        return {node.inputs[0]}
    if isinstance(node, Source) or name in whole:
        return {None}
    return set().union(*(_origins(graph, above, whole) for above in node.inputs))


def shuffles_above(graph: LogicalGraph, node: Node, whole: Collection[str]) -> set[str]:
    """Return the shuffles of rows that a node reads, none that lies above another one."""
    found: set[str] = set()
    for name in node.inputs:
        found |= {name} if name in whole else shuffles_above(graph, graph.node(name), whole)
    return found


def waits_for_itself(shuffle: Repartition, shuffles: Sequence[Repartition]) -> bool:
    """Return whether the tasks that take a shuffle's rows in order would wait for what they are still to hand on.

    They wait for its turns. Those follow the turns of the ordered inputs of the tasks that write it; the turns of
    results of windows follow a watermark, and so all inputs of these tasks.
    """
    waiting, seen = [shuffle], set[str]()
    while waiting:
        above = waiting.pop()
        if shuffle.downstream in above.upstream:
            return True
        seen.add(above.name)
        by_watermark = above.facts or not above.ordered
        waiting += [
            one
            for one in shuffles
            if one.downstream in above.upstream and (by_watermark or one.ordered) and one.name not in seen
        ]
    return False


def check_shuffled_whole(graph: LogicalGraph, plans: Mapping[str, NodePlan], node: KeyBy, reader: str) -> None:
    """Refuse to shuffle rows of which nobody knows how they are read back.

    Raises:
        TopologyError: A function made them, and does not say of what type they are.
    """
    plan = plans[node.name]
    if plan.value_type is not None or plan.schema is not None:
        return
    above = graph.node(node.inputs[0])
    while above.inputs and not isinstance(above, Map):
        above = graph.node(above.inputs[0])
    if not isinstance(above, Source):
        raise TopologyError(
            f"{reader!r} depends on the order of its rows, so the shuffle {node.name!r} carries each of them, "
            "but of what type they are is not known",
            hint=f"annotate what {above.name!r} returns, or state it with .typed(Type) before {node.name!r}",
        )
