"""Makes nodes from what an operator was given, and refuses what does not fit; adds nothing to the job."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar, cast, get_args

import polars as pl

from streamkit.dsl.accumulators import accumulator_type
from streamkit.dsl.builder import Builder
from streamkit.dsl.handle import Handle
from streamkit.dsl.names import asynchronous, check_function, doc_of, durable_name, function_name
from streamkit.dsl.row_wise import check_row_wise
from streamkit.errors import DefinitionError
from streamkit.graph import (
    Aggregate,
    Aggregation,
    AnyWindow,
    AsyncCalls,
    Columns,
    Emit,
    Filter,
    FlatMap,
    Fold,
    Hopping,
    Join,
    KeyBy,
    Latest,
    Map,
    MapBatches,
    MapValues,
    Merge,
    Node,
    Peek,
    Reduce,
    Select,
    TableJoin,
    ToStream,
    Tumbling,
    Typed,
    Window,
)
from streamkit.graph.nodes import Order

__all__ = [
    "How",
    "aggregation_node",
    "calling_node",
    "check_can_delete",
    "columns_by",
    "counting",
    "facts_node",
    "filter_node",
    "fold_by",
    "join_node",
    "key_node",
    "map_node",
    "merge_node",
    "node_name",
    "reduce_by",
    "select_node",
    "typed_node",
    "window_node",
    "window_of",
]

_SHARDS_MAX = 100_000

_CALLING: Final = {"flat_map": FlatMap, "map_batches": MapBatches, "map_values": MapValues, "peek": Peek}

How: TypeAlias = Fold | Reduce | Columns
JoinNode = TypeVar("JoinNode", Join, TableJoin)


def node_name(job: Builder, kind: str, fn: Any, name: str | None) -> str:
    """Return the name of a node that owns nothing durable: a function's, or a fresh one.

    Only functions of Python code lend their name: a class or `str.split` would clash with its next use.
    """
    own = function_name(fn) if hasattr(fn, "__code__") else None
    return name or own or job.fresh_name(kind)


def calling_node(verb: str, rows: Handle, fn: Any, name: str | None) -> Node:
    """Return a node that calls a plain function and owns nothing durable."""
    check_function(fn, verb)
    return _CALLING[verb](name=node_name(rows.job, verb, fn, name), inputs=(rows.name,), fn=fn, doc=doc_of(fn))


def typed_node(rows: Handle, value_type: Any) -> Typed:
    """Return a statement of what rows are."""
    return Typed(name=rows.job.fresh_name("typed"), inputs=(rows.name,), value_type=value_type)


def filter_node(job: Builder, kind: str, upstream: str, predicate: Any, name: str | None) -> Filter:
    """Return a filter by a function or an expression."""
    if isinstance(predicate, pl.Expr):
        check_row_wise(predicate, kind)
    else:
        check_function(predicate, kind)
    return Filter(
        name=node_name(job, kind, predicate, name), inputs=(upstream,), predicate=predicate, doc=doc_of(predicate)
    )


def map_node(job: Builder, upstream: str, fn: Any, name: str | None, calls: AsyncCalls | None) -> Map:
    """Return a map by a plain function, or by an async one with the way it is called."""
    if calls is not None and not isinstance(calls, AsyncCalls):
        raise DefinitionError(f"calls= of map takes AsyncCalls, not {calls!r}")
    if asynchronous(fn):
        calls = AsyncCalls() if calls is None else calls
    else:
        check_function(fn, "map")
        if calls is not None:
            raise DefinitionError(
                f"map got calls= for {getattr(fn, '__name__', fn)!r}, which is no async function",
                hint="define it with async def, or leave calls= out",
            )
    return Map(name=node_name(job, "map", fn, name), inputs=(upstream,), fn=fn, calls=calls, doc=doc_of(fn))


def merge_node(job: Builder, streams: Sequence[Handle]) -> Merge:
    """Return the merge of several streams of one job."""
    for stream in streams:
        job.check_own(stream)
    inputs = tuple(stream.name for stream in streams)
    if len(set(inputs)) != len(inputs) or len(inputs) == 1:
        raise DefinitionError("merge needs two or more different streams")
    return Merge(name=job.fresh_name("merge"), inputs=inputs)


def join_node(kind: type[JoinNode], sides: tuple[Handle, Handle], fn: Any, name: str | None, order: str) -> JoinNode:
    """Return the join of a stream or a table with a table."""
    one, other = sides
    one.job.check_own(other)
    check_function(fn, "join")
    if order not in get_args(Order):
        raise DefinitionError(f'order={order!r} of join is neither "log" nor "arrival"')
    tables = sides if kind is TableJoin else sides[1:]
    for table in tables:
        if window_of(one.job, table.name) is not None:
            raise DefinitionError(
                f"{table.name!r} cannot be joined: its keys are windows",
                hint="take its final results as facts with to_stream(), and join those with a table",
            )
    named = node_name(one.job, "join", fn, name)
    return kind(name=named, inputs=(one.name, other.name), fn=fn, order=cast(Order, order), doc=doc_of(fn))


def window_node(job: Builder, upstream: str, window: AnyWindow, emit: Emit) -> Window:
    """Return a cut into windows."""
    if not isinstance(window, Tumbling | Hopping):
        raise DefinitionError(f"window takes a Tumbling or a Hopping, not {window!r}")
    if emit not in ("final", "update"):
        raise DefinitionError(f'emit={emit!r} is neither "final" nor "update"')
    return Window(name=job.fresh_name("window"), inputs=(upstream,), window=window, emit=emit)


def window_of(job: Builder, table: str) -> Window | None:
    """Return the windows of a table, None if it has none."""
    node = job.node(table)
    while not isinstance(node, Aggregation):
        if isinstance(node, Latest | TableJoin):
            return None
        node = job.node(node.inputs[0])
    upstream = job.node(node.inputs[0])
    return upstream if isinstance(upstream, Window) else None


def check_can_delete(job: Builder, table: str) -> None:
    """Refuse to filter a table whose rows that fail could not be deleted downstream."""
    window = window_of(job, table)
    if window is not None and window.emit != "final":
        raise DefinitionError(
            f"{table!r} cannot be filtered: its windows are updated",
            detail="one that passed and then fails would have to be deleted, by the key of all windows",
            hint='use emit="final", or filter where the topic is read',
        )


def reduce_by(rows: Handle, fn: Any, *, commutative: bool) -> Reduce:
    """Return a fold by one function of two values."""
    check_function(fn, "reduce")
    return Reduce(fn=fn, commutative=commutative, value_type=rows.job.plan(rows.name).value_type)


def fold_by(fn: Any, initial: Callable[[], Any], merge: Callable[[Any, Any], Any] | None, name: str) -> Fold:
    """Return a fold into an accumulator."""
    check_function(fn, "aggregate")
    if merge is not None:
        check_function(merge, f"merge= of {name!r}")
    return Fold(fn=fn, initial=initial, merge=merge, accumulator_type=accumulator_type(initial, name))


def counting() -> Columns:
    """Return a fold that counts rows."""
    return Columns(aggregates={"value": Aggregate("count")}, scalar=True)


def columns_by(columns: Mapping[str, Aggregate], name: str) -> Columns:
    """Return a fold by built-in aggregates."""
    if not columns or not all(isinstance(one, Aggregate) for one in columns.values()):
        raise DefinitionError(
            f"agg of {name!r} takes names and built-in aggregates", hint='agg({"n": agg.count()}, name="...")'
        )
    return Columns(aggregates=dict(columns))


def aggregation_node(upstream: str, how: How, emit: Emit, name: str, fn: Any) -> Aggregation:
    """Return the node that folds, and owns a store."""
    return Aggregation(name=name, inputs=(upstream,), how=how, emit=emit, doc=doc_of(fn))


def facts_node(job: Builder, table: str) -> ToStream:
    """Return what takes the final results of windows as facts."""
    window = window_of(job, table)
    if window is None or window.emit != "final":
        raise DefinitionError(
            f"{table!r} cannot become a stream: updates are not facts",
            detail="how many updates there are depends on commits",
            hint='use a window with emit="final", or write the table to a topic',
        )
    return ToStream(name=job.fresh_name(f"{table}_stream"), inputs=(table,))


def select_node(job: Builder, kind: str, upstream: str, columns: tuple[Any, ...], *, keep: bool) -> Select:
    """Return a selection of columns, named or computed."""
    if not columns:
        raise DefinitionError(f"{kind} needs at least one column")
    expressions = tuple(pl.col(column) if isinstance(column, str) else column for column in columns)
    for expression in expressions:
        if not isinstance(expression, pl.Expr):
            raise DefinitionError(f"{kind} takes columns and expressions, not {expression!r}")
        check_row_wise(expression, kind)
    return Select(name=job.fresh_name(kind), inputs=(upstream,), expressions=expressions, keep=keep)


def key_node(verb: str, rows: Handle, key: Any, *, type: Any, name: str | None, shards: int) -> KeyBy:
    """Return a change of key: by a function, a column's name or an expression."""
    if not 1 <= shards <= _SHARDS_MAX:
        raise DefinitionError(f"shards={shards} of {verb} is not between 1 and {_SHARDS_MAX:,}")
    fn = None
    if isinstance(key, pl.Expr):
        check_row_wise(key, verb)
    elif not isinstance(key, str):
        check_function(key, verb)
        fn = key
    durable = durable_name(fn, name, verb)
    if type is None:
        type = rows.job.column_type(rows.name, key) if fn is None else rows.job.returned(fn)
    # A key of unknown type is JSON; None would mean raw bytes.
    known = Any if type is None else type
    return KeyBy(name=durable, inputs=(rows.name,), key=key, key_type=known, shards=shards, doc=doc_of(fn))
