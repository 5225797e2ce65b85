"""The rules of the job API, each refused or kept at import, at the line that breaks it."""

import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl
import pytest

from streamkit import EventTime, Grouped, Job, Stream, Tumbling, agg
from streamkit.errors import (
    DefinitionError,
    DuplicateNameError,
    FrozenJobError,
    StreamkitError,
    TopologyError,
    UnnamedStateError,
)
from streamkit.graph import Aggregation, Filter, Source, Window
from streamkit.serde import UserSerde

MINUTE = Tumbling(timedelta(minutes=1), grace=timedelta(0))


class Trade(msgspec.Struct):
    symbol: str
    price: float
    size: int
    at: int


def trades(job: Job | None = None) -> Stream[None, Trade]:
    return (job or Job("rules")).stream("trades", value=Trade, timestamp="at")


def grouped() -> Grouped[str, Trade]:
    return trades().group_by("symbol", type=str, name="by_symbol")


def names(job: Job) -> list[str]:
    return [node.name for node in job.build().nodes]


def symbol(trade: Trade) -> str:
    """Say which share it is."""
    return trade.symbol


# Names


def test_decorating_is_calling() -> None:
    one, other = Job("rules"), Job("rules")

    @trades(one).map
    def name_of(trade: Trade) -> str:
        """Name it."""
        return trade.symbol

    trades(other).map(name_of.fn, name="name_of")
    assert one.build() == other.build()


def test_the_name_and_the_docstring_of_the_function_are_the_nodes() -> None:
    job = Job("rules")
    named = trades(job).map(symbol)
    assert named.name == "symbol"
    assert job.node("symbol").doc == "Say which share it is."
    assert named.fn is symbol
    assert named.__doc__ == "Say which share it is."


def test_a_name_given_wins_over_the_function() -> None:
    assert trades().key_by(symbol, name="pinned").name == "pinned"


def test_nodes_that_own_nothing_need_no_name_and_never_clash() -> None:
    job = Job("rules")
    trades(job).map(lambda trade: trade, name="map_2").map(lambda trade: trade).map(lambda trade: trade).to("out")
    assert names(job) == ["trades", "map_2", "map_1", "map_3", "to_out_1"]


@pytest.mark.parametrize(
    "define",
    [
        lambda: trades().key_by(lambda trade: trade.symbol),
        lambda: trades().group_by(lambda trade: trade.symbol),
        lambda: trades().group_by("symbol"),  # type: ignore[call-overload]  # the type checker says so too
        lambda: trades().key_by(pl.col("symbol")),  # type: ignore[call-overload]  # the type checker says so too
        lambda: trades().key_by(functools.partial(symbol)),
        lambda: grouped().aggregate(lambda total, trade: total, initial=int),
        lambda: grouped().reduce(lambda one, other: one),
        lambda: grouped().window(MINUTE).reduce(lambda one, other: one),
        lambda: grouped().aggregate(initial=int)(lambda total, trade: total),
    ],
)
def test_a_lambda_cannot_name_what_lasts(define: Callable[[], object]) -> None:
    with pytest.raises(UnnamedStateError, match="needs a durable name"):
        define()


def test_a_name_used_twice_is_refused() -> None:
    job = Job("rules")
    trades(job).map(symbol)
    with pytest.raises(DuplicateNameError, match="two nodes named 'symbol'"):
        job.stream("others", value=Trade).filter(symbol)


def test_a_topic_may_bear_a_nodes_name() -> None:
    job = Job("rules")
    trades(job).map(symbol).to("symbol")
    assert names(job) == ["trades", "symbol", "to_symbol_1"]


@pytest.mark.parametrize("name", ["", "two words", "slash/ed", "ümlaut", ".", "..", "x" * 250, "a\n"])
def test_a_name_that_kafka_refuses_is_refused(name: str) -> None:
    for define in (
        lambda: Job(name),
        lambda: Job("rules").stream(name),
        lambda: trades().to(name),
    ):
        with pytest.raises(DefinitionError, match="not legal"):
            define()


@pytest.mark.parametrize("name", ["two words", "ümlaut", "x" * 240])
def test_a_durable_node_whose_topic_kafka_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match=r"repartition topic of .* is not legal"):
        trades().key_by(symbol, name=name)
    with pytest.raises(DefinitionError, match=r"changelog topic of .* is not legal"):
        grouped().count(name=name)


# Life of a job


def test_a_job_that_was_built_is_frozen() -> None:
    job = Job("rules")
    stream = trades(job)
    stream.to("out")
    graph = job.build()
    with pytest.raises(FrozenJobError, match="comes too late"):
        stream.map(symbol)
    assert job.build() is graph


def test_nodes_of_two_jobs_do_not_mix() -> None:
    with pytest.raises(DefinitionError, match="belongs to another job"):
        trades(Job("one")).merge(trades(Job("other")))


def test_a_stream_is_not_merged_with_itself_or_with_nothing() -> None:
    stream = trades()
    for others in ((), (stream,)):
        with pytest.raises(DefinitionError, match="two or more different streams"):
            stream.merge(*others)


def test_a_topic_is_read_or_written_never_both() -> None:
    with pytest.raises(TopologyError, match="reads 'trades', so it cannot write it"):
        trades().to("trades")
    job = Job("rules")
    trades(job).to("out")
    with pytest.raises(TopologyError, match="writes 'out', so it cannot read it"):
        job.stream("out")


def test_every_refusal_is_a_definition_error_with_three_parts() -> None:
    with pytest.raises(StreamkitError) as caught:
        trades().key_by(lambda trade: trade.symbol)
    assert isinstance(caught.value, DefinitionError)
    assert caught.value.primary[0].islower()
    assert caught.value.hint


# Functions


async def waits(value: Any) -> Any:
    return value


async def yields(value: Any) -> AsyncIterator[Any]:
    yield value


class Waits:
    async def __call__(self, value: Any) -> Any:
        return value


OPERATORS: dict[str, Callable[[Any], object]] = {
    "flat_map": lambda fn: trades().flat_map(fn),
    "filter": lambda fn: trades().filter(fn),
    "branch": lambda fn: trades().branch(fn),
    "peek": lambda fn: trades().peek(fn),
    "map_batches": lambda fn: trades().map_batches(fn),
    "key_by": lambda fn: trades().key_by(fn, name="keyed"),
    "group_by": lambda fn: trades().group_by(fn, name="keyed"),
    "reduce": lambda fn: grouped().reduce(fn, name="folded"),
    "aggregate": lambda fn: grouped().aggregate(fn, initial=int, name="folded"),
    "merge=": lambda fn: grouped().aggregate(lambda total, _: total, initial=int, merge=fn, name="folded"),
    "initial=": lambda fn: grouped().aggregate(lambda total, _: total, initial=fn, name="folded"),
    "map_values": lambda fn: grouped().count(name="counts").map_values(fn),
    "filter of a table": lambda fn: grouped().count(name="counts").filter(fn),
    "timestamp=": lambda fn: Job("rules").stream("t", value=Trade, timestamp=fn),
}


@pytest.mark.parametrize("fn", [waits, yields, Waits(), functools.partial(waits)], ids=lambda fn: type(fn).__name__)
@pytest.mark.parametrize("define", OPERATORS.values(), ids=OPERATORS)
def test_an_async_function_is_refused(define: Callable[[Any], object], fn: Any) -> None:
    with pytest.raises(DefinitionError, match="async"):
        define(fn)


ALL_OPERATORS = OPERATORS | {"map": lambda fn: trades().map(fn)}


@pytest.mark.parametrize("define", ALL_OPERATORS.values(), ids=ALL_OPERATORS)
def test_what_is_no_function_is_refused(define: Callable[[Any], object]) -> None:
    with pytest.raises(DefinitionError):
        define(3)


@pytest.mark.parametrize("verb", ["map", "flat_map", "peek", "map_batches"])
def test_an_expression_is_no_function(verb: str) -> None:
    with pytest.raises(DefinitionError, match="takes a function"):
        ALL_OPERATORS[verb](pl.col("size"))


def test_an_operator_has_no_other_keywords() -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        trades().map(symbol, key=str)  # type: ignore[call-overload]  # the type checker says so too


# Expressions


@pytest.mark.parametrize(
    "define",
    [
        lambda expression: trades().filter(expression > 1),
        lambda expression: trades().branch(expression > 1),
        lambda expression: trades().select(expression),
        lambda expression: trades().with_columns(expression.alias("x")),
        lambda expression: trades().key_by(expression, name="keyed"),
        lambda expression: trades().group_by(expression, name="keyed"),
        lambda expression: grouped().agg({"n": agg.count()}, name="n").filter(expression > 1),
    ],
)
@pytest.mark.parametrize("expression", [pl.col("size").cum_sum(), pl.col("size") - pl.col("size").mean()])
def test_every_operator_refuses_what_is_not_row_wise(define: Callable[[Any], object], expression: pl.Expr) -> None:
    with pytest.raises(DefinitionError, match="not row-wise"):
        define(expression)


def test_a_selection_names_at_least_one_column_and_nothing_else() -> None:
    with pytest.raises(DefinitionError, match="at least one column"):
        trades().select()
    with pytest.raises(DefinitionError, match="takes columns and expressions, not 3"):
        trades().select(3)  # type: ignore[arg-type]  # the type checker says so too


def test_a_branch_is_a_predicate_and_its_negation() -> None:
    job = Job("rules")

    def large(trade: Trade) -> bool:
        return trade.size > 100

    yes, no = trades(job).branch(large)
    assert (yes.name, no.name) == ("large", "large_else")
    sides = [job.node(yes.name), job.node(no.name)]
    assert [side.negate for side in sides if isinstance(side, Filter)] == [False, True]


@pytest.mark.parametrize("shards", [0, -1, 100_001])
def test_shards_have_a_range(shards: int) -> None:
    with pytest.raises(DefinitionError, match="not between 1 and 100,000"):
        trades().group_by("symbol", name="by_symbol", shards=shards)


# Sources


@pytest.mark.parametrize("timestamp", ["nope", EventTime("nope")])
def test_the_timestamp_field_is_checked_against_the_type(timestamp: Any) -> None:
    with pytest.raises(DefinitionError, match="Trade has no such field"):
        Job("rules").stream("t", value=Trade, timestamp=timestamp)


def test_a_field_of_an_untyped_value_cannot_be_checked() -> None:
    job = Job("rules")
    job.stream("t", timestamp="anything").to("out")
    source = job.node("t")
    assert isinstance(source, Source)
    assert source.event_time == EventTime("anything")


class Opaque:
    """A class that JSON knows nothing of."""


class Reversed(UserSerde):
    def encode(self, value: Any) -> bytes | None:
        return bytes(reversed(value))

    def decode(self, data: bytes | None) -> Any:
        return bytes(reversed(data or b""))


def test_keys_and_values_have_a_type_or_a_serde() -> None:
    job = Job("rules")
    serde: Any = Reversed()
    job.stream("t", key=serde, value=serde).to("out")
    job.stream("u", key=list[int], value=dict[str, list[float]]).to("more")
    with pytest.raises(DefinitionError, match="value=Opaque cannot be read"):
        job.stream("v", value=Opaque)
    with pytest.raises(DefinitionError, match="key=Opaque cannot be read"):
        job.stream("w", key=Opaque, value=str)


# State


@dataclasses.dataclass
class Mean:
    total: float = 0.0
    count: int = 0


@dataclasses.dataclass
class Needy:
    total: float


class Best(msgspec.Struct):
    price: float = 0.0


@dataclasses.dataclass
class Hidden:
    inside: Opaque = dataclasses.field(default_factory=Opaque)


def nothing() -> int:
    return 0


def unannotated():  # type: ignore[no-untyped-def]  # what the test is about
    return 0


def fails() -> int:
    raise ValueError("not today")


@pytest.mark.parametrize(
    "initial", [int, float, str, list, dict[str, int], set[str], list[tuple[int, str]], Mean, Best, nothing]
)
def test_an_accumulator_is_a_builtin_a_dataclass_or_a_struct(initial: Any) -> None:
    table = grouped().aggregate(lambda total, _: total, initial=initial, name="folded")
    node = table.job.node("folded")
    assert isinstance(node, Aggregation)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (lambda: 0, "does not say what it returns"),
        (unannotated, "does not say what it returns"),
        (Opaque, "cannot be stored"),
        (timedelta, "cannot be stored"),
        (list[Opaque], "cannot be read from JSON"),
        (Hidden, "cannot be read from JSON"),
        (Needy, "raised TypeError"),
        (fails, "raised ValueError: not today"),
    ],
)
def test_an_accumulator_that_cannot_be_kept_or_made_is_refused(initial: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        grouped().aggregate(lambda total, _: total, initial=initial, name="folded")


@pytest.mark.parametrize("columns", [{}, {"n": "count"}, {"n": pl.len()}])
def test_agg_takes_built_in_aggregates(columns: Any) -> None:
    with pytest.raises(DefinitionError, match="names and built-in aggregates"):
        grouped().agg(columns, name="folded")


def test_each_built_in_aggregate_has_a_word() -> None:
    made = [agg.count(), *(one("price") for one in (agg.sum, agg.min, agg.max, agg.mean, agg.first, agg.last))]
    assert [one.kind for one in made] == ["count", "sum", "min", "max", "mean", "first", "last"]


# Built-in aggregates


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: agg.var("a", ddof=-1), "ddof=-1 is no integer from 0"),
        (lambda: agg.std("a", ddof=1.0), "ddof=1.0 is no integer"),  # type: ignore[arg-type]  # the checker says so too
        (lambda: agg.std("a", ddof=True), "ddof=True is no integer"),
        (lambda: agg.top_k("a", 0), "k=0 is no integer from 1 to 10,000"),
        (lambda: agg.top_k("a", 10_001), "k=10001 is no integer"),
        (lambda: agg.collect("a", limit=0), "limit=0 is no integer from 1 to 1,000,000"),
        (lambda: agg.distinct("a", limit=1, approx=True), "an approximate count has no limit"),
        (lambda: agg.distinct("a", limit=1_000_001), "limit=1000001 is no integer"),
    ],
)
def test_a_built_in_aggregate_with_a_wrong_number_is_refused_where_it_is_named(
    made: Callable[[], object], said: str
) -> None:
    with pytest.raises(DefinitionError, match=said):
        made()


# Windows


def test_windows_are_final_and_tables_updated_unless_said() -> None:
    group = grouped()
    job = group.job
    final, update = group.window(MINUTE), group.window(MINUTE, emit="update")
    tables = [group.count(name="a"), final.count(name="b"), update.count(name="c")]
    nodes = [job.node(table.name) for table in tables]
    assert [node.emit for node in nodes if isinstance(node, Aggregation)] == ["update", "final", "update"]
    windows = [job.node(one.name) for one in (final, update)]
    assert [node.emit for node in windows if isinstance(node, Window)] == ["final", "update"]


def test_a_window_is_a_window_and_says_when_it_emits() -> None:
    with pytest.raises(DefinitionError, match='neither "final" nor "update"'):
        grouped().window(MINUTE, emit="sometimes")  # type: ignore[arg-type]  # the type checker says so too
    with pytest.raises(DefinitionError, match="takes a Tumbling or a Hopping"):
        grouped().window(timedelta(minutes=1))  # type: ignore[arg-type]  # the type checker says so too


def test_late_rows_are_one_stream_however_often_they_are_asked_for() -> None:
    group = grouped().window(MINUTE)
    assert group.late is group.late


@pytest.mark.parametrize(
    "table",
    [
        lambda: grouped().count(name="counts"),
        lambda: grouped().count(name="counts").map_values(str),
        lambda: grouped().window(MINUTE, emit="update").count(name="counts"),
    ],
)
def test_updates_are_not_facts(table: Callable[[], Any]) -> None:
    with pytest.raises(DefinitionError, match="updates are not facts"):
        table().to_stream()


def test_final_results_are_facts_through_what_follows_them() -> None:
    facts = grouped().window(MINUTE).count(name="counts").map_values(str).filter(str.isalpha).to_stream()
    assert isinstance(facts, Stream)


def test_a_handle_shows_kind_job_and_name() -> None:
    assert repr(trades()) == "<Stream rules.trades>"
    assert repr(grouped().window(MINUTE).count(name="counts")) == "<Table rules.counts>"


def test_the_decorator_with_arguments_is_for_what_lasts() -> None:
    group = grouped()

    @group.aggregate(initial=int)
    def sizes(total: int, trade: Trade) -> int:
        """Add up."""
        return total + trade.size

    @group.reduce(name="largest", commutative=False)
    def larger(one: Trade, other: Trade) -> Trade:
        return max(one, other, key=lambda trade: trade.size)

    assert (sizes.name, larger.name) == ("sizes", "largest")
    assert group.job.node("sizes").doc == "Add up."


def test_items_of_a_flat_map_are_typed_by_its_annotation() -> None:
    def letters(trade: Trade) -> Iterable[str]:
        return trade.symbol

    job = Job("rules")
    assert job.plan(trades(job).flat_map(letters).name).value_type is str
