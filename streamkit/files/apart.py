"""A run on a log that others use too has names of its own there: its group, its topics, its transactional ids.

The job in such a run is the same graph under another name, with other topics where it is bound to files. So nothing
that another run of the job has there is touched, and all that this one makes is known by its name when it goes.
"""

import contextlib
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from streamkit.broker import Broker
from streamkit.errors import UnknownTopicError
from streamkit.graph import Node, Sink, Source
from streamkit.topology import Topology, compile_graph
from streamkit.topology.names import dead_letter_topic

__all__ = ["named_apart", "remove_topics", "topic_apart"]

_SEPARATOR: Final = "-"


def topic_apart(name: str, topic: str) -> str:
    """Return what a topic that is bound to a file is called in the run of that name."""
    return f"{name}{_SEPARATOR}{topic}"


def named_apart(topology: Topology, name: str, bound: Collection[str]) -> Topology:
    """Return the same job under another name.

    Args:
        topology: Of the job.
        name: Of the run.
        bound: Topics that are bound to files, which get names of the run's.
    """

    def apart(node: Node) -> Node:
        if isinstance(node, Source | Sink) and node.topic in bound:
            return replace(node, topic=topic_apart(name, node.topic))
        return node

    graph = topology.graph
    return compile_graph(replace(graph, job=name, nodes=tuple(map(apart, graph.nodes))))


def remove_topics(broker: Broker, name: str) -> None:
    """Remove all topics of the run of that name, those that another has removed meanwhile among them."""
    for topic in sorted(broker.admin.describe_topics()):
        if topic.startswith(name + _SEPARATOR) or topic == dead_letter_topic(name):
            with contextlib.suppress(UnknownTopicError):
                broker.admin.delete_topic(topic)
