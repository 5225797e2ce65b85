"""The nodes of a logical graph: frozen data, named, without I/O.

A node refers to its inputs by name. `LogicalGraph.nodes` is in definition order, so inputs come before users.
A value type of `None` means "whatever orjson returns" for a source, and "unknown" after `map` and the like.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

import polars as pl

from streamkit.errors import DefinitionError
from streamkit.graph.calls import AsyncCalls
from streamkit.graph.stores import Store
from streamkit.graph.windows import AnyWindow, to_ms

__all__ = [
    "Aggregate",
    "Aggregation",
    "Columns",
    "Emit",
    "EventTime",
    "Filter",
    "FlatMap",
    "Fold",
    "Join",
    "KeyBy",
    "Late",
    "Latest",
    "LogicalGraph",
    "Map",
    "MapBatches",
    "MapValues",
    "Merge",
    "Node",
    "OnError",
    "Order",
    "Peek",
    "Process",
    "Punctuation",
    "Reduce",
    "Select",
    "Sink",
    "Source",
    "TableJoin",
    "ToStream",
    "Typed",
    "Window",
    "store_names",
]

Emit: TypeAlias = Literal["final", "update"]
OnError: TypeAlias = Literal["fail", "skip", "dead_letter"]
"""What is done with a bad record: stop the run, leave it out, or leave it out and write it to `<job>.dead_letter`."""
Order: TypeAlias = Literal["log", "arrival"]
"""In which order a node with several inputs takes their rows: the one that the log decides, or as they come."""
AggregateKind: TypeAlias = Literal[
    "count",
    "sum",
    "min",
    "max",
    "mean",
    "var",
    "std",
    "first",
    "last",
    "arg_min",
    "arg_max",
    "top_k",
    "collect",
    "distinct",
    "approx_distinct",
]


@dataclass(frozen=True, slots=True)
class EventTime:
    """Where a source's event time comes from.

    Args:
        field: A field's name, or a function of the value; None takes the record's own timestamp.
        out_of_orderness: How far behind the largest timestamp so far the source's watermark stays, >= 0.

    Raises:
        DefinitionError: The duration is negative.
    """

    field: str | Callable[[Any], int | datetime] | None = None
    out_of_orderness: timedelta = timedelta(0)

    def __init__(
        self,
        field: str | Callable[[Any], int | datetime] | None = None,
        *,
        out_of_orderness: timedelta = timedelta(0),
    ) -> None:
        """Check and keep."""
        if out_of_orderness < timedelta(0):
            raise DefinitionError(f"out_of_orderness {out_of_orderness} is negative", hint="pass 0 or more")
        object.__setattr__(self, "field", field)
        object.__setattr__(self, "out_of_orderness", out_of_orderness)

    @property
    def out_of_orderness_ms(self) -> int:
        """The same in ms."""
        return to_ms(self.out_of_orderness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What every node has. `inputs` are names of earlier nodes; `doc` is the function's docstring."""

    name: str
    inputs: tuple[str, ...] = ()
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Node):
    """Records of a topic. `key_type` None leaves keys as `bytes | None`; `value_type` None is untyped JSON.

    `on_error` is for its bad records; None: what the job says. `nulls_delete` says that a null value deletes its key,
    as the records of a table have it; such a record bears its own timestamp.
    """

    topic: str
    key_type: Any = None
    value_type: Any = None
    event_time: EventTime = field(default_factory=EventTime)
    on_error: OnError | None = None
    nulls_delete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest(Node):
    """The table of a topic: the last value of each key. Owns the store and changelog that bear its name, the topic's.

    Its input is the source of that topic, which it alone reads.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Map(Node):
    """One value to one value. `calls` says how an async function is called; None: `fn` is a plain one."""

    fn: Callable[[Any], Any]
    calls: AsyncCalls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatMap(Node):
    """One value to any number of values, in order."""

    fn: Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Node):
    """Keeps the rows whose predicate is true (`negate`: not true). On a table it drops keys whose value fails."""

    predicate: Callable[[Any], bool] | pl.Expr
    negate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Peek(Node):
    """Calls a function with each value and passes the row on."""

    fn: Callable[[Any], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapBatches(Node):
    """Hands the user the frame itself; row-wise, and may change the number of rows.

    A frame of another height must carry the column `__row__` that it was given (the row each row stems from).
    """

    fn: Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(Node):
    """Columns out of columns; `keep` adds them to what is there (`with_columns`) instead of replacing it."""

    expressions: tuple[pl.Expr, ...]
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed(Node):
    """States what the rows are; checked against the known schema when the graph is built."""

    value_type: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBy(Node):
    """Changes the key: a function, a field's name or an expression. The next stateful node reads a shuffle.

    `shards` is the partition count of the repartition topic, `<job>-<name>-repartition`.
    """

    key: Callable[[Any], Any] | str | pl.Expr
    key_type: Any = None
    shards: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge(Node):
    """The rows of several streams, each in its own order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Node):
    """Assigns windows and judges lateness, upstream of a shuffle."""

    window: AnyWindow
    emit: Emit


@dataclass(frozen=True, slots=True, kw_only=True)
class Late(Node):
    """The rows that a `Window` node judged late, unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """`aggregate`: a start value, a step, and a merge where partial results can be combined."""

    fn: Callable[[Any, Any], Any]
    initial: Callable[[], Any]
    merge: Callable[[Any, Any], Any] | None = None
    accumulator_type: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduce:
    """`reduce`: one associative function; combines before the shuffle unless `commutative` is false."""

    fn: Callable[[Any, Any], Any]
    commutative: bool = True
    value_type: Any = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One built-in aggregate of one column; `count` counts rows and has no column.

    Attributes:
        kind: What it does.
        column: What it reads.
        by: The column by which `arg_min` and `arg_max` choose a row.
        limit: How many values `top_k` keeps, and beyond how many `collect` and `distinct` fail.
        ddof: What `var` and `std` take off the number of values before they divide by it.
    """

    kind: AggregateKind
    column: str | None = None
    by: str | None = None
    limit: int = 0
    ddof: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return tuple(column for column in (self.column, self.by) if column is not None)

    @property
    def ordered(self) -> bool:
        """Whether it must know where rows came from."""
        return self.kind in ("first", "last", "arg_min", "arg_max", "collect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """`agg`: named built-in aggregates. `scalar` results are the bare value of the only one (`count`)."""

    aggregates: Mapping[str, Aggregate]
    scalar: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation(Node):
    """The stateful node: owns the store and changelog that bear its name. Its input bears keys or is a `Window`."""

    how: Fold | Reduce | Columns
    emit: Emit = "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapValues(Node):
    """One value of a table to another; the key stays."""

    fn: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(Node):
    """Rows of a stream, each with the value that a table has for its key; inputs are the stream and the table."""

    fn: Callable[[Any, Any], Any]
    order: Order = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableJoin(Node):
    """The keys that two tables both have, with one value made of both; inputs are the two. It keeps nothing."""

    fn: Callable[[Any, Any], Any]
    order: Order = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToStream(Node):
    """The results of a final table as facts, keyed by the plain key, stamped window end - 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Punctuation:
    """A function that is called when event time reaches or passes a multiple of `every_ms`."""

    name: str
    fn: Callable[[Any, int], Iterable[Any] | None]
    every_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(Node):
    """The low-level node: whole records in and out, with stores and punctuations.

    The key stays unless `rekeys`. Nodes that name one store share it.
    """

    fn: Callable[[Any, Any], Iterable[Any] | None]
    stores: tuple[Store[Any, Any], ...] = ()
    rekeys: bool = False
    order: Order = "log"
    punctuations: tuple[Punctuation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink(Node):
    """Writes rows to a topic."""

    topic: str


def store_names(node: Node) -> tuple[str, ...]:
    """Return the names of the stores that a node keeps its state in; those of a `Process` may be others' too."""
    if isinstance(node, Process):
        return tuple(store.name for store in node.stores)
    return (node.name,) if isinstance(node, Aggregation | Latest) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalGraph:
    """A job as its author wrote it: nodes in definition order, under the job's name.

    `on_error` goes for the sources that say nothing of their own.
    """

    job: str
    nodes: tuple[Node, ...]
    on_error: OnError = "fail"

    def policies(self) -> dict[str, OnError]:
        """Return what is done with the bad records of each source topic."""
        return {node.topic: node.on_error or self.on_error for node in self.nodes if isinstance(node, Source)}

    def node(self, name: str) -> Node:
        """Return the node of that name (KeyError if there is none)."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def children(self, name: str) -> Sequence[Node]:
        """Return the nodes that read from `name`, in definition order."""
        return [node for node in self.nodes if name in node.inputs]
