"""Jobs drawn from all operators: a list of steps is a job, whatever the steps are.

A step names an operator, and says by numbers what it works on and how. One that fits nothing there is is left out; so
is, of what it might do, all that the job would refuse. So a job can be written down, and made again with other shards.

An operator is added in `OPERATORS`: a function that finds what it fits, adds its nodes, and says what came of it.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import drawn_rows
import polars as pl
from drawn_rows import Row, Totals, fingerprint, get, ms
from hypothesis import strategies as st

from streamkit import AsyncCalls, EventTime, Hopping, Job, Tumbling, agg

__all__ = ["AGGREGATES", "OPERATORS", "DrawnJob", "SourceKind", "Step", "drawn_job", "source_kinds", "steps"]

T = TypeVar("T")
Shape = Literal["struct", "columns", "loose"]
"""What the rows of a stream are: `Row`, known columns, or whatever."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: its name, which of what it fits it works on, and a number that further choices are made of."""

    operator: str
    at: int = 0
    how: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceKind:
    """How a source is declared."""

    key: Any = None
    typed: bool = True
    time: Literal["field", "function", "slack", "record"] = "field"

    @property
    def timestamp(self) -> Any:
        return {
            "field": "ts",
            "function": lambda row: get(row, "ts"),
            "slack": EventTime("ts", out_of_orderness=ms(5)),
            "record": None,
        }[self.time]


@dataclass(frozen=True, kw_only=True)
class DrawnStream:
    """A stream and what is known of it.

    Args:
        stream: The handle.
        shape: Of its rows.
        key: Type of its keys.
        keyed_by: Names of the nodes that changed the key since the last shuffle; None: it is in place.
        merged: Whether several inputs meet in it, so that its rows have no order.
        ranked: Whether it stems from results behind a shuffle, whose order depends on the number of shards.
    """

    stream: Any
    shape: Shape
    key: Any
    keyed_by: frozenset[str | None] = frozenset({None})
    merged: bool = False
    ranked: bool = False

    @property
    def framed(self) -> bool:
        return self.shape != "loose"

    @property
    def one_order(self) -> bool:
        """Whether the rows of a key have one order."""
        return self.keyed_by == {None} and not self.merged and self.key is not None


@dataclass(frozen=True, kw_only=True)
class DrawnTable:
    """A table, the columns that are known of it, and how its results come."""

    table: Any
    columns: Sequence[str]
    windowed: bool
    final: bool
    after: DrawnStream


@dataclass(kw_only=True)
class DrawnJob:
    """A job under construction, then as it is.

    `updates` are the topics of which the last value of each key and window counts, `in_order` those in which the
    records of a key have one order. `one_shard_count` says that results depend on the number of shards, `keeps_offsets`
    that a store has offsets in it, which in a file are bytes.
    """

    job: Job
    shards: int
    streams: list[DrawnStream] = field(default_factory=list)
    tables: list[DrawnTable] = field(default_factory=list)
    groups: list[tuple[Any, DrawnStream]] = field(default_factory=list)
    updates: set[str] = field(default_factory=set)
    in_order: set[str] = field(default_factory=set)
    one_shard_count: bool = False
    keeps_offsets: bool = False

    def pick(self, step: Step, fits: Callable[[DrawnStream], bool] = lambda stream: True) -> DrawnStream | None:
        some = [stream for stream in self.streams if fits(stream)]
        return some[step.at % len(some)] if some else None

    def pick_table(self, step: Step, fits: Callable[[DrawnTable], bool] = lambda table: True) -> DrawnTable | None:
        some = [table for table in self.tables if fits(table)]
        return some[step.at % len(some)] if some else None

    def add_table(self, table: DrawnTable) -> None:
        """Keep a table, and write it: of each its topic is looked at."""
        self.tables.append(table)
        topic = f"table_{len(self.tables)}"
        table.table.to(topic)
        if table.windowed and table.final:
            self.in_order.add(topic)
        else:
            self.updates.add(topic)

    def end(self) -> None:
        """Write every stream that leads nowhere."""
        read = {name for node in self.job._nodes.values() for name in node.inputs}
        for number, drawn in enumerate(self.streams):
            if drawn.stream.name not in read:
                drawn.stream.to(f"stream_{number}")
                if drawn.one_order:
                    self.in_order.add(f"stream_{number}")

    @staticmethod
    def value_type(kind: SourceKind) -> Any:
        return Row if kind.typed else None


class Choices:
    """Choices made of one number, the first of each for 0."""

    def __init__(self, number: int) -> None:
        self._number = number

    def of(self, options: Sequence[T]) -> T:
        self._number, index = divmod(self._number, len(options))
        return options[index]


def add_map(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        loose = step.how % 2 == 1
        stream = on.stream.map(drawn_rows.loosened if loose else drawn_rows.changed, name=name)
        drawn.streams.append(replace(on, stream=stream, shape="loose" if loose else "struct"))


def add_async_map(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        stream = on.stream.map(drawn_rows.awaited, calls=AsyncCalls(at_once=1 + step.how % 3), name=name)
        drawn.streams.append(replace(on, stream=stream, shape="struct"))


def add_flat_map(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        drawn.streams.append(replace(on, stream=on.stream.flat_map(drawn_rows.doubled, name=name), shape="struct"))


def predicate_for(framed: bool, how: int) -> Any:
    return [drawn_rows.few, pl.col("n") > 1, pl.col("m") > 2][how % 3 if framed else 0]


def add_filter(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        drawn.streams.append(replace(on, stream=on.stream.filter(predicate_for(on.framed, step.how), name=name)))


def add_branch(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        sides = on.stream.branch(predicate_for(on.framed, step.how), name=name)
        drawn.streams.extend(replace(on, stream=side) for side in sides)


def add_peek(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        drawn.streams.append(replace(on, stream=on.stream.peek(fingerprint, name=name)))


def add_map_batches(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step, lambda stream: stream.framed)) is not None:
        stream = on.stream.map_batches([drawn_rows.more_of, drawn_rows.some_of][step.how % 2], name=name)
        drawn.streams.append(replace(on, stream=stream, shape="loose"))


def add_select(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step, lambda stream: stream.framed)) is not None:
        stream = on.stream.select("shop", pl.col("n") * 2 - 1, pl.col("x") + 0.1, "m", "ts")
        drawn.streams.append(replace(on, stream=stream, shape="columns"))


def add_with_columns(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step, lambda stream: stream.framed)) is not None:
        stream = on.stream.with_columns(pl.when(pl.col("n") > 2).then(pl.col("n")).alias("m"))
        drawn.streams.append(replace(on, stream=stream, shape="columns"))


def add_typed(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        drawn.streams.append(replace(on, stream=on.stream.typed(Row), shape="struct"))


def add_merge(drawn: DrawnJob, step: Step, name: str) -> None:
    on = drawn.pick(step)
    others = [one for one in drawn.streams if on is not None and one.key == on.key and one.stream is not on.stream]
    if on is None or not others:
        return
    other = others[step.how % len(others)]
    alike = on.shape == other.shape and on.framed
    merged = replace(
        on,
        stream=on.stream.merge(other.stream),
        shape=on.shape if alike else "loose",
        keyed_by=on.keyed_by | other.keyed_by,
        merged=True,
        ranked=on.ranked or other.ranked,
    )
    drawn.streams.append(merged)


def new_key(on: DrawnStream, choices: Choices) -> tuple[Any, Any]:
    """Return a key and its type, None for what a function says itself."""
    ways: list[tuple[Any, Any]] = [
        (drawn_rows.shop_of, str),
        (drawn_rows.remainder_of, int),
        (drawn_rows.pair_of, tuple[str, int]),
    ]
    if on.framed:
        ways += [("shop", str), ("n", int), (pl.col("n") % 3, int)]
    return choices.of(ways)


def add_key_by(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        key, type_ = new_key(on, Choices(step.how))
        stream = on.stream.key_by(key, type=type_, name=name, shards=drawn.shards)
        drawn.streams.append(replace(on, stream=stream, key=type_, keyed_by=frozenset({name})))


AGGREGATES = {
    "sum_n": agg.sum("n"),
    "sum_x": agg.sum("x"),
    "mean": agg.mean("x"),
    "std": agg.std("x"),
    "var": agg.var("m", ddof=0),
    "min": agg.min("x"),
    "max": agg.max("shop"),
    "max_m": agg.max("m"),
    "top": agg.top_k("x", 2),
    "kinds": agg.distinct("x"),
    "about": agg.distinct("shop", approx=True),
    "first": agg.first("m"),
    "last": agg.last("x"),
    "least": agg.arg_min("shop", by="x"),
    "most": agg.arg_max("x", by="m"),
    "all": agg.collect("n"),
}
ORDERED = {"first", "last", "least", "most", "all"}


def folded(drawn: DrawnJob, group: Any, on: DrawnStream, choices: Choices, name: str) -> tuple[Any, list[str]]:
    """Fold a group; return the table, and the columns that it has."""
    kinds = [
        "agg",
        "count",
        "merge",
        "dict",
        "set",
        "reduce",
        *(["listed", "latest", "woven"] if on.keyed_by == {None} else []),
    ]
    match choices.of(kinds if not on.merged else kinds[:6]):
        case "agg":
            names = {choices.of(list(AGGREGATES)) for _ in range(1 + choices.of(range(3)))}
            drawn.keeps_offsets |= bool(names & ORDERED)
            drawn.one_shard_count |= on.ranked and bool(names & ORDERED)
            columns = {"n": agg.count(), **{name: AGGREGATES[name] for name in sorted(names)}}
            return group.agg(columns, name=name), list(columns)
        case "count":
            return group.count(name=name), []
        case "merge":
            return group.aggregate(drawn_rows.total, initial=int, merge=operator.add, name=name), []
        case "dict":
            return group.aggregate(drawn_rows.by_shop, initial=dict[str, int], merge=drawn_rows.both, name=name), []
        case "set":
            return group.aggregate(drawn_rows.shops, initial=set[str], merge=operator.or_, name=name), []
        case "reduce":
            return group.reduce(drawn_rows.larger, name=name), []
        case "latest":
            return group.aggregate(drawn_rows.latest, initial=dict[str, int], name=name), []
        case "listed":
            return group.aggregate(drawn_rows.listed, initial=list[int], name=name), []
        case _:
            return group.reduce(drawn_rows.woven, commutative=False, name=name), []


WINDOWS = (
    None,
    Tumbling(ms(20), grace=ms(10)),
    Hopping(ms(20), advance=ms(7), grace=ms(10)),
    Tumbling(ms(30), grace=ms(0)),
)


def add_fold(drawn: DrawnJob, step: Step, name: str) -> None:
    """Group, by a new key or the one there is, or what was grouped before; cut into windows; fold."""
    choices = Choices(step.how)
    on, group = drawn.pick(step), None
    if on is None:
        return
    match choices.of(["new", "own", "again"]):
        case "own" if on.key is not None and len(on.keyed_by) == 1:
            group = on.stream.group_by_key()
        case "again" if drawn.groups:
            group, on = drawn.groups[step.at % len(drawn.groups)]
    if group is None:
        key, type_ = new_key(on, choices)
        group = on.stream.group_by(key, type=type_, name=f"{name}_key", shards=drawn.shards)
        on = replace(on, key=type_, keyed_by=frozenset({f"{name}_key"}))
    drawn.groups.append((group, on))
    window, emit = choices.of(WINDOWS), choices.of(["final", "final", "update"])
    if window is not None:
        group = group.window(window, emit=emit)
        if choices.of([True, False]):
            drawn.streams.append(replace(on, stream=group.late))
    table, columns = folded(drawn, group, on, choices, name)
    final = window is not None and emit == "final"
    drawn.add_table(DrawnTable(table=table, columns=columns, windowed=window is not None, final=final, after=on))


def add_map_values(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick_table(step)) is not None:
        drawn.add_table(replace(on, table=on.table.map_values(fingerprint, name=name), columns=()))


def add_table_filter(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick_table(step, lambda table: table.final or not table.windowed)) is not None:
        framed = bool(on.columns) and on.after.framed
        predicate = pl.col("n") > 1 if framed and step.how % 2 else drawn_rows.passes
        drawn.add_table(replace(on, table=on.table.filter(predicate, name=name)))


def add_facts(drawn: DrawnJob, step: Step, name: str) -> None:
    """Take final results as rows, by expressions where their columns are known."""
    if (on := drawn.pick_table(step, lambda table: table.final)) is None:
        return
    stream, shape = on.table.to_stream(), "struct"
    if on.columns and on.after.framed and step.how % 2:
        n = pl.col("n")
        shop = pl.when(n > 1).then(pl.lit("a")).otherwise(pl.lit("b"))
        stream = stream.select(shop.alias("shop"), n, (n / 3).alias("x"), n.alias("m"), (n * 0).alias("ts"))
        shape = "columns"
    else:
        stream = stream.map(drawn_rows.row_of, name=name)
    shuffled = on.after.keyed_by != {None}
    drawn.streams.append(
        DrawnStream(stream=stream, shape=shape, key=on.after.key, ranked=shuffled or on.after.ranked)  # type: ignore[arg-type]  # it is one
    )


def add_typed_table(drawn: DrawnJob, step: Step, name: str) -> None:
    if (
        on := drawn.pick_table(step, lambda table: table.after.framed and set(table.columns) == {"n", "sum_x"})
    ) is not None:
        drawn.add_table(replace(on, table=on.table.typed(Totals)))


OPERATORS: Mapping[str, Callable[[DrawnJob, Step, str], None]] = {
    "fold": add_fold,
    "facts": add_facts,
    "map": add_map,
    "filter": add_filter,
    "flat_map": add_flat_map,
    "key_by": add_key_by,
    "merge": add_merge,
    "branch": add_branch,
    "map_values": add_map_values,
    "table_filter": add_table_filter,
    "typed_table": add_typed_table,
    "select": add_select,
    "with_columns": add_with_columns,
    "map_batches": add_map_batches,
    "typed": add_typed,
    "async_map": add_async_map,
    "peek": add_peek,
}
"""Every operator there is; a new one comes here. Each leaves the job as it is where nothing fits it."""

OFTEN = ("fold", "fold", "fold", "facts", "facts")

source_kinds = st.lists(
    st.builds(
        SourceKind,
        key=st.sampled_from([str, None, int]),
        typed=st.sampled_from([True, True, False]),
        time=st.sampled_from(["field", "slack", "function", "record"]),
    ),
    min_size=1,
    max_size=2,
)
steps = st.lists(
    st.builds(
        Step,
        operator=st.sampled_from([*OPERATORS, *OFTEN]),
        at=st.integers(0, 5),
        how=st.integers(0, 2**16),
    ),
    min_size=1,
    max_size=9,
)


def drawn_job(kinds: Sequence[SourceKind], steps: Sequence[Step], shards: int) -> DrawnJob:
    """Return the job of some steps."""
    job = Job("drawn")
    drawn = DrawnJob(job=job, shards=shards)
    for number, kind in enumerate(kinds):
        stream = job.stream(
            f"source_{number}", key=kind.key, value=Row if kind.typed else None, timestamp=kind.timestamp
        )
        shape: Shape = "struct" if kind.typed else "loose"
        drawn.streams.append(DrawnStream(stream=stream, shape=shape, key=kind.key))
    for number, step in enumerate(steps):
        OPERATORS[step.operator](drawn, step, f"{step.operator}_{number}")
    drawn.end()
    return drawn
