"""What is known about each node's rows: types, columns, and the spelling the node runs in."""

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import polars as pl

from streamkit.errors import DefinitionError
from streamkit.graph import (
    Aggregation,
    Columns,
    Filter,
    FlatMap,
    Fold,
    Join,
    KeyBy,
    Late,
    Latest,
    LogicalGraph,
    Map,
    MapBatches,
    MapValues,
    Merge,
    Node,
    Peek,
    Select,
    Source,
    TableJoin,
    ToStream,
    Typed,
    Window,
)
from streamkit.graph.nodes import Process
from streamkit.records import Record
from streamkit.serde import dtype_of, key_serde, schema_of, value_serde
from streamkit.serde.schema import fields_of
from streamkit.topology.aggregates import check_aggregates, result_schema
from streamkit.topology.model import NodePlan, Spelling

__all__ = ["check_key_type", "filters_updates", "is_stateless", "plan_node", "plan_nodes", "returned_type"]

Schema: TypeAlias = Mapping[str, pl.DataType] | None

_UNORDERED: Final = (set, frozenset, dict)


def is_stateless(node: Node) -> bool:
    """Whether a node runs as a step of a chain."""
    return isinstance(node, Map | FlatMap | Filter | Peek | MapBatches | Select | Typed | KeyBy | MapValues)


def filters_updates(graph: LogicalGraph, node: Node) -> bool:
    """Whether a node filters a table whose results are updates: it deletes keys, so it is no step of a chain."""
    if not isinstance(node, Filter):
        return False
    upstream = graph.node(node.inputs[0])
    while isinstance(upstream, MapValues | Filter | Typed):
        upstream = graph.node(upstream.inputs[0])
    return isinstance(upstream, Latest | TableJoin) or (isinstance(upstream, Aggregation) and upstream.emit == "update")


def plan_nodes(graph: LogicalGraph) -> dict[str, NodePlan]:
    """Return the plan of each node, by name.

    Raises:
        DefinitionError: An expression needs columns that are not known, or names one that is not there.
    """
    plans: dict[str, NodePlan] = {}
    for node in graph.nodes:
        plans[node.name] = plan_node(node, [plans[name] for name in node.inputs])
    return plans


def plan_node(node: Node, inputs: Sequence[NodePlan]) -> NodePlan:  # noqa: C901  # one case a kind of node
    """Return the plan of one node, given those of its inputs.

    Raises:
        DefinitionError: The node does not fit its rows.
    """
    match node:
        case Source():
            return NodePlan(
                spelling="python",
                schema=schema_of(node.value_type) or _scalar_schema(node.value_type),
                key_type=node.key_type,
                value_type=node.value_type,
            )
        case Map() | MapValues():
            return _of_type(inputs[0], returned_type(node.fn))
        case FlatMap():
            return _of_type(inputs[0], item_type(returned_type(node.fn)))
        case Filter(predicate=pl.Expr() as predicate):
            made = _columns_after(node.name, inputs[0].schema, lambda frame: frame.select(predicate))
            _check_predicate(node.name, made)
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
            return _typed(node, inputs[0])
        case KeyBy():
            return _keyed(node, inputs[0])
        case Process():
            return _processed(node, inputs[0])
        case Aggregation():
            return _aggregation(node, inputs[0])
        case ToStream() | Late():
            return _like(inputs[0], windowed=False)
        case Window():
            return _like(inputs[0], windowed=True)
        case Merge():
            return _merged(node, inputs)
        case Join() | TableJoin():
            return _joined(node, inputs)
        case _:
            return _like(inputs[0])


def _scalar_schema(type_: Any) -> Schema:
    """Return the one column of values that are text; of other scalars none is known."""
    return {"value": pl.String()} if type_ is str else None


def _like(plan: NodePlan, **changes: Any) -> NodePlan:
    kept = {"schema": plan.schema, "key_type": plan.key_type, "value_type": plan.value_type, "windowed": plan.windowed}
    return NodePlan(**{"spelling": "python", **kept, **changes})


def _of_type(plan: NodePlan, value_type: Any) -> NodePlan:
    """Return the plan of rows of a type; one without a serde may live between two nodes, its rows are then unknown."""
    try:
        value_serde(value_type)
    except DefinitionError:
        value_type = None
    return _like(plan, value_type=value_type, schema=schema_of(value_type))


def _typed(node: Typed, upstream: NodePlan) -> NodePlan:
    value_serde(node.value_type)
    known, stated = upstream.schema, schema_of(node.value_type)
    if known is not None and stated is not None and dict(known) != stated:
        raise DefinitionError(
            f".typed({node.value_type.__name__}) does not fit the rows of {node.inputs[0]!r}",
            detail=f"they have {_shown(known)}; it states {_shown(stated)}",
        )
    return _like(upstream, value_type=node.value_type, schema=stated)


def _merged(node: Merge, inputs: Sequence[NodePlan]) -> NodePlan:
    first = inputs[0]
    if any(one.key_type != first.key_type for one in inputs):
        raise DefinitionError(
            f"{node.name!r} merges streams whose keys are of different types",
            detail=", ".join(
                f"{name}: {key_serde(one.key_type).name}" for name, one in zip(node.inputs, inputs, strict=True)
            ),
            hint="give the sources the same key=, or key_by() before merge()",
        )
    same = all(one.value_type == first.value_type and one.schema == first.schema for one in inputs)
    return _like(first) if same else _like(first, value_type=None, schema=None)


def _joined(node: Join | TableJoin, inputs: Sequence[NodePlan]) -> NodePlan:
    one, other = inputs
    if one.key_type != other.key_type:
        types = ["bytes | None" if side.key_type is None else key_serde(side.key_type).name for side in inputs]
        raise DefinitionError(
            f"{node.name!r} joins by keys of different types",
            detail=", ".join(f"{name}: {type_}" for name, type_ in zip(node.inputs, types, strict=True)),
            hint="the join condition is the key: give both sources the same key=",
        )
    return _of_type(one, returned_type(node.fn))


def _check_predicate(name: str, made: Mapping[str, pl.DataType]) -> None:
    if list(made.values()) != [pl.Boolean]:
        raise DefinitionError(
            f"the predicate of {name!r} is not one column of booleans",
            detail=f"it makes {_shown(made)}",
            hint='compare something: pl.col("price") > 3',
        )


def check_key_type(name: str, key_type: Any) -> None:
    """Refuse a type that cannot be a key.

    Args:
        name: Of the node or store whose keys are of it.
        key_type: None is bytes, or nothing.

    Raises:
        DefinitionError: It has no serde, or equal keys may have different bytes.
    """
    key_serde(key_type)
    if typing.get_origin(key_type) in _UNORDERED or key_type in _UNORDERED:
        raise DefinitionError(
            f"the keys of {name!r} are of type {key_serde(key_type).name}, which cannot be a key",
            detail="equal ones have different bytes, and the bytes of a key say where its rows go",
            hint="use text, a number, a tuple or a struct",
        )


def _processed(node: Process, upstream: NodePlan) -> NodePlan:
    """Return the plan of what a function yields: `Record[K, V]` says both types, K only where it may change the key."""
    record = item_type(_without_none(returned_type(node.fn)))
    key_type, value_type = typing.get_args(record) if typing.get_origin(record) is Record else (Any, Any)
    plan = _of_type(upstream, None if value_type is Any else value_type)
    if not node.rekeys:
        return plan
    # None says that keys are raw bytes, Any that they are JSON of unknown type.
    key_type = None if key_type is type(None) else key_type
    check_key_type(node.name, key_type)
    return _like(plan, key_type=key_type)


def _without_none(hint: Any) -> Any:
    """Return what a function returns where it does not return None."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    others = [one for one in typing.get_args(hint) if one is not type(None)]
    return others[0] if len(others) == 1 else None


def _keyed(node: KeyBy, upstream: NodePlan) -> NodePlan:
    check_key_type(node.name, node.key_type)
    if callable(node.key) and not isinstance(node.key, pl.Expr):
        return _like(upstream, key_type=node.key_type)
    expression = pl.col(node.key) if isinstance(node.key, str) else node.key
    made = _columns_after(node.name, upstream.schema, lambda frame: frame.select(expression))
    if len(made) != 1:
        raise DefinitionError(f"the key of {node.name!r} is not one column", detail=f"it makes {_shown(made)}")
    dtype, stated = next(iter(made.values())), dtype_of(node.key_type)
    if stated is not None and stated != dtype and not (stated.is_integer() and dtype.is_integer()):
        raise DefinitionError(
            f"the key of {node.name!r} is {dtype}, which type={key_serde(node.key_type).name} is not",
            hint="say the type of the column, or cast the expression",
        )
    return _like(upstream, spelling="columns", key_type=node.key_type)


def _aggregation(node: Aggregation, upstream: NodePlan) -> NodePlan:
    how = node.how
    if not isinstance(how, Columns):
        made = how.accumulator_type if isinstance(how, Fold) else how.value_type
        return _like(upstream, value_type=made, schema=schema_of(made))
    schema = upstream.schema
    spelling: Spelling = "python" if schema is None else "columns"
    known = _fields_by_name(upstream.value_type) if schema is None else schema
    if known is not None:
        check_aggregates(how.aggregates, known)
    if how.scalar:
        return _like(upstream, spelling=spelling, value_type=int, schema=None)
    columns = None if schema is None else result_schema(how.aggregates, schema)
    return _like(upstream, spelling=spelling, value_type=None, schema=columns)


def _fields_by_name(value_type: Any) -> Mapping[str, pl.DataType | None] | None:
    """Return the fields of rows that have no columns as a whole, None if they may have any."""
    fields = fields_of(value_type)
    if fields is not None:
        return {field.name: field.dtype for field in fields}
    return {} if value_type is not None and dtype_of(value_type) is not None else None


def _columns_after(
    node: str, schema: Schema, made: Callable[[pl.LazyFrame], pl.LazyFrame]
) -> Mapping[str, pl.DataType]:
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


def _shown(schema: Mapping[str, pl.DataType]) -> str:
    return ", ".join(f"{name}: {dtype}" for name, dtype in schema.items())


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
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if not isinstance(origin, type) or not issubclass(origin, Iterable) or issubclass(origin, Mapping):
        return None
    one = origin is not tuple or arguments[1:] == (...,)
    item = arguments[0] if one or len(set(arguments)) == 1 else None
    return None if item in (Any, object) else item
