"""Streams, groups and tables: each operator takes its function first and returns the downstream node.

Decorating is therefore just calling: `@lines.flat_map` and `lines.flat_map(str.split)` are the same call. An operator
adds one node to the job's graph and does nothing else; what does not fit is refused at once, at its own line.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, overload

import polars as pl

from streamkit.dsl.accumulators import accumulator_type
from streamkit.dsl.builder import Builder
from streamkit.dsl.handle import Handle
from streamkit.dsl.names import doc_of, durable_name, function_name, refuse_async
from streamkit.dsl.row_wise import check_row_wise
from streamkit.errors import DefinitionError
from streamkit.graph import (
    Aggregate,
    Aggregation,
    Columns,
    Emit,
    Filter,
    FlatMap,
    Fold,
    KeyBy,
    Late,
    Map,
    MapBatches,
    MapValues,
    Merge,
    Node,
    Peek,
    Reduce,
    Select,
    ToStream,
    Tumbling,
    Typed,
    Window,
)
from streamkit.records import Windowed

__all__ = ["Grouped", "Row", "Stream", "Table", "WindowedGroup"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
A = TypeVar("A")
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)

Row = dict[str, Any]


def node_name(job: Builder, kind: str, fn: Any, name: str | None) -> str:
    """Return the name of a node that owns nothing durable: a function's, or a fresh one.

    Only functions of Python code lend their name: a class or `str.split` would clash with its next use.
    """
    own = function_name(fn) if hasattr(fn, "__code__") else None
    return name or own or job.fresh_name(kind)


class Stream(Handle, Generic[K_co, V_co]):
    """Facts, in order within each partition."""

    def _add(self, node: Node, fn: Any = None) -> "Stream[Any, Any]":
        self._job.add(node)
        return Stream(self._job, node.name, fn)

    def map(self, fn: Callable[[V_co], V2], *, name: str | None = None) -> "Stream[K_co, V2]":
        """Turn each value into another."""
        refuse_async(fn, "map")
        node = Map(name=node_name(self._job, "map", fn, name), inputs=(self.name,), fn=fn, doc=doc_of(fn))
        return self._add(node, fn)

    def flat_map(self, fn: Callable[[V_co], Iterable[V2]], *, name: str | None = None) -> "Stream[K_co, V2]":
        """Turn each value into any number of values."""
        refuse_async(fn, "flat_map")
        node = FlatMap(name=node_name(self._job, "flat_map", fn, name), inputs=(self.name,), fn=fn, doc=doc_of(fn))
        return self._add(node, fn)

    def filter(self, predicate: Callable[[V_co], bool] | pl.Expr, *, name: str | None = None) -> "Stream[K_co, V_co]":
        """Keep the rows whose predicate is true."""
        return self._filter("filter", predicate, name, negate=False)

    def _filter(self, kind: str, predicate: Any, name: str | None, *, negate: bool) -> "Stream[Any, Any]":
        if isinstance(predicate, pl.Expr):
            check_row_wise(predicate, kind)
        else:
            refuse_async(predicate, kind)
        node = Filter(
            name=node_name(self._job, kind, predicate, name),
            inputs=(self.name,),
            predicate=predicate,
            negate=negate,
            doc=doc_of(predicate),
        )
        return self._add(node, predicate)

    def branch(
        self, predicate: Callable[[V_co], bool] | pl.Expr, *, name: str | None = None
    ) -> "tuple[Stream[K_co, V_co], Stream[K_co, V_co]]":
        """Split into the rows whose predicate is true and all others; the predicate is asked once for each side."""
        base = node_name(self._job, "branch", predicate, name)
        yes = self._filter("branch", predicate, base, negate=False)
        return yes, self._filter("branch", predicate, f"{base}_else", negate=True)

    def peek(self, fn: Callable[[V_co], object], *, name: str | None = None) -> "Stream[K_co, V_co]":
        """Call a function with each value; the rows go on unchanged. After a crash it may be called again."""
        refuse_async(fn, "peek")
        node = Peek(name=node_name(self._job, "peek", fn, name), inputs=(self.name,), fn=fn, doc=doc_of(fn))
        return self._add(node, fn)

    def map_batches(
        self, fn: Callable[[pl.DataFrame], pl.DataFrame], *, name: str | None = None
    ) -> "Stream[K_co, Row]":
        """Hand the frame itself to a row-wise function.

        The frame has a column `__row__`; a function that changes the number of rows must keep it, for it says which
        record each row stems from.
        """
        refuse_async(fn, "map_batches")
        node = MapBatches(
            name=node_name(self._job, "map_batches", fn, name), inputs=(self.name,), fn=fn, doc=doc_of(fn)
        )
        return self._add(node, fn)

    def select(self, *columns: str | pl.Expr) -> "Stream[K_co, Row]":
        """Make rows of the columns and expressions named."""
        return self._select("select", columns, keep=False)

    def with_columns(self, *columns: pl.Expr) -> "Stream[K_co, Row]":
        """Add or replace columns."""
        return self._select("with_columns", columns, keep=True)

    def _select(self, kind: str, columns: tuple[str | pl.Expr, ...], *, keep: bool) -> "Stream[Any, Any]":
        if not columns:
            raise DefinitionError(f"{kind} needs at least one column")
        expressions = tuple(pl.col(column) if isinstance(column, str) else column for column in columns)
        for expression in expressions:
            check_row_wise(expression, kind)
        node = Select(name=self._job.fresh_name(kind), inputs=(self.name,), expressions=expressions, keep=keep)
        return self._add(node)

    def typed(self, value: type[V2]) -> "Stream[K_co, V2]":
        """State what the rows are; checked against what is known of their columns."""
        return self._add(Typed(name=self._job.fresh_name("typed"), inputs=(self.name,), value_type=value))

    @overload
    def key_by(self, key: Callable[[V_co], K2], *, name: str | None = None, shards: int = 8) -> "Stream[K2, V_co]": ...
    @overload
    def key_by(self, key: str | pl.Expr, *, type: type[K2], name: str, shards: int = 8) -> "Stream[K2, V_co]": ...
    @overload
    def key_by(self, key: str | pl.Expr, *, name: str, shards: int = 8) -> "Stream[Any, V_co]": ...
    def key_by(self, key: Any, *, type: Any = None, name: str | None = None, shards: int = 8) -> "Stream[Any, Any]":
        """Change the key; the next node that keeps state reads a shuffle of `shards` partitions."""
        node = self._key_node("key_by", key, type, name, shards)
        return self._add(node, key)

    def _key_node(self, verb: str, key: Any, key_type: Any, name: str | None, shards: int) -> KeyBy:
        if isinstance(key, pl.Expr):
            check_row_wise(key, verb)
        if callable(key) and not isinstance(key, pl.Expr):
            refuse_async(key, verb)
        fn = key if callable(key) and not isinstance(key, pl.Expr) else None
        if not 1 <= shards <= 100_000:
            raise DefinitionError(f"shards={shards} of {verb} is not between 1 and 100,000")
        durable = durable_name(fn, name, verb)
        if fn is not None and key_type is None:
            key_type = self._job.returned(fn)
        if not callable(key) and key_type is None:
            key_type = self._job.column_type(self.name, key)
        # A key of unknown type is JSON; None would mean raw bytes.
        known = Any if key_type is None else key_type
        return KeyBy(name=durable, inputs=(self.name,), key=key, key_type=known, shards=shards, doc=doc_of(fn))

    @overload
    def group_by(
        self, key: Callable[[V_co], K2], *, name: str | None = None, shards: int = 8
    ) -> "Grouped[K2, V_co]": ...
    @overload
    def group_by(self, key: str | pl.Expr, *, type: type[K2], name: str, shards: int = 8) -> "Grouped[K2, V_co]": ...
    @overload
    def group_by(self, key: str | pl.Expr, *, name: str, shards: int = 8) -> "Grouped[Any, V_co]": ...
    def group_by(self, key: Any, *, type: Any = None, name: str | None = None, shards: int = 8) -> "Grouped[Any, Any]":
        """Shuffle by a new key: a function, a column or an expression.

        The node's name names the repartition topic `<job>-<name>-repartition`, of `shards` partitions.
        """
        node = self._key_node("group_by", key, type, name, shards)
        self._job.add(node)
        return Grouped(self._job, node.name, key)

    def group_by_key(self) -> "Grouped[K_co, V_co]":
        """Group by the key there is; only a key that was changed is shuffled."""
        return Grouped(self._job, self.name, None)

    def merge(self: "Stream[K, V]", *others: "Stream[K, V]") -> "Stream[K, V]":
        """Join streams into one, each in its own order."""
        for other in others:
            self._job.check_own(other)
        inputs = (self.name, *(other.name for other in others))
        if len(set(inputs)) != len(inputs) or not others:
            raise DefinitionError("merge needs two or more different streams")
        return self._add(Merge(name=self._job.fresh_name("merge"), inputs=inputs))

    def to(self, topic: str) -> None:
        """Write each row to a topic, made if missing."""
        self._job.add_sink(self.name, topic)


class _Aggregating(Handle):
    """Adds the aggregation node; the two public classes differ in what their tables are keyed by."""

    _emit: Emit = "update"

    def _add(self, how: Fold | Reduce | Columns, name: str, fn: Any = None) -> "Table[Any, Any]":
        node = Aggregation(name=name, inputs=(self.name,), how=how, emit=self._emit, doc=doc_of(fn))
        self._job.add(node)
        return Table(self._job, name, fn)

    def _aggregate(self, fn: Any, initial: Any, merge: Any, name: str | None) -> Any:
        if fn is None:
            return lambda decorated: self._aggregate(decorated, initial, merge, name)
        refuse_async(fn, "aggregate")
        durable = durable_name(fn, name, "aggregate")
        how = Fold(fn=fn, initial=initial, merge=merge, accumulator_type=accumulator_type(initial, durable))
        return self._add(how, durable, fn)

    def _reduce(self, fn: Any, name: str | None, *, commutative: bool) -> Any:
        if fn is None:
            return lambda decorated: self._reduce(decorated, name, commutative=commutative)
        refuse_async(fn, "reduce")
        value_type = self._job.plan(self.name).value_type
        how = Reduce(fn=fn, commutative=commutative, value_type=value_type)
        return self._add(how, durable_name(fn, name, "reduce"), fn)

    def _count(self, name: str) -> "Table[Any, Any]":
        return self._add(Columns(aggregates={"value": Aggregate("count")}, scalar=True), name)

    def _agg(self, columns: Mapping[str, Aggregate], name: str) -> "Table[Any, Any]":
        if not columns or not all(isinstance(one, Aggregate) for one in columns.values()):
            raise DefinitionError(
                f"agg of {name!r} takes names and built-in aggregates", hint='agg({"n": agg.count()}, name="...")'
            )
        return self._add(Columns(aggregates=dict(columns)), name)


class Grouped(_Aggregating, Generic[K_co, V_co]):
    """Rows by key; its tables are updated for ever."""

    def window(self, window: Tumbling, *, emit: Emit = "final") -> "WindowedGroup[K_co, V_co]":
        """Cut each key's rows into windows; results are published once when a window closes, or at each commit."""
        if not isinstance(window, Tumbling):
            raise DefinitionError(f"window takes a Tumbling, not {window!r}")
        if emit not in ("final", "update"):
            raise DefinitionError(f'emit={emit!r} is neither "final" nor "update"')
        node = Window(name=self._job.fresh_name("window"), inputs=(self.name,), window=window, emit=emit)
        self._job.add(node)
        return WindowedGroup(self._job, node.name, emit)

    def count(self, *, name: str) -> "Table[K_co, int]":
        """Count the rows of each key."""
        return self._count(name)

    @overload
    def reduce(
        self: "Grouped[K, V]", fn: Callable[[V, V], V], *, commutative: bool = True, name: str | None = None
    ) -> "Table[K, V]": ...
    @overload
    def reduce(
        self: "Grouped[K, V]", *, name: str, commutative: bool = True
    ) -> "Callable[[Callable[[V, V], V]], Table[K, V]]": ...
    def reduce(self, fn: Any = None, *, commutative: bool = True, name: str | None = None) -> Any:
        """Fold each key's values by one associative function; commutative too, unless said."""
        return self._reduce(fn, name, commutative=commutative)

    @overload
    def aggregate(
        self,
        fn: Callable[[A, V_co], A],
        *,
        initial: Callable[[], A],
        merge: Callable[[A, A], A] | None = None,
        name: str | None = None,
    ) -> "Table[K_co, A]": ...
    @overload
    def aggregate(
        self, *, initial: Callable[[], A], merge: Callable[[A, A], A] | None = None, name: str | None = None
    ) -> "Callable[[Callable[[A, V_co], A]], Table[K_co, A]]": ...
    def aggregate(self, fn: Any = None, *, initial: Any, merge: Any = None, name: str | None = None) -> Any:
        """Fold each key's values into an accumulator; with `merge`, partial results combine before a shuffle."""
        return self._aggregate(fn, initial, merge, name)

    def agg(self, columns: Mapping[str, Aggregate], *, name: str) -> "Table[K_co, Row]":
        """Fold columns by built-in aggregates."""
        return self._agg(columns, name)


class WindowedGroup(_Aggregating, Generic[K_co, V_co]):
    """Rows by key and window."""

    def __init__(self, job: Builder, name: str, emit: Emit) -> None:
        """Refer to a window node."""
        super().__init__(job, name)
        self._emit = emit
        self._late: Stream[Any, Any] | None = None

    @property
    def late(self) -> Stream[K_co, V_co]:
        """The rows that came after their window had closed, unchanged: a stream of their own."""
        if self._late is None:
            name = f"{self.name}_late"
            self._job.add(Late(name=name, inputs=(self.name,)))
            self._late = Stream(self._job, name)
        return self._late

    def count(self, *, name: str) -> "Table[Windowed[K_co], int]":
        """Count the rows of each key and window."""
        return self._count(name)

    @overload
    def reduce(
        self: "WindowedGroup[K, V]", fn: Callable[[V, V], V], *, commutative: bool = True, name: str | None = None
    ) -> "Table[Windowed[K], V]": ...
    @overload
    def reduce(
        self: "WindowedGroup[K, V]", *, name: str, commutative: bool = True
    ) -> "Callable[[Callable[[V, V], V]], Table[Windowed[K], V]]": ...
    def reduce(self, fn: Any = None, *, commutative: bool = True, name: str | None = None) -> Any:
        """Fold each key's values of a window by one associative function."""
        return self._reduce(fn, name, commutative=commutative)

    @overload
    def aggregate(
        self,
        fn: Callable[[A, V_co], A],
        *,
        initial: Callable[[], A],
        merge: Callable[[A, A], A] | None = None,
        name: str | None = None,
    ) -> "Table[Windowed[K_co], A]": ...
    @overload
    def aggregate(
        self, *, initial: Callable[[], A], merge: Callable[[A, A], A] | None = None, name: str | None = None
    ) -> "Callable[[Callable[[A, V_co], A]], Table[Windowed[K_co], A]]": ...
    def aggregate(self, fn: Any = None, *, initial: Any, merge: Any = None, name: str | None = None) -> Any:
        """Fold each key's values of a window into an accumulator."""
        return self._aggregate(fn, initial, merge, name)

    def agg(self, columns: Mapping[str, Aggregate], *, name: str) -> "Table[Windowed[K_co], Row]":
        """Fold columns by built-in aggregates."""
        return self._agg(columns, name)


class Table(Handle, Generic[K_co, V_co]):
    """The latest value of each key."""

    def _add(self, node: Node, fn: Any = None) -> "Table[Any, Any]":
        self._job.add(node)
        return Table(self._job, node.name, fn)

    def map_values(self, fn: Callable[[V_co], V2], *, name: str | None = None) -> "Table[K_co, V2]":
        """Turn each value into another; the key stays."""
        refuse_async(fn, "map_values")
        node = MapValues(name=node_name(self._job, "map_values", fn, name), inputs=(self.name,), fn=fn, doc=doc_of(fn))
        return self._add(node, fn)

    def filter(self, predicate: Callable[[V_co], bool] | pl.Expr, *, name: str | None = None) -> "Table[K_co, V_co]":
        """Keep the keys whose value passes; later updates of a key that fail are not written."""
        if isinstance(predicate, pl.Expr):
            check_row_wise(predicate, "filter")
        else:
            refuse_async(predicate, "filter")
        name = node_name(self._job, "filter", predicate, name)
        return self._add(Filter(name=name, inputs=(self.name,), predicate=predicate, doc=doc_of(predicate)), predicate)

    def typed(self, value: type[V2]) -> "Table[K_co, V2]":
        """State what the rows are; checked against what is known of their columns."""
        return self._add(Typed(name=self._job.fresh_name("typed"), inputs=(self.name,), value_type=value))

    def to_stream(self: "Table[Windowed[K], V]") -> Stream[K, V]:
        """Take the final results of windows as facts, keyed by the plain key, stamped window end - 1.

        Raises:
            DefinitionError: The table has no windows, or its results are updates.
        """
        node = self._job.node(self.name)
        while not isinstance(node, Aggregation):
            node = self._job.node(node.inputs[0])
        window = self._job.node(node.inputs[0])
        if not isinstance(window, Window) or window.emit != "final":
            raise DefinitionError(
                f"{self.name!r} cannot become a stream: updates are not facts",
                detail="how many updates there are depends on commits",
                hint='use a window with emit="final", or write the table to a topic',
            )
        name = self._job.fresh_name(f"{self.name}_stream")
        self._job.add(ToStream(name=name, inputs=(self.name,)))
        return Stream(self._job, name)

    def to(self, topic: str) -> None:
        """Write results to a topic, made if missing: updates by key, or each window once."""
        self._job.add_sink(self.name, topic)
