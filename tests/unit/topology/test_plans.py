"""What is known of a node's rows: types, columns, spelling; and what is refused because of it."""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl
import pytest

from streamkit import Job, Stream, Tumbling, agg
from streamkit.errors import DefinitionError
from streamkit.graph import Aggregate
from streamkit.runtime.aggregates import FrameAggregates
from streamkit.topology import NodePlan, compile_graph
from streamkit.topology.aggregates import check_aggregates, result_schema
from streamkit.topology.plans import item_type, returned_type


class Trade(msgspec.Struct):
    symbol: str
    price: float
    size: int
    open: bool
    tags: list[str]
    at: int


class Opaque:
    """A class that JSON knows nothing of."""


@dataclasses.dataclass
class WithOpaque:
    size: int
    anything: Any


def trades(job: Job | None = None) -> Stream[None, Trade]:
    return (job or Job("plans")).stream("trades", value=Trade)


def plan_of(stream: Any) -> NodePlan:
    return stream.job.plan(stream.name)  # type: ignore[no-any-return]  # any handle


def test_a_typed_source_has_columns() -> None:
    plan = plan_of(trades())
    assert plan.value_type is Trade
    assert plan.schema == {
        "symbol": pl.String,
        "price": pl.Float64,
        "size": pl.Int64,
        "open": pl.Boolean,
        "tags": pl.List(pl.String),
        "at": pl.Int64,
    }


def test_a_function_after_an_expression_is_spelled_in_python_again() -> None:
    kept = trades().filter(pl.col("size") > 3)
    assert plan_of(kept).spelling == "columns"
    assert plan_of(kept.peek(print)).spelling == "python"
    assert plan_of(kept.map(lambda trade: trade.size)).spelling == "python"
    assert plan_of(kept.merge(kept.peek(print))).spelling == "python"


def number(trade: Trade) -> int:
    return trade.size


def opaque(trade: Trade) -> Opaque:
    return Opaque()


def anything(trade: Trade) -> Any:
    return trade


def unresolved(trade: Trade) -> "Nowhere":  # type: ignore[name-defined]  # noqa: F821  # a name that is not there
    return trade


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (number, int),
        (opaque, None),
        (anything, None),
        (unresolved, None),
        (len, None),
        (str, str),
        (lambda trade: 1, None),
    ],
)
def test_a_mapped_row_is_what_the_annotation_says_if_it_can_be_written(fn: Callable[[Any], Any], expected: Any) -> None:
    assert plan_of(trades().map(fn, name="mapped")).value_type is expected


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Iterable[str], str),
        (list[tuple[str, int]], tuple[str, int]),
        (Iterator[str | None], str | None),
        (Generator[int, None, str], int),
        (tuple[int, ...], int),
        (tuple[int, int], int),
        (tuple[int, str], None),
        (set[Trade], Trade),
        (dict[str, int], None),
        (Iterable[Any], None),
        (list, None),
        (str, None),
        (None, None),
        (Callable[[], int], None),
    ],
)
def test_the_items_of_an_iterable_are_known_by_its_annotation(hint: Any, expected: Any) -> None:
    assert item_type(hint) == expected


def test_a_callable_that_has_no_annotations_returns_something_unknown() -> None:
    assert returned_type(str.split) is None


def test_selected_columns_are_known() -> None:
    made = trades().with_columns((pl.col("price") * 2).alias("double")).select("symbol", "double")
    assert plan_of(made).schema == {"symbol": pl.String, "double": pl.Float64}
    assert plan_of(made).value_type is None


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (lambda: trades().select("nope"), "does not fit its rows"),
        (lambda: trades().select("size", pl.col("price").alias("size")), "does not fit its rows"),
        (lambda: trades().filter(pl.col("nope") > 3), "does not fit its rows"),
        (lambda: trades().filter(pl.col("size")), "not one column of booleans"),
        (lambda: trades().filter(pl.col("size", "at") > 3), "not one column of booleans"),
        (lambda: trades().branch(pl.col("symbol")), "not one column of booleans"),
        (lambda: trades().group_by("nope", name="by_nope"), "does not fit its rows"),
        (lambda: trades().group_by(pl.all(), name="by_all"), "is not one column"),
        (lambda: trades().group_by("size", type=str, name="by_size"), "which type=str is not"),
        (lambda: trades().key_by("symbol", type=int, name="by_symbol"), "which type=int is not"),
        (lambda: trades().group_by(pl.col("size") * 1.5, type=int, name="by_size"), "which type=int is not"),
        (lambda: Job("j").stream("t").select("a"), "what its rows are is not known"),
        (lambda: Job("j").stream("t", value=int).filter(pl.col("a") > 3), "what its rows are is not known"),
        (lambda: Job("j").stream("t", value=int).map_batches(lambda frame: frame), "what its rows are is not known"),
        (lambda: Job("j").stream("t", value=int).group_by("a", name="by_a"), "what its rows are is not known"),
        (lambda: Job("j").stream("t", value=str).filter(pl.col("a") == "b"), "they have value"),
    ],
)
def test_an_expression_that_does_not_fit_is_refused_at_its_own_line(define: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        define()


@pytest.mark.parametrize("key_type", [set[str], frozenset, dict[str, int], Opaque])
def test_a_type_whose_equal_values_have_several_encodings_cannot_be_a_key(key_type: Any) -> None:
    def key(trade: Trade) -> Any:
        return trade

    key.__annotations__["return"] = key_type
    with pytest.raises(DefinitionError):
        trades().group_by(key)


@pytest.mark.parametrize(("key", "key_type"), [("size", int), ("symbol", str), ("price", float), ("open", bool)])
def test_a_key_column_says_the_type_of_the_key(key: str, key_type: Any) -> None:
    assert plan_of(trades().key_by(key, name="keyed")).key_type is key_type
    assert plan_of(trades().key_by(key, type=key_type, name="keyed")).key_type is key_type


def test_a_smaller_integer_column_is_an_int_key() -> None:
    assert plan_of(trades().key_by(pl.col("size").cast(pl.Int32), type=int, name="keyed")).key_type is int


def test_streams_of_different_key_types_cannot_be_merged() -> None:
    job = Job("plans")
    one, other = job.stream("a", key=str, value=Trade), job.stream("b", value=Trade)
    with pytest.raises(DefinitionError, match="keys are of different types"):
        one.merge(other)  # type: ignore[arg-type]  # the type checker says so too


def test_streams_of_different_values_merge_into_one_of_unknown_rows() -> None:
    job = Job("plans")
    merged: Stream[None, Any] = job.stream("a", value=Trade).merge(job.stream("b"))
    assert plan_of(merged).schema is None
    assert plan_of(merged).value_type is None


@pytest.mark.parametrize(
    "aggregate",
    [
        agg.max("nope"),
        agg.sum("symbol"),
        agg.mean("symbol"),
        agg.sum("open"),
        agg.mean("tags"),
        agg.min("tags"),
        agg.std("symbol"),
        agg.top_k("tags", 3),
        agg.distinct("tags"),
        agg.distinct("tags", approx=True),
        agg.arg_max("nope", by="price"),
        agg.arg_max("price", by="nope"),
        agg.arg_min("price", by="tags"),
    ],
)
def test_an_aggregate_that_its_column_does_not_allow_is_refused_at_import(aggregate: Aggregate) -> None:
    with pytest.raises(DefinitionError, match="'it'"):
        trades().group_by("symbol", name="by_symbol").agg({"it": aggregate}, name="result")


def test_fields_of_rows_without_a_columnar_form_are_checked_too() -> None:
    grouped = Job("j").stream("t", value=WithOpaque).group_by(lambda row: row.size, name="by_size")
    with pytest.raises(DefinitionError, match="does not exist"):
        grouped.agg({"it": agg.max("nope")}, name="result")
    assert plan_of(grouped.agg({"it": agg.max("anything")}, name="of_anything")).spelling == "python"


def test_text_has_one_column_to_aggregate_and_can_be_counted() -> None:
    grouped = Job("j").stream("t", value=str).group_by(lambda row: row, name="by_row")
    with pytest.raises(DefinitionError, match="the column 'price', which does not exist"):
        grouped.agg({"it": agg.max("price")}, name="result")
    assert plan_of(grouped.agg({"it": agg.max("value")}, name="longest")).schema == {"it": pl.String()}
    assert plan_of(grouped.count(name="counted")).value_type is int


def test_rows_of_unknown_type_may_have_any_column() -> None:
    grouped = Job("j").stream("t").group_by(lambda row: row["a"], name="by_a")
    assert plan_of(grouped.agg({"it": agg.max("price")}, name="result")).spelling == "python"


class Result(msgspec.Struct):
    n: int
    total: float


class Wrong(msgspec.Struct):
    n: int
    total: int


def test_typed_is_checked_against_what_is_known() -> None:
    table = (
        trades().group_by("symbol", name="by_symbol").agg({"n": agg.count(), "total": agg.sum("price")}, name="sums")
    )
    with pytest.raises(DefinitionError, match=r"typed\(Wrong\) does not fit"):
        table.typed(Wrong)
    assert plan_of(table.typed(Result)).value_type is Result
    with pytest.raises(DefinitionError, match="cannot be read from JSON"):
        table.typed(Opaque)


def test_typed_after_a_function_of_frames_is_taken_at_its_word() -> None:
    assert plan_of(trades().map_batches(lambda frame: frame.select(n="size")).typed(Wrong)).value_type is Wrong


DTYPES = [
    pl.Int8(),
    pl.Int32(),
    pl.Int64(),
    pl.UInt32(),
    pl.Float32(),
    pl.Float64(),
    pl.String(),
    pl.Boolean(),
    pl.Binary(),
]


@pytest.mark.parametrize("kind", ["count", "sum", "min", "max", "mean", "first", "last"])
@pytest.mark.parametrize("dtype", [*DTYPES, pl.List(pl.Int64()), pl.Struct({"a": pl.List(pl.String())})], ids=str)
def test_what_an_aggregate_makes_is_what_the_engine_makes(kind: Any, dtype: pl.DataType) -> None:
    columns = {"it": Aggregate(kind, None if kind == "count" else "column")}
    try:
        check_aggregates(columns, {"column": dtype})
    except DefinitionError as refused:
        assert kind in str(refused)
        return
    assert result_schema(columns, {"column": dtype}) == FrameAggregates(columns, {"column": dtype}).result_schema


def test_a_window_marks_the_keys_of_its_results_and_facts_drop_the_mark() -> None:
    job = Job("plans")
    minutes = (
        trades(job).group_by("symbol", name="by_symbol").window(Tumbling(timedelta(minutes=1), grace=timedelta(0)))
    )
    table = minutes.count(name="counts")
    facts = table.to_stream()
    facts.to("facts")
    minutes.late.to("late")
    plans = compile_graph(job.build()).plans
    assert [plans[handle.name].windowed for handle in (minutes, table, facts, minutes.late)] == [
        True,
        True,
        False,
        False,
    ]


class Listed(msgspec.Struct):
    top: list[float]
    sizes: list[int]
    kinds: int
    sd: float
    dearest: int


def test_rows_of_lists_can_be_typed() -> None:
    how = {
        "top": agg.top_k("price", 2),
        "sizes": agg.collect("size"),
        "kinds": agg.distinct("symbol"),
        "sd": agg.std("size"),
        "dearest": agg.arg_max("size", by="price"),
    }
    grouped = trades().group_by("symbol", name="by_symbol")
    assert plan_of(grouped.agg(how, name="lists").typed(Listed)).value_type is Listed
    with pytest.raises(DefinitionError, match=r"typed\(Listed\) does not fit"):
        grouped.agg(how | {"top": agg.top_k("size", 2)}, name="others").typed(Listed)
