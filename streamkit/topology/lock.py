"""The topology lock: what of a job its state depends on, as a value that is committed beside the job module. Pure.

Not here: what a difference means (`changes`), reading and writing the file (`cli`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec
import polars as pl

from streamkit.errors import ConfigError
from streamkit.graph import (
    Aggregation,
    Columns,
    Join,
    KeyBy,
    Latest,
    LogicalGraph,
    Node,
    Sink,
    Source,
    TableJoin,
    Window,
)
from streamkit.graph.nodes import Process
from streamkit.serde import key_serde, value_serde
from streamkit.serde.schema import fields_of
from streamkit.topology.describing import aggregate_text, describe
from streamkit.topology.description import NodeDescription
from streamkit.topology.model import Topology
from streamkit.topology.processing import store_users

__all__ = [
    "Lock",
    "LockedJoin",
    "LockedShuffle",
    "LockedSource",
    "LockedStore",
    "LockedTask",
    "LockedWindow",
    "lock_of",
]

FORMAT: Final = 1

_Described: TypeAlias = Mapping[str, NodeDescription]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedSource:
    """How a topic's records are read."""

    key: str
    value: str
    timestamp: str
    out_of_orderness_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedWindow:
    """The windows of a store, in ms; `advance_ms` is the size where they do not overlap."""

    size_ms: int
    advance_ms: int
    grace_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedStore:
    """What a store holds, and how its keys come to it.

    Args:
        kind: The verb that made it.
        key: Type of its keys.
        value: What is stored for a key: a type with its fields, or the aggregates with their columns.
        window: None keeps a key for ever.
        emit: Of its table.
        shuffle: The node that places its keys; None leaves them in the partitions of the source.
        sources: The topics whose records reach it, through other stores too.
    """

    kind: str
    key: str
    value: str
    window: LockedWindow | None
    emit: str
    shuffle: str | None
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedShuffle:
    """A shuffle: `by` is a column or an expression, or says that it is a function, into which nobody can look.

    `whole`: of rows, and not of partial results.
    """

    topic: str
    shards: int
    key: str
    by: str
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedJoin:
    """What a join brings together, and in which order it takes their rows."""

    sides: tuple[str, ...]
    order: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedTask:
    """A sub-topology; its place in the list is the first part of its tasks' ids."""

    inputs: tuple[str, ...]
    stores: tuple[str, ...]
    shuffles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A topology as it is compared: two that are equal run on each other's state.

    `nodes` are the others, by name: kind, inputs and what they have to say.
    """

    format: int = FORMAT
    job: str
    sources: Mapping[str, LockedSource]
    stores: Mapping[str, LockedStore]
    shuffles: Mapping[str, LockedShuffle]
    tasks: tuple[LockedTask, ...]
    sinks: tuple[str, ...]
    nodes: Mapping[str, str]
    joins: Mapping[str, LockedJoin] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the file's contents: the same topology always gives the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, file: str) -> "Lock":
        """Read a file's contents.

        Raises:
            ConfigError: It is no lock, or of another format.
        """
        hint = f"delete {file} and write it anew with streamkit lock"
        try:
            lock = msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as cause:
            raise ConfigError(f"{file} is no topology lock: {cause}", hint=hint) from cause
        if lock.format != FORMAT:
            raise ConfigError(f"{file} is a topology lock of format {lock.format}, this is {FORMAT}", hint=hint)
        return lock


def lock_of(topology: Topology) -> Lock:
    """Return what of a topology its state depends on."""
    graph, described = topology.graph, describe(topology).nodes
    repartitions = {one.name: one for one in topology.repartitions}
    shuffled = {name: one.name for one in topology.repartitions for name in one.aggregations}
    own = (Source, Sink, Aggregation, Window, Latest, Join, TableJoin)
    return Lock(
        job=topology.job,
        sources={node.topic: _source(node) for node in graph.nodes if isinstance(node, Source)},
        stores={
            node.name: _store(topology, node, shuffled.get(node.name), described[node.name])
            for node in graph.nodes
            if isinstance(node, Aggregation)
        }
        | {node.name: _table(topology, node) for node in graph.nodes if isinstance(node, Latest)}
        | {name: _shared_store(topology, name, users, shuffled) for name, users in store_users(graph).items()},
        shuffles={
            name: LockedShuffle(
                topic=one.topic,
                shards=one.shards,
                key=key_serde(topology.plans[name].key_type).name,
                by=_key_text(graph.node(name)),
                whole=one.whole,
            )
            for name, one in repartitions.items()
        },
        tasks=tuple(
            LockedTask(
                inputs=tuple(sorted([*sub.source_topics, *(repartitions[name].topic for name in sub.repartitions_in)])),
                stores=tuple(sorted(store.name for store in sub.stores)),
                shuffles=tuple(sorted(sub.repartitions_out)),
            )
            for sub in topology.sub_topologies
        ),
        sinks=tuple(sorted({node.topic for node in graph.nodes if isinstance(node, Sink)})),
        nodes={
            node.name: _node_text(described[node.name])
            for node in graph.nodes
            if not isinstance(node, own) and node.name not in repartitions
        },
        joins={
            node.name: LockedJoin(sides=node.inputs, order=node.order)
            for node in graph.nodes
            if isinstance(node, Join | TableJoin)
        },
    )


def _source(node: Source) -> LockedSource:
    field = node.event_time.field
    return LockedSource(
        key="bytes | None" if node.key_type is None else key_serde(node.key_type).name,
        value=_value_text(node.value_type),
        timestamp="the record's own" if field is None else field if isinstance(field, str) else "a function",
        out_of_orderness_ms=node.event_time.out_of_orderness_ms,
    )


def _store(topology: Topology, node: Aggregation, shuffle: str | None, described: NodeDescription) -> LockedStore:
    upstream = topology.graph.node(node.inputs[0])
    window = upstream.window if isinstance(upstream, Window) else None
    return LockedStore(
        kind=described.kind,
        key=key_serde(topology.plans[node.inputs[0]].key_type).name,
        value=_stored_text(topology, node),
        window=None
        if window is None
        else LockedWindow(size_ms=window.size_ms, advance_ms=window.advance_ms, grace_ms=window.grace_ms),
        emit=node.emit,
        shuffle=shuffle,
        sources=tuple(sorted(_topics_above(topology.graph, node))),
    )


def _table(topology: Topology, node: Latest) -> LockedStore:
    plan = topology.plans[node.name]
    return LockedStore(
        kind="table",
        key=key_serde(plan.key_type).name,
        value=_value_text(plan.value_type),
        window=None,
        emit="update",
        shuffle=None,
        sources=tuple(sorted(_topics_above(topology.graph, node))),
    )


def _shared_store(topology: Topology, name: str, users: Sequence[Process], shuffled: Mapping[str, str]) -> LockedStore:
    """Return a store of `process`: what its functions do with it nobody can see."""
    store = next(store for store in users[0].stores if store.name == name)
    return LockedStore(
        kind="process",
        key=key_serde(store.key_type).name,
        value=_value_text(store.value_type),
        window=None,
        emit="no",
        shuffle=next((shuffled[node.name] for node in users if node.name in shuffled), None),
        sources=tuple(sorted({topic for node in users for topic in _topics_above(topology.graph, node)})),
    )


def _topics_above(graph: LogicalGraph, node: Node) -> set[str]:
    if isinstance(node, Source):
        return {node.topic}
    return {topic for name in node.inputs for topic in _topics_above(graph, graph.node(name))}


def _stored_text(topology: Topology, node: Aggregation) -> str:
    """Return what a store keeps for a key: partial results depend on each column's type."""
    if not isinstance(node.how, Columns):
        return _value_text(topology.plans[node.name].value_type)
    schema = topology.plans[node.inputs[0]].schema or {}
    made = []
    for name, one in node.how.aggregates.items():
        dtype = schema.get(one.column) if one.column is not None else None
        column = one.column if dtype is None else f"{one.column}: {dtype}"
        made.append(f"{name} = {aggregate_text(one, column)}")
    return ", ".join(made)


def _value_text(value_type: Any) -> str:
    """Return a type's name, with its fields if it has some."""
    name = value_serde(value_type).name
    fields = fields_of(value_type) if value_type is not None else None
    if not fields:
        return name
    said = [f"{one.encoded_name}: {one.dtype if one.dtype is not None else _info_text(one.info)}" for one in fields]
    return f"{name}({', '.join(said)})"


def _info_text(info: msgspec.inspect.Type) -> str:
    return type(info).__name__.removesuffix("Type").lower()


def _key_text(node: Node) -> str:
    assert isinstance(node, KeyBy), "a shuffle is made by a change of key"
    return str(node.key) if isinstance(node.key, str | pl.Expr) else "a function"


def _node_text(described: NodeDescription) -> str:
    details = [f"{name} {value}" for name, value in described.details.items()]
    return ", ".join([f"{described.kind} of {' and '.join(described.inputs)}", *details])
