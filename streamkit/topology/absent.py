"""What a task has nothing of: its sub-topology reads a topic that has fewer partitions than there are tasks."""

from collections.abc import Mapping

from streamkit.graph import Source
from streamkit.topology.model import SubTopology, Topology

__all__ = ["absent_nodes"]


def absent_nodes(
    topology: Topology, sub: SubTopology, partition: int, partition_counts: Mapping[str, int]
) -> frozenset[str]:
    """Return the nodes that get no rows in one task, ever: all that they read are partitions that do not exist.

    Nobody is to wait for their watermarks and ends.
    """
    behind = {name for one in topology.repartitions for name in one.aggregations}
    whole = {one.name for one in topology.repartitions if one.whole}
    absent: set[str] = set()
    for node in map(topology.graph.node, sub.nodes):
        if isinstance(node, Source):
            if partition >= partition_counts[node.topic]:
                absent.add(node.name)
        elif node.name not in behind and absent.issuperset(node.inputs) and whole.isdisjoint(node.inputs):
            absent.add(node.name)
    return frozenset(absent)
