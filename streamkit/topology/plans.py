"""What is known about each node's rows: types, columns, and the spelling the node runs in."""

import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from streamkit.errors import DefinitionError
from streamkit.graph import (
    Aggregate,
    Aggregation,
    Columns,
    Filter,
    FlatMap,
    Fold,
    KeyBy,
    Late,
    LogicalGraph,
    Map,
    MapBatches,
    MapValues,
    Node,
    Peek,
    Reduce,
    Select,
    Sink,
    Source,
    ToStream,
    Typed,
    Window,
)
from streamkit.serde import schema_of
from streamkit.topology.model import NodePlan, Spelling

__all__ = ["is_stateless", "plan_node", "plan_nodes", "result_schema", "returned_type"]

Schema = Mapping[str, pl.DataType] | None


def is_stateless(node: Node) -> bool:
    """Whether a node runs as a step of a chain."""
    return isinstance(node, Map | FlatMap | Filter | Peek | MapBatches | Select | Typed | KeyBy | MapValues)


def plan_nodes(graph: LogicalGraph) -> dict[str, NodePlan]:
    """Return the plan of each node, by name.

    Raises:
        DefinitionError: An expression needs columns that are not known, or names one that is not there.
    """
    plans: dict[str, NodePlan] = {}
    for node in graph.nodes:
        plans[node.name] = plan_node(node, [plans[name] for name in node.inputs])
    return plans


def plan_node(node: Node, inputs: Sequence[NodePlan]) -> NodePlan:
    """Return the plan of one node, given those of its inputs.

    Raises:
        DefinitionError: The node does not fit its rows.
    """
    match node:
        case Source():
            return NodePlan(
                spelling="python",
                schema=schema_of(node.value_type),
                key_type=node.key_type,
                value_type=node.value_type,
            )
        case Map() | MapValues():
            made = returned_type(node.fn)
            return _like(inputs[0], value_type=made, schema=schema_of(made))
        case FlatMap():
            made = item_type(returned_type(node.fn))
            return _like(inputs[0], value_type=made, schema=schema_of(made))
        case Filter(predicate=pl.Expr() as predicate):
            _columns_after(node.name, inputs[0].schema, lambda frame: frame.select(predicate))
            return _like(inputs[0], spelling="columns")
        case Select():
            keep, expressions = node.keep, list(node.expressions)
            schema = _columns_after(
                node.name,
                inputs[0].schema,
                lambda frame: frame.with_columns(expressions) if keep else frame.select(expressions),
            )
            return _like(inputs[0], spelling="columns", value_type=None, schema=schema)
        case MapBatches():
            _columns_after(node.name, inputs[0].schema, lambda frame: frame)
            return _like(inputs[0], spelling="columns", value_type=None, schema=None)
        case Typed():
            return _like(inputs[0], value_type=node.value_type, schema=schema_of(node.value_type))
        case KeyBy():
            key = node.key
            if not callable(key) or isinstance(key, pl.Expr):
                expression = pl.col(key) if isinstance(key, str) else key
                _columns_after(node.name, inputs[0].schema, lambda frame: frame.select(expression))
                return _like(inputs[0], spelling="columns", key_type=node.key_type)
            return _like(inputs[0], key_type=node.key_type)
        case Aggregation():
            return _aggregation(node, inputs[0])
        case ToStream() | Late():
            return _like(inputs[0], windowed=False)
        case Sink():
            return _like(inputs[0])
        case Window():
            return _like(inputs[0], windowed=True)
        case _:
            return _merged(inputs)


def _merged(inputs: Sequence[NodePlan]) -> NodePlan:
    first = inputs[0]
    same = all(one.value_type == first.value_type and one.schema == first.schema for one in inputs)
    return first if same else _like(first, value_type=None, schema=None)


def _like(plan: NodePlan, **changes: Any) -> NodePlan:
    kept = {"schema": plan.schema, "key_type": plan.key_type, "value_type": plan.value_type, "windowed": plan.windowed}
    return NodePlan(**{"spelling": "python", **kept, **changes})


def _aggregation(node: Aggregation, upstream: NodePlan) -> NodePlan:
    windowed = upstream.windowed
    match node.how:
        case Fold() as how:
            return _like(upstream, value_type=how.accumulator_type, schema=schema_of(how.accumulator_type))
        case Reduce() as how:
            return _like(upstream, value_type=how.value_type, schema=schema_of(how.value_type))
        case Columns() as how:
            spelling: Spelling = "columns" if upstream.schema is not None else "python"
            schema = result_schema(node.name, how.aggregates, upstream.schema) if upstream.schema is not None else None
            if how.scalar:
                return _like(upstream, spelling=spelling, value_type=int, schema=None, windowed=windowed)
            return _like(upstream, spelling=spelling, value_type=None, schema=schema, windowed=windowed)


def result_schema(node: str, aggregates: Mapping[str, Aggregate], schema: Mapping[str, pl.DataType]) -> Schema:
    """Return the columns that `agg` makes."""
    made: dict[str, pl.DataType] = {}
    for name, one in aggregates.items():
        if one.column is None:
            made[name] = pl.Int64()
            continue
        if one.column not in schema:
            raise DefinitionError(
                f"{node!r} aggregates {one.column!r}, which its rows do not have",
                detail=f"they have {', '.join(schema)}",
            )
        made[name] = pl.Float64() if one.kind == "mean" else schema[one.column]
    return made


def _columns_after(node: str, schema: Schema, made: Callable[[pl.LazyFrame], pl.LazyFrame]) -> Schema:
    if schema is None:
        raise DefinitionError(
            f"{node!r} works on columns, but what its rows are is not known",
            hint="say it: value=Type on the stream, or .typed(Type) before this node",
        )
    try:
        return dict(made(pl.LazyFrame(schema=dict(schema))).collect_schema())
    except pl.exceptions.PolarsError as cause:
        raise DefinitionError(
            f"{node!r} does not fit its rows: {cause}", detail=f"they have {', '.join(schema)}"
        ) from cause


def returned_type(fn: Callable[..., Any]) -> Any:
    """Return the annotated return type of a function, None if there is none that says anything."""
    if isinstance(fn, type):
        return fn
    try:
        hint = typing.get_type_hints(fn).get("return")
    except (NameError, TypeError, AttributeError):
        return None
    return None if hint in (Any, object, type(None)) else hint


def item_type(hint: Any) -> Any:
    """Return what an iterable of the annotated type yields, None if unknown."""
    arguments = typing.get_args(hint)
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], type) else None
