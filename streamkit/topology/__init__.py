"""A graph cut into sub-topologies; pure functions."""

from streamkit.topology.aggregates import check_aggregates
from streamkit.topology.compile import compile_graph
from streamkit.topology.describing import describe
from streamkit.topology.description import Description, NodeDescription
from streamkit.topology.model import NodePlan, Repartition, Spelling, StoreSpec, SubTopology, Topology
from streamkit.topology.names import changelog_topic, repartition_topic
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
    "changelog_topic",
    "check_aggregates",
    "compile_graph",
    "describe",
    "plan_node",
    "repartition_topic",
    "returned_type",
]
