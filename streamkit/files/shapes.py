"""What the records of a sink look like, as far as the job says: decided before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import polars as pl

from streamkit.errors import ConfigError
from streamkit.graph import Aggregation, Columns, Filter, Latest, MapValues, Node, Sink, TableJoin, ToStream, Typed
from streamkit.serde import UserSerde, dtype_of
from streamkit.serde.schema import fields_of
from streamkit.topology import Topology

__all__ = ["BESIDE", "WINDOW_BOUNDS", "SinkShape", "check_columns", "columns_beside", "flattened", "sink_shapes"]

ValueForm: TypeAlias = Literal["json", "text", "bytes"]

WINDOW_BOUNDS: Final = ("window_start", "window_end")
BESIDE: Final[Mapping[str, pl.DataType]] = {"key": pl.String(), "timestamp_ms": pl.Int64()}
"""The columns beside the value's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkShape:
    """Of one sink.

    Args:
        integer_key: Whether keys are integers; else they are text.
        form: What the bytes of a value are.
        dtype: Of the JSON of a value; None if the job does not say.
        nested: Whether the value of a windowed result lies below `value`, beside the window's bounds.
        latest: Whether a record replaces those before it that have its key (and window): the sink of a table.
    """

    integer_key: bool
    form: ValueForm
    dtype: pl.DataType | None
    nested: bool
    latest: bool


def sink_shapes(topology: Topology) -> dict[str, SinkShape]:
    """Return the shape of each sink topic; where two sinks that write one topic differ, as little as is sure."""
    shapes: dict[str, SinkShape] = {}
    for node in topology.graph.nodes:
        if isinstance(node, Sink):
            shape = _shape(topology, node)
            other = shapes.get(node.topic, shape)
            shapes[node.topic] = shape if other == shape else _common(shape, other)
    return shapes


def flattened(dtype: pl.DataType, *, nested: bool) -> dict[str, pl.DataType]:
    """Return the columns that a value becomes: the fields of an object, or `value`."""
    if not isinstance(dtype, pl.Struct):
        return {"value": dtype}
    columns: dict[str, pl.DataType] = {}
    for field in dtype.fields:
        of_field: pl.DataType = field.dtype  # type: ignore[assignment]  # an instance, as the frame's own are
        columns |= flattened(of_field, nested=False) if nested and field.name == "value" else {field.name: of_field}
    return columns


def columns_beside(shape: SinkShape) -> Mapping[str, pl.DataType]:
    """Return the columns that a value becomes, as far as the job says."""
    return {} if shape.dtype is None else flattened(shape.dtype, nested=shape.nested)


def check_columns(topic: str, columns: Mapping[str, pl.DataType]) -> None:
    """Check that no field of a value bears the name of a column beside it.

    Raises:
        ConfigError: One does.
    """
    for name in BESIDE:
        if name in columns:
            raise ConfigError(
                f"the values of {topic!r} have a field {name!r}, and so is a column beside them called",
                hint="write this output to .jsonl, where a value is an object by itself, or rename the field",
            )


def _shape(topology: Topology, sink: Sink) -> SinkShape:
    plan = topology.plans[sink.name]
    form = _form(plan.value_type) if not plan.windowed else "json"
    dtype = _dtype(plan.value_type) if plan.schema is None or plan.value_type is not None else None
    if dtype is None and plan.value_type is None and plan.schema:
        dtype = pl.Struct(dict(plan.schema))
    flat = _is_flat(topology, sink)
    if plan.windowed and dtype is not None:
        bounds = dict.fromkeys(WINDOW_BOUNDS, pl.Int64())
        inner = {field.name: field.dtype for field in dtype.fields} if isinstance(dtype, pl.Struct) else {}
        dtype = pl.Struct({**bounds, **(inner if flat else {"value": dtype})})
    return SinkShape(
        integer_key=plan.key_type is int,
        form=form,
        dtype=dtype if form == "json" else None,
        nested=plan.windowed and not flat,
        latest=_is_updated(_node_behind(topology, sink, (MapValues, Filter, Typed))),
    )


def _common(one: SinkShape, other: SinkShape) -> SinkShape:
    return SinkShape(
        integer_key=one.integer_key and other.integer_key,
        form=one.form if one.form == other.form else "bytes",
        dtype=None,
        nested=one.nested and other.nested,
        latest=one.latest and other.latest,
    )


def _form(type_: Any) -> ValueForm:
    if type_ in (str, str | None):
        return "text"
    return "bytes" if type_ in (bytes, bytes | None) or _is_serde(type_) else "json"


def _is_serde(type_: Any) -> bool:
    return not isinstance(type_, type) and isinstance(type_, UserSerde)


def _dtype(type_: Any) -> pl.DataType | None:
    """Return the type of the JSON of a value, None where a field's name in JSON is another, or nothing is declared."""
    if type_ is None or _is_serde(type_) or any(field.name != field.encoded_name for field in fields_of(type_) or ()):
        return None
    return dtype_of(type_)


def _is_flat(topology: Topology, sink: Sink) -> bool:
    """Whether a windowed value's columns stand beside the window's, as the sink operator has it."""
    node = _node_behind(topology, sink, (Filter, Typed, ToStream))
    return isinstance(node, Aggregation) and isinstance(node.how, Columns) and not node.how.scalar


def _is_updated(node: Node) -> bool:
    """Whether a node is a table whose values take the place of earlier ones."""
    return isinstance(node, Latest | TableJoin) or (isinstance(node, Aggregation) and node.emit == "update")


def _node_behind(topology: Topology, sink: Sink, through: tuple[type[Node], ...]) -> Node:
    """Return the node whose rows a sink writes, seen through nodes of some kinds."""
    node = topology.graph.node(sink.inputs[0])
    while isinstance(node, through):
        node = topology.graph.node(node.inputs[0])
    return node
