"""Finds out what there is to say about a topology. Pure: no broker is asked, so sources have no partition counts."""

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from streamkit.graph import (
    Aggregate,
    Aggregation,
    AsyncCalls,
    Columns,
    EventTime,
    Filter,
    FlatMap,
    Fold,
    Hopping,
    Join,
    KeyBy,
    Late,
    Latest,
    Map,
    MapBatches,
    MapValues,
    Merge,
    Node,
    Peek,
    Reduce,
    Select,
    Sink,
    Source,
    TableJoin,
    ToStream,
    Typed,
    Window,
)
from streamkit.graph.nodes import Process, Punctuation
from streamkit.serde import key_serde, value_serde
from streamkit.topology.description import Description, NodeDescription, duration_text
from streamkit.topology.model import NodePlan, StoreSpec, Topology

__all__ = ["describe"]

_KINDS: Final[Mapping[type[Node], str]] = {
    Source: "source",
    Latest: "table",
    Map: "map",
    FlatMap: "flat_map",
    Filter: "filter",
    Peek: "peek",
    MapBatches: "map_batches",
    Select: "select",
    Typed: "typed",
    KeyBy: "key_by",
    Merge: "merge",
    Process: "process",
    Window: "window",
    Late: "late",
    MapValues: "map_values",
    Join: "join",
    TableJoin: "join",
    ToStream: "to_stream",
    Sink: "sink",
}
_LOOK_AT_NO_VALUE: Final = (Source, Latest, Typed, Merge, Window, Late, ToStream, Sink)


def describe(topology: Topology) -> Description:
    """Return what runs where, what it keeps, and how each node is spelled.

    Example:
        >>> from streamkit import Job
        >>> from streamkit.topology import compile_graph, describe
        >>> job = Job("lengths")
        >>> job.stream("words", value=str).map(len).to("lengths")
        >>> print(describe(compile_graph(job.build())).to_text().partition("python:")[0])
        lengths: 1 sub-topology, no shuffles, no stores
        <BLANKLINE>
        Sub-topology 0: one task a partition of words
            source   words                  topic words · key bytes | None · value str ·
                                            timestamp record's own
            map      map_1         python
            sink     to_lengths_1           topic lengths
        <BLANKLINE>
        <BLANKLINE>
    """
    nodes = {node.name: _node(topology, node) for node in topology.graph.nodes}
    return Description(
        job=topology.job, nodes=nodes, sub_topologies=topology.sub_topologies, repartitions=topology.repartitions
    )


def _node(topology: Topology, node: Node) -> NodeDescription:
    plan = topology.plans[node.name]
    return NodeDescription(
        name=node.name,
        kind=_kind(node),
        spelling=None if isinstance(node, _LOOK_AT_NO_VALUE) else plan.spelling,
        inputs=node.inputs,
        doc=node.doc.partition("\n")[0],
        details=_details(topology, node, plan),
    )


def _kind(node: Node) -> str:
    match node:
        case Aggregation(how=Fold()):
            return "aggregate"
        case Aggregation(how=Reduce()):
            return "reduce"
        case Aggregation(how=Columns(scalar=scalar)):
            return "count" if scalar else "agg"
        case Select(keep=True):
            return "with_columns"
        case _:
            return _KINDS[type(node)]


def _details(topology: Topology, node: Node, plan: NodePlan) -> dict[str, Any]:  # noqa: C901  # one case a kind of node
    match node:
        case Source():
            return {
                "topic": node.topic,
                "key": "bytes | None" if node.key_type is None else key_serde(node.key_type).name,
                "value": value_serde(node.value_type).name,
                **_event_time(node.event_time),
                **(
                    {}
                    if topology.graph.policies()[node.topic] == "fail"
                    else {"on_error": topology.graph.policies()[node.topic]}
                ),
            }
        case Map():
            return {} if node.calls is None else _async(node.calls)
        case Filter(predicate=predicate, negate=negate):
            kept = str(predicate) if isinstance(predicate, pl.Expr) else ""
            return {"not" if negate else "only": kept} if kept or negate else {}
        case Select():
            return {"columns": list(plan.schema or ())}
        case Typed():
            return {"value": value_serde(node.value_type).name}
        case KeyBy():
            key = {} if callable(node.key) and not isinstance(node.key, pl.Expr) else {"column": str(node.key)}
            shuffled = any(one.name == node.name for one in topology.repartitions)
            return {**key, "key": key_serde(plan.key_type).name} | ({} if shuffled else {"shuffle": "none"})
        case Window():
            window = node.window
            sizes = {"tumbling_ms": window.size_ms}
            if isinstance(window, Hopping):
                sizes = {"hopping_ms": window.size_ms, "advance_ms": window.advance_ms}
            return {**sizes, "grace_ms": window.grace_ms, "emit": node.emit}
        case Process():
            return _processing(topology, node, plan)
        case Aggregation():
            return _folding(node) | {"emit": node.emit} | _kept(topology, node)
        case Latest():
            return {"changelog": _store(topology, node).changelog_topic}
        case Join() | TableJoin():
            return {"order": node.order}
        case Sink():
            return {"topic": node.topic}
        case _:
            return {}


def _processing(topology: Topology, node: Process, plan: NodePlan) -> dict[str, Any]:
    said: dict[str, Any] = {"rekeys": key_serde(plan.key_type).name} if node.rekeys else {}
    if node.order != "log":
        said["order"] = node.order
    if node.punctuations:
        said["punctuate"] = list(map(_schedule, node.punctuations))
    if node.stores:
        own = {store.name: store for sub in topology.sub_topologies for store in sub.stores}
        said["stores"] = [store.name for store in node.stores]
        said["changelogs"] = [own[store.name].changelog_topic for store in node.stores]
    return said


def _schedule(punctuation: Punctuation) -> str:
    return f"{punctuation.name} every {duration_text(punctuation.every_ms)} of event time"


def _async(calls: AsyncCalls) -> dict[str, Any]:
    said = {"async": f"{calls.at_once} at once", "deadline_ms": calls.deadline_ms, "attempts": calls.attempts}
    return said | ({"backoff_ms": calls.backoff_ms} if calls.attempts > 1 else {})


def _event_time(event_time: EventTime) -> dict[str, Any]:
    field = event_time.field
    said: dict[str, Any] = {
        "timestamp": "record's own" if field is None else field if isinstance(field, str) else "a function"
    }
    return said | ({"out_of_orderness_ms": event_time.out_of_orderness_ms} if event_time.out_of_orderness_ms else {})


def _folding(node: Aggregation) -> dict[str, Any]:
    how = node.how
    if isinstance(how, Fold):
        return {"merge": "none" if how.merge is None else getattr(how.merge, "__name__", "a function")}
    if isinstance(how, Reduce):
        return {"order": "any" if how.commutative else "as it came"}
    columns = [f"{name} = {aggregate_text(one, one.column)}" for name, one in how.aggregates.items()]
    return {} if how.scalar else {"columns": columns}


def aggregate_text(one: Aggregate, column: str | None) -> str:
    """Return an aggregate with all that its results depend on, near to what its author wrote.

    Args:
        one: The aggregate.
        column: What is to stand for its column.
    """
    said = [] if column is None else [column]
    if one.by is not None:
        said.append(f"by={one.by}")
    if one.limit:
        said.append(f"k={one.limit}" if one.kind == "top_k" else f"limit={one.limit}")
    if one.kind in ("var", "std"):
        said.append(f"ddof={one.ddof}")
    if one.kind == "approx_distinct":
        return f"distinct({', '.join(said)}, approx=True)"
    return f"{one.kind}({', '.join(said)})"


def _kept(topology: Topology, node: Aggregation) -> dict[str, Any]:
    upstream = [sub.index for sub in topology.sub_topologies if node.name in sub.combines]
    return {"changelog": _store(topology, node).changelog_topic, "combined_in": upstream}


def _store(topology: Topology, node: Node) -> StoreSpec:
    return next(store for sub in topology.sub_topologies for store in sub.stores if store.name == node.name)
