"""Streams, groups and tables: each operator takes its function first and returns the downstream node.

Decorating is therefore just calling: `@lines.flat_map` and `lines.flat_map(str.split)` are the same call. An operator
adds one node to the job's graph and does nothing else; what does not fit is refused at once, at its own line.

The four kinds lead to one another, so they live in one module. What they make is made in `making`.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

import polars as pl

from streamkit.dsl import making
from streamkit.dsl.builder import Builder
from streamkit.dsl.handle import Handle
from streamkit.dsl.names import durable_name
from streamkit.dsl.processing import Keeping, ProcessFn, Punctuating, Stores, process_node
from streamkit.dsl.rows import Facts, Rows
from streamkit.graph import Aggregate, AnyWindow, AsyncCalls, Emit, Join, Late, Node, TableJoin
from streamkit.graph.nodes import Order
from streamkit.records import Windowed

__all__ = ["Grouped", "Processed", "Row", "Stream", "Table", "WindowedGroup"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
A = TypeVar("A")
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)

Row: TypeAlias = dict[str, Any]
Name: TypeAlias = str | None
AsyncFn: TypeAlias = Callable[[V], Coroutine[Any, Any, V2]]
MergeFn: TypeAlias = Callable[[Any, Any], Any]
"""Not of the accumulator's type: `operator.add`, which takes anything, would make mypy take that type for `Any` too."""


class Stream(Facts[K_co, V_co], Generic[K_co, V_co]):
    """Facts, in order within each partition."""

    def _add(self, node: Node, fn: Any = None) -> "Stream[Any, Any]":
        self._job.add(node)
        return Stream(self._job, node.name, fn)

    @overload
    def map(
        self, fn: AsyncFn[V_co, V2], *, calls: AsyncCalls | None = None, name: str | None = None
    ) -> "Stream[K_co, V2]": ...
    @overload
    def map(self, fn: Callable[[V_co], V2], *, name: str | None = None) -> "Stream[K_co, V2]": ...
    @overload
    def map(
        self, *, calls: AsyncCalls, name: str | None = None
    ) -> "Callable[[AsyncFn[V_co, V2]], Stream[K_co, V2]]": ...
    def map(self, fn: Any = None, *, calls: AsyncCalls | None = None, name: str | None = None) -> Any:
        """Turn each value into another, by a plain or an async function.

        Of an async one many calls are under way at once, of records with equal keys one after the other. The records of
        a batch are handed on, in their order, when all are done: nothing unfinished is ever committed. After a crash
        the function may be called for a record again.

        Shape: one row in, one row out; key, timestamp and partition stay.

        Args:
            fn: Plain or async.
            calls: For an async function: how many at once, the deadline of a record, and attempts.
            name: The function's unless said.

        Raises:
            DefinitionError: `fn` is not a function, or `calls` goes with a plain one.
        """
        if fn is None and calls is not None:
            return lambda decorated: self._add(making.map_node(self._job, self.name, decorated, name, calls), decorated)
        return self._add(making.map_node(self._job, self.name, fn, name, calls), fn)

    def flat_map(self, fn: Callable[[V_co], Iterable[V2]], *, name: str | None = None) -> "Stream[K_co, V2]":
        """Turn each value into any number of values.

        Shape: one row in, none to many out, in the order of the iterable; each keeps key and timestamp.

        Raises:
            DefinitionError: `fn` is not a plain function.

        Example:
            >>> from streamkit import Job
            >>> lines = Job("shapes").stream("lines", value=str)
            >>> @lines.flat_map
            ... def words(line: str) -> list[str]:
            ...     return line.split()
            >>> words
            <Stream shapes.words>
            >>> words.fn("to be")
            ['to', 'be']
        """
        return self._add(making.calling_node("flat_map", self, fn, name), fn)

    def map_batches(
        self, fn: Callable[[pl.DataFrame], pl.DataFrame], *, name: str | None = None
    ) -> "Stream[K_co, Row]":
        """Hand the frame itself to a function that is row-wise: f(a ++ b) = f(a) ++ f(b).

        The frame has a column `__row__`; a function that changes the number of rows must keep it, for it says which
        record each row stems from. `TestDriver` runs the function twice, the batch cut elsewhere, and compares.

        Shape: one row in, none to many out; each keeps the key and timestamp of its `__row__`.

        Raises:
            DefinitionError: The columns are not known, or `fn` is not a plain function.
        """
        return self._add(making.calling_node("map_batches", self, fn, name), fn)

    def select(self, *columns: str | pl.Expr) -> "Stream[K_co, Row]":
        """Make rows of the columns and expressions named.

        Shape: one row in, one row out; key, timestamp and partition stay.

        Raises:
            DefinitionError: An expression is not row-wise, or does not fit the columns there are.
        """
        return self._add(making.select_node(self._job, "select", self.name, columns, keep=False))

    def with_columns(self, *columns: pl.Expr) -> "Stream[K_co, Row]":
        """Add or replace columns.

        Shape: one row in, one row out; key, timestamp and partition stay.

        Raises:
            DefinitionError: As for `select`.
        """
        return self._add(making.select_node(self._job, "with_columns", self.name, columns, keep=True))

    def typed(self, value: type[V2]) -> "Stream[K_co, V2]":
        """State what the rows are, after `select`, `with_columns` or `map_batches`.

        Shape: one row in, the same row out.

        Raises:
            DefinitionError: The columns are known, and are others.
        """
        return self._add(making.typed_node(self, value))

    @overload
    def key_by(self, key: Callable[[V_co], K2], *, name: str | None = None, shards: int = 8) -> "Stream[K2, V_co]": ...
    @overload
    def key_by(self, key: str | pl.Expr, *, type: type[K2], name: str, shards: int = 8) -> "Stream[K2, V_co]": ...
    @overload
    def key_by(self, key: str | pl.Expr, *, name: str, shards: int = 8) -> "Stream[Any, V_co]": ...
    def key_by(self, key: Any, *, type: Any = None, name: str | None = None, shards: int = 8) -> "Stream[Any, Any]":
        """Change the key; the next node that keeps state reads a shuffle.

        Shape: one row in, one row out with another key; it moves only if a node that keeps state follows.

        Args:
            key: A function of the value, a column's name or an expression.
            type: Type of the key, where the column does not say it.
            name: Names the repartition topic, `<job>-<name>-repartition`; the function's name without it.
            shards: Partition count of that topic, 1 to 100,000. Changing it needs a replay.

        Raises:
            UnnamedStateError: There is neither a named function nor `name=`.
            DefinitionError: The key does not fit the rows, or is of a type that cannot be a key.
        """
        node = making.key_node("key_by", self, key, type=type, name=name, shards=shards)
        return self._add(node, key)

    @overload
    def group_by(
        self, key: Callable[[V_co], K2], *, name: str | None = None, shards: int = 8
    ) -> "Grouped[K2, V_co]": ...
    @overload
    def group_by(self, key: str | pl.Expr, *, type: type[K2], name: str, shards: int = 8) -> "Grouped[K2, V_co]": ...
    @overload
    def group_by(self, key: str | pl.Expr, *, name: str, shards: int = 8) -> "Grouped[Any, V_co]": ...
    def group_by(self, key: Any, *, type: Any = None, name: str | None = None, shards: int = 8) -> "Grouped[Any, Any]":
        """Shuffle by a new key: `key_by`, then `group_by_key`. It takes and raises what `key_by` does.

        Shape: one row in, one row out with another key, in the partition where that key belongs.
        """
        node = making.key_node("group_by", self, key, type=type, name=name, shards=shards)
        self._job.add(node)
        return Grouped(self._job, node.name, key)

    def group_by_key(self) -> "Grouped[K_co, V_co]":
        """Group by the key there is; only a key that was changed is shuffled."""
        return Grouped(self._job, self.name)

    @overload
    def join(
        self, table: "Table[K_co, V2]", fn: Callable[[V_co, V2], A], *, order: Order = "log", name: str | None = None
    ) -> "Stream[K_co, A]": ...
    @overload
    def join(
        self, table: "Table[K_co, V2]", *, order: Order = "log", name: str | None = None
    ) -> "Callable[[Callable[[V_co, V2], A]], Stream[K_co, A]]": ...
    def join(self, table: Any, fn: Any = None, *, order: Order = "log", name: str | None = None) -> Any:
        """Bring each row together with the value that a table has for its key.

        The table is looked at when the row is there: a later change of it changes no row that was joined before.

        Shape: one row in, one out, or none where the table has no value; key, timestamp and partition stay.

        Args:
            table: Of the same type of keys, its topic of as many partitions; not one of windows.
            fn: Takes the row's value and the table's, which it must not change.
            order: "log": rows of both come in the order of their timestamps, so that what is found depends on the log
                alone; a row waits until the other inputs have reached its time. "arrival": as they come, at once.
            name: The function's unless said.

        Raises:
            DefinitionError: The keys are of different types, the table has windows, or `fn` is no plain function.
        """
        if fn is None:
            return lambda decorated: self.join(table, decorated, order=order, name=name)
        return self._add(making.join_node(Join, (self, table), fn, name, order), fn)

    @overload
    def process(
        self: "Stream[K, V]", fn: Keeping[K, V, V2], *, stores: Stores = (), order: Order = "log", name: Name = None
    ) -> "Processed[K, V2]": ...
    @overload
    def process(
        self: "Stream[K, V]",
        fn: ProcessFn[K, V, K2, V2],
        *,
        rekeys: Literal[True],
        stores: Stores = (),
        order: Order = "log",
        name: Name = None,
    ) -> "Processed[K2, V2]": ...
    @overload
    def process(
        self: "Stream[K, V]", *, stores: Stores = (), order: Order = "log", name: Name = None
    ) -> "Callable[[Keeping[K, V, V2]], Processed[K, V2]]": ...
    @overload
    def process(
        self: "Stream[K, V]", *, rekeys: Literal[True], stores: Stores = (), order: Order = "log", name: Name = None
    ) -> "Callable[[ProcessFn[K, V, K2, V2]], Processed[K2, V2]]": ...
    def process(
        self, fn: Any = None, *, rekeys: bool = False, stores: Stores = (), order: Order = "log", name: Name = None
    ) -> Any:
        """Hand whole records to a function that may keep state: the low-level door, where nothing else fits.

        Shape: one row in, none to many out, in the order they are yielded. They have the key of the record, and the
        timestamp and headers that they say; they are late or not as the record is.

        Args:
            fn: Takes a `Context` and a `Record`; yields records, or returns None. Its annotation says their types.
            rekeys: It may change the key. Rows stay where they are: before state by the new key comes `key_by`.
            stores: What `ctx.store` gives it. One may be shared with others: all of them then take rows one at a time.
            order: "log" takes rows of several inputs in one order that the log decides, "arrival" as they come, which
                no replay repeats.
            name: Names the node in the task's position; the function's name without it.

        Raises:
            UnnamedStateError: There is neither a named function nor `name=`.
            DefinitionError: `fn` is not a plain function, or a store is none of this job.
        """
        if fn is None:
            return lambda made: Stream.process(self, made, rekeys=rekeys, stores=stores, order=order, name=name)  # type: ignore[call-overload]  # the overloads know rekeys as a literal
        node = process_node(self, fn, stores, rekeys=rekeys, order=order, name=name)
        self._job.add(node)
        return Processed(self._job, node.name, fn)

    def merge(self: "Stream[K, V]", *others: "Stream[K, V]") -> "Stream[K, V]":
        """Join streams into one.

        Shape: one row in, the same row out; each stream keeps its own order, between them there is none.

        Raises:
            DefinitionError: A stream is of another job, is named twice, or has keys of another type.
        """
        return self._add(making.merge_node(self._job, (self, *others)))


class Processed(Stream[K_co, V_co], Punctuating[K_co, V_co], Generic[K_co, V_co]):
    """The stream of what a `process` yields; `punctuate` adds to it."""


class _Aggregating(Handle, Generic[K_co, V_co]):
    """The four folds of a group. `K_co` is the key of the results: with windows it is not the rows' own."""

    def __init__(self, job: Builder, name: str, fn: Any = None, *, emit: Emit = "update") -> None:
        """Refer to the node that groups."""
        super().__init__(job, name, fn)
        self._emit = emit

    def _add(self, how: making.How, name: str, fn: Any = None) -> "Table[Any, Any]":
        self._job.add(making.aggregation_node(self.name, how, self._emit, name, fn))
        return Table(self._job, name, fn)

    def count(self, *, name: str) -> "Table[K_co, int]":
        """Count the rows of each group; counts combine before a shuffle.

        Args:
            name: Names the table, its store and its changelog.
        """
        return self._add(making.counting(), name)

    @overload
    def reduce(
        self: "_Aggregating[K, V]", fn: Callable[[V, V], V], *, commutative: bool = True, name: str | None = None
    ) -> "Table[K, V]": ...
    @overload
    def reduce(
        self: "_Aggregating[K, V]", *, name: str, commutative: bool = True
    ) -> "Callable[[Callable[[V, V], V]], Table[K, V]]": ...
    def reduce(self, fn: Any = None, *, commutative: bool = True, name: str | None = None) -> Any:
        """Fold the values of each group by one function of two values.

        Args:
            fn: Associative, and commutative unless said; partial results then combine before a shuffle.
            commutative: False folds the rows in their order, which one partition alone has.
            name: Names the table, its store and its changelog; the function's name without it.

        Raises:
            UnnamedStateError: There is neither a named function nor `name=`.
            DefinitionError: `fn` is not a plain function.
        """
        if fn is None:
            return lambda decorated: _Aggregating.reduce(self, decorated, commutative=commutative, name=name)
        how = making.reduce_by(self, fn, commutative=commutative)
        return self._add(how, durable_name(fn, name, "reduce"), fn)

    @overload
    def aggregate(
        self,
        fn: Callable[[A, V_co], A],
        *,
        initial: Callable[[], A],
        merge: MergeFn | None = None,
        name: str | None = None,
    ) -> "Table[K_co, A]": ...
    @overload
    def aggregate(
        self, *, initial: Callable[[], A], merge: MergeFn | None = None, name: str | None = None
    ) -> "Callable[[Callable[[A, V_co], A]], Table[K_co, A]]": ...
    def aggregate(self, fn: Any = None, *, initial: Any, merge: Any = None, name: str | None = None) -> Any:
        """Fold the values of each group into an accumulator.

        Args:
            fn: Takes the accumulator and a value, returns the accumulator.
            initial: Makes an empty one: a class, an alias such as `dict[str, int]`, or an annotated function.
            merge: Makes one of two, exactly, associatively and commutatively; partial results then combine before a
                shuffle, and the members of a dict or set come sorted in results. Without it the rows are folded in
                their order, which one partition alone has.
            name: Names the table, its store and its changelog; the function's name without it.

        Raises:
            UnnamedStateError: There is neither a named function nor `name=`.
            DefinitionError: The accumulator cannot be stored, or a function is not plain.

        Example:
            >>> from streamkit import Job
            >>> words = Job("shapes").stream("words", value=str)
            >>> @words.group_by(str.lower, name="by_word").aggregate(initial=int, merge=int.__add__)
            ... def letters(total: int, word: str) -> int:
            ...     return total + len(word)
            >>> letters
            <Table shapes.letters>
        """
        if fn is None:
            return lambda decorated: _Aggregating.aggregate(self, decorated, initial=initial, merge=merge, name=name)
        durable = durable_name(fn, name, "aggregate")
        return self._add(making.fold_by(fn, initial, merge, durable), durable, fn)

    def agg(self, columns: Mapping[str, Aggregate], *, name: str) -> "Table[K_co, Row]":
        """Fold columns by built-in aggregates, which all combine before a shuffle.

        Args:
            columns: Result columns by name, such as `{"bids": agg.count(), "best": agg.max("price")}`.
            name: Names the table, its store and its changelog.

        Raises:
            DefinitionError: A column does not exist, or its type does not allow the aggregate.
        """
        return self._add(making.columns_by(columns, name), name)


class Grouped(_Aggregating[K_co, V_co]):
    """Rows by key; its tables are updated for ever."""

    def window(self, window: AnyWindow, *, emit: Emit = "final") -> "WindowedGroup[K_co, V_co]":
        """Cut each key's rows into windows.

        Args:
            window: `Tumbling` or `Hopping`: their size and grace.
            emit: "final" publishes each window once, when it closes; "update" at each commit that changed it.

        Raises:
            DefinitionError: An argument is none of these.
        """
        node = making.window_node(self._job, self.name, window, emit)
        self._job.add(node)
        return WindowedGroup(self._job, node.name, emit=emit)


class WindowedGroup(_Aggregating[Windowed[K_co], V_co], Generic[K_co, V_co]):
    """Rows by key and window; its tables have `Windowed` keys."""

    _late: Stream[Any, Any] | None = None

    @property
    def late(self) -> Stream[K_co, V_co]:
        """The rows that came after a window of theirs had closed, unchanged: a stream of their own.

        A row of a hopping window may be late for one window and on time for the next: it is here once, and counted in
        the windows that were open.
        """
        if self._late is None:
            name = f"{self.name}_late"
            self._job.add(Late(name=name, inputs=(self.name,)))
            self._late = Stream(self._job, name)
        return self._late


class Table(Rows, Generic[K_co, V_co]):
    """The latest value of each key."""

    def _add(self, node: Node, fn: Any = None) -> "Table[Any, Any]":
        self._job.add(node)
        return Table(self._job, node.name, fn)

    def map_values(self, fn: Callable[[V_co], V2], *, name: str | None = None) -> "Table[K_co, V2]":
        """Turn each value into another; the key stays.

        Raises:
            DefinitionError: `fn` is not a plain function.
        """
        return self._add(making.calling_node("map_values", self, fn, name), fn)

    def filter(self, predicate: Callable[[V_co], bool] | pl.Expr, *, name: str | None = None) -> "Table[K_co, V_co]":
        """Keep the keys whose value passes.

        A key of a table of updates that does not pass is deleted downstream: its topic gets a null value, a tombstone,
        whether or not an earlier value had passed. Final results of windows that do not pass are left out.

        Raises:
            DefinitionError: The expression is not row-wise or makes no booleans, `predicate` is no plain function, or
                the table is of windows and updated: a tombstone for the plain key would stand for all its windows.
        """
        making.check_can_delete(self._job, self.name)
        return self._add(making.filter_node(self._job, "filter", self.name, predicate, name), predicate)

    def typed(self, value: type[V2]) -> "Table[K_co, V2]":
        """State what the rows are, after `agg`.

        Raises:
            DefinitionError: The columns are known, and are others.
        """
        return self._add(making.typed_node(self, value))

    @overload
    def join(
        self, table: "Table[K_co, V2]", fn: Callable[[V_co, V2], A], *, order: Order = "log", name: str | None = None
    ) -> "Table[K_co, A]": ...
    @overload
    def join(
        self, table: "Table[K_co, V2]", *, order: Order = "log", name: str | None = None
    ) -> "Callable[[Callable[[V_co, V2], A]], Table[K_co, A]]": ...
    def join(self, table: Any, fn: Any = None, *, order: Order = "log", name: str | None = None) -> Any:
        """Make one table of two: the keys that both have, with a value made of both.

        Each change of either table gives a new value; a key that one of them loses is deleted. Nothing is kept for it:
        the other table is looked up, and `fn` may be called for the same values again.

        Args:
            table: As in `Stream.join`.
            fn: Takes the values of this table and the other, and must change neither.
            order: As in `Stream.join`; which updates there are depends on it, the last value of each key does not.
            name: The function's unless said.

        Raises:
            DefinitionError: As in `Stream.join`.
        """
        if fn is None:
            return lambda decorated: self.join(table, decorated, order=order, name=name)
        return self._add(making.join_node(TableJoin, (self, table), fn, name, order), fn)

    def to_stream(self: "Table[Windowed[K], V]") -> Stream[K, V]:
        """Take the final results of windows as facts.

        Shape: one row a window and key, keyed by the plain key, stamped window end - 1.

        Raises:
            DefinitionError: The table has no windows, or its results are updates.
        """
        node = making.facts_node(self._job, self.name)
        self._job.add(node)
        return Stream(self._job, node.name)
