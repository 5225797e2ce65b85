"""A graph cut into sub-topologies; pure functions."""

from streamkit.topology.compile import compile_graph
from streamkit.topology.describe import describe
from streamkit.topology.description import Description, NodeDescription
from streamkit.topology.model import NodePlan, Repartition, Spelling, StoreSpec, SubTopology, Topology
from streamkit.topology.plans import plan_node, returned_type

__all__ = [
    "Description",
    "NodeDescription",
    "NodePlan",
    "Repartition",
    "Spelling",
    "StoreSpec",
    "SubTopology",
    "Topology",
    "compile_graph",
    "describe",
    "plan_node",
    "returned_type",
]
