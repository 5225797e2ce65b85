"""What each node of a job is and reads, as text: so a run that goes on can tell whether it is of the same job. Pure.

Finer than the lock, which holds what state depends on. Functions are names here: nobody can look into one.
"""

from collections.abc import Mapping
from typing import Any

from streamkit.graph import Aggregation, Columns, KeyBy, Node, Select, Source, Typed
from streamkit.graph.nodes import Process
from streamkit.serde import key_serde, value_serde
from streamkit.topology.describing import describe
from streamkit.topology.lock import lock_of
from streamkit.topology.model import Topology
from streamkit.topology.type_texts import type_text

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
        details = {name: value for name, value in said.details.items() if name != _POLICY} | _undescribed(
            topology, node
        )
        if isinstance(node, Aggregation) and isinstance(node.how, Columns):
            details["value"] = lock.stores[node.name].value
        kind = f"{said.kind} of {' and '.join(said.inputs)}" if said.inputs else said.kind
        texts[node.name] = ", ".join([kind, *(f"{name} {value}" for name, value in details.items())])
    return texts


def _undescribed(topology: Topology, node: Node) -> dict[str, Any]:
    """Return what a run depends on and `describe` leaves out, or says in short."""
    plan = topology.plans[node.name]
    match node:
        case Source():
            deletes = {"nulls": "delete"} if node.nulls_delete else {}
            return {"key": _key(node.key_type), "value": _value(node.value_type)} | deletes
        case Typed():
            return {"value": _value(node.value_type)}
        case Select():
            return {"columns": ", ".join(map(str, node.expressions))}
        case KeyBy():
            return {"key": _key(plan.key_type), "shards": node.shards}
        case Aggregation():
            return {"value": _value(plan.value_type)}
        case Process(stores=stores) if stores:
            return {"stores": [f"{one.name} of {_key(one.key_type)} to {_value(one.value_type)}" for one in stores]}
        case _:
            return {}


def _key(type_: Any) -> str:
    return type_text(type_, key_serde(type_))


def _value(type_: Any) -> str:
    return type_text(type_, value_serde(type_))
