"""What each node of a job is and reads, as text: so a run that goes on can tell whether it is of the same job. Pure.

Finer than the lock, which holds what state depends on. Functions are names here: nobody can look into one.
"""

from collections.abc import Mapping

from streamkit.graph import Aggregation, Select, Source
from streamkit.topology.describing import describe
from streamkit.topology.lock import lock_of
from streamkit.topology.model import Topology

__all__ = ["node_texts"]

_POLICY = "on_error"


def node_texts(topology: Topology) -> Mapping[str, str]:
    """Return a text for each node, by name, in their order; two jobs whose texts are equal differ in functions alone.

    Error policies are left out: what is left of a run may be done with another one.
    """
    described, lock = describe(topology).nodes, lock_of(topology)
    texts: dict[str, str] = {}
    for node in topology.graph.nodes:
        said = described[node.name]
        details = {name: value for name, value in said.details.items() if name != _POLICY}
        match node:
            case Source():
                details["value"] = lock.sources[node.topic].value
            case Aggregation():
                details["value"] = lock.stores[node.name].value
            case Select():
                details["columns"] = ", ".join(map(str, node.expressions))
        kind = f"{said.kind} of {' and '.join(said.inputs)}" if said.inputs else said.kind
        texts[node.name] = ", ".join([kind, *(f"{name} {value}" for name, value in details.items())])
    return texts
