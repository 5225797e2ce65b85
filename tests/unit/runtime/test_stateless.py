"""Stateless steps: both spellings of an operator agree, and an exception names its record."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import polars as pl
import pytest
from batches import batch_of
from hypothesis import given
from hypothesis import strategies as st
from row_types import INTS, TEXTS, Optional, Point

from streamkit.errors import DeserializationError, ProcessingError, RecordError
from streamkit.graph import Filter, FlatMap, KeyBy, Map, MapBatches, MapValues, Merge, Node, Peek, Select, Typed
from streamkit.records import Batch, Column
from streamkit.runtime.operators.base import Fan
from streamkit.runtime.operators.stateless import Chain, Step, step_for
from streamkit.runtime.places import rows_in_record
from streamkit.serde import frame_serde, key_serde, value_serde
from streamkit.topology import NodePlan

ROWS = st.lists(
    st.builds(Optional, st.none() | INTS, st.none() | st.floats(-5, 5), st.none() | TEXTS, st.none() | st.booleans()),
    max_size=8,
)
SCHEMA = {"number": pl.Int64(), "ratio": pl.Float64(), "text": pl.String(), "flag": pl.Boolean()}


def unchecked(node: Node, step: Step) -> Step:
    del node
    return step


def plan(spelling: Any = "python", *, key_type: Any = str, value_type: Any = Optional, schema: Any = None) -> NodePlan:
    return NodePlan(spelling=spelling, schema=schema, key_type=key_type, value_type=value_type)


def run(node: Node, batch: Batch, how: NodePlan | None = None) -> Batch:
    return step_for(node, how or plan(), unchecked)(batch)


def batch(rows: list[Any], value_type: Any = Optional, first_offset: int = 40) -> Batch:
    offsets = range(first_offset, first_offset + len(rows))
    keys = [f"k{index}" for index in range(len(rows))]
    return batch_of(key_serde(str), keys, value_serde(value_type), rows, offsets=list(offsets))


def listed(made: Batch) -> list[tuple[Any, Any, int]]:
    return list(zip(made.keys.objects(), made.values.objects(), made.offsets.tolist(), strict=True))


PREDICATES: list[tuple[pl.Expr, Callable[[Optional], bool]]] = [
    (pl.col("flag"), lambda row: bool(row.flag)),
    (pl.col("number") > 0, lambda row: row.number is not None and row.number > 0),
    (pl.col("text").is_null(), lambda row: row.text is None),
    (pl.col("ratio").is_between(-1, 1), lambda row: row.ratio is not None and -1 <= row.ratio <= 1),
]


@pytest.mark.parametrize("negate", [False, True])
@pytest.mark.parametrize("index", range(len(PREDICATES)))
@given(ROWS)
def test_a_filter_keeps_the_same_rows_in_both_spellings(index: int, negate: bool, rows: list[Optional]) -> None:
    """A null is not true: its row fails the predicate and passes the negation."""
    expression, function = PREDICATES[index]
    by_columns = run(Filter(name="f", predicate=expression, negate=negate), batch(rows))
    by_rows = run(Filter(name="f", predicate=function, negate=negate), batch(rows))
    assert listed(by_columns) == listed(by_rows)
    assert [row for _, row, _ in listed(by_rows)] == [row for row in rows if function(row) != negate]


@given(ROWS)
def test_a_selection_is_the_map_that_makes_the_same_columns(rows: list[Optional]) -> None:
    expressions = ((pl.col("ratio") * 2).alias("double"), pl.col("text"))
    schema = {"double": pl.Float64(), "text": pl.String()}
    select = run(
        Select(name="s", expressions=expressions), batch(rows), plan("columns", value_type=None, schema=schema)
    )
    mapped = run(
        Map(name="m", fn=lambda row: {"double": None if row.ratio is None else row.ratio * 2, "text": row.text}),
        batch(rows),
        plan(value_type=None),
    )
    assert listed(select) == listed(mapped)
    kept = run(
        Select(name="s", expressions=expressions[:1], keep=True),
        batch(rows),
        plan("columns", value_type=None, schema=SCHEMA | schema),
    )
    assert kept.values.frame().columns == [*SCHEMA, "double"]


@given(st.lists(st.tuples(INTS, TEXTS), max_size=6))
def test_a_key_is_the_same_in_both_spellings(pairs: list[tuple[int, str]]) -> None:
    rows = [Optional(number, text=text) for number, text in pairs]
    for field, key_type in (("number", int), ("text", str), ("number", None), ("text", None)):
        by_rows = run(
            KeyBy(name="k", key=lambda row, field=field: getattr(row, field)), batch(rows), plan(key_type=key_type)
        )
        for key in (field, pl.col(field)):
            by_columns = run(KeyBy(name="k", key=key), batch(rows), plan("columns", key_type=key_type))
            assert list(by_columns.keys.encoded()) == list(by_rows.keys.encoded())
            assert by_columns.offsets.tolist() == by_rows.offsets.tolist()


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=6))
def test_flat_map_gives_the_rows_of_each_record_in_order(lists: list[list[int]]) -> None:
    for fn in (list, iter, tuple):
        made = run(FlatMap(name="f", fn=fn), batch(lists, list[int]), plan(value_type=int))
        assert listed(made) == [
            (f"k{index}", value, 40 + index) for index, values in enumerate(lists) for value in values
        ]


@given(ROWS)
def test_what_is_looked_at_and_what_is_typed_stays_as_it_is(rows: list[Optional]) -> None:
    seen: list[Optional] = []
    assert listed(run(Peek(name="p", fn=seen.append), batch(rows))) == listed(batch(rows))
    assert seen == rows
    assert listed(run(Typed(name="t", value_type=Optional), batch(rows))) == listed(batch(rows))
    framed = batch(rows).with_values(Column(frame_serde(SCHEMA), frame=value_serde(Optional).frame_from_objects(rows)))
    assert listed(run(Typed(name="t", value_type=Optional), framed)) == listed(batch(rows))


@given(ROWS)
def test_typed_makes_rows_of_dicts_as_of_columns(rows: list[Optional]) -> None:
    """What `agg` makes in Python, and untyped JSON, are dicts; the next function is promised rows."""
    loose = batch(rows).with_values(Column(value_serde(None), objects=list(map(msgspec.structs.asdict, rows))))
    assert listed(run(Typed(name="t", value_type=Optional), loose)) == listed(batch(rows))


def test_a_dict_that_is_not_what_typed_states_is_a_bad_record() -> None:
    loose = batch([{"x": 1, "y": 2}, {"x": "one", "y": 2}], None)
    with pytest.raises(RecordError, match="does not encode as Point: Expected `int`") as raised:
        run(Typed(name="stated", value_type=Point), loose)
    assert (raised.value.offset, raised.value.node) == (41, "stated")


@given(ROWS)
def test_map_batches_gives_rows_that_stem_from_their_records(rows: list[Optional]) -> None:
    same = run(MapBatches(name="m", fn=lambda frame: frame.drop("__row__")), batch(rows))
    assert [(key, offset) for key, _, offset in listed(same)] == [
        (key, offset) for key, _, offset in listed(batch(rows))
    ]
    odd = run(MapBatches(name="m", fn=lambda frame: frame.filter(pl.col("__row__") % 2 == 1)), batch(rows))
    assert odd.offsets.tolist() == batch(rows).offsets.tolist()[1::2]
    assert odd.values.frame().columns == list(SCHEMA)
    none = run(MapBatches(name="m", fn=lambda frame: frame.drop("__row__").clear()), batch(rows))
    assert len(none) == 0


def test_a_selection_of_literals_has_a_row_for_each_row() -> None:
    rows = [Optional(), Optional()]
    made = run(
        Select(name="s", expressions=(pl.lit(1).alias("one"),)),
        batch(rows),
        plan("columns", value_type=None, schema={"one": pl.Int32()}),
    )
    assert listed(made) == [("k0", {"one": 1}, 40), ("k1", {"one": 1}, 41)]


def raising(row: Optional) -> Any:
    if row.number == 0:
        raise KeyError("no such city")
    return row


def raising_late(row: Optional) -> Iterable[Any]:
    yield row
    raising(row)


@pytest.mark.parametrize(
    "node",
    [
        Map(name="n", fn=raising),
        MapValues(name="n", fn=raising),
        Filter(name="n", predicate=raising),
        Peek(name="n", fn=raising),
        FlatMap(name="n", fn=raising),
        FlatMap(name="n", fn=raising_late),
        KeyBy(name="n", key=raising),
    ],
    ids=lambda node: f"{type(node).__name__} {getattr(node, 'fn', raising).__name__}",
)
def test_a_users_exception_names_the_record(node: Node) -> None:
    rows = [Optional(1)] * 3 + [Optional(0)] * 2
    if isinstance(node, FlatMap) and node.fn is raising:
        rows = rows[:0] + rows[3:]
    with pytest.raises(ProcessingError, match="KeyError: 'no such city'") as caught:
        run(node, batch(rows))
    error = caught.value
    assert (error.topic, error.partition, error.offset, error.node) == ("source", 0, 40 + rows.index(Optional(0)), "n")
    assert error.data == repr(Optional(0)).encode()
    assert isinstance(error.__cause__, KeyError)


def test_a_result_that_is_no_iterable_names_the_record() -> None:
    with pytest.raises(ProcessingError, match="TypeError") as caught:
        run(FlatMap(name="n", fn=lambda row: 5), batch([Optional(), Optional()]))  # type: ignore[arg-type, return-value]  # the point
    assert caught.value.offset == 40


@pytest.mark.parametrize(
    "node",
    [
        Filter(name="n", predicate=pl.col("text").str.to_integer() > 1),
        Select(name="n", expressions=(pl.col("text").str.to_integer(),)),
        KeyBy(name="n", key=pl.col("text").str.to_integer()),
        MapBatches(name="n", fn=lambda frame: frame.select(pl.col("text").str.to_integer())),
        MapBatches(name="n", fn=lambda frame: frame.select("number").head(1)),
    ],
    ids=lambda node: type(node).__name__,
)
def test_an_expression_that_fails_names_the_batch(node: Node) -> None:
    with pytest.raises(ProcessingError) as caught:
        run(node, batch([Optional(text="1"), Optional(text="x")]), plan("columns", key_type=int, schema=SCHEMA))
    error = caught.value
    assert (error.topic, error.partition, error.offset, error.node) == ("source", 0, 40, "n")
    assert "offsets 40 to 41" in error.hint


def test_a_null_key_names_the_record() -> None:
    with pytest.raises(RecordError, match="the key is null") as caught:
        run(KeyBy(name="n", key="number"), batch([Optional(1), Optional(None)]), plan("columns", key_type=int))
    assert caught.value.offset == 41


@pytest.mark.parametrize(
    "node",
    [
        Map(name="n", fn=raising),
        Filter(name="n", predicate=pl.col("x") > 0),
        Select(name="n", expressions=(pl.col("x"),)),
        MapBatches(name="n", fn=lambda frame: frame),
        KeyBy(name="n", key="x"),
    ],
    ids=lambda node: type(node).__name__,
)
def test_a_record_that_does_not_decode_names_itself(node: Node) -> None:
    encoded: list[bytes | None] = [b'{"x": 1, "y": 1.0}', b'{"x": "1", "y": 1.0}']
    rows = batch([Optional(), Optional()]).with_values(Column(value_serde(Point), encoded=encoded))
    with pytest.raises(DeserializationError) as caught:
        run(node, rows, plan("columns", value_type=Point, schema={"x": pl.Int64(), "y": pl.Float64()}))
    assert (caught.value.offset, caught.value.data) == (41, encoded[1])


def test_an_unknown_node_is_a_mistake_of_the_engine() -> None:
    with pytest.raises(AssertionError, match="not a stateless node"):
        step_for(Merge(name="m"), plan(), unchecked)


class Recorder:
    """What reaches the end of a chain."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def receive(self, batch: Batch) -> None:
        self.seen.append(batch.values.objects())

    def advance(self, watermark_ms: int) -> None:
        self.seen.append(watermark_ms)

    def end(self) -> None:
        self.seen.append("end")


def test_a_chain_stops_when_no_row_is_left_and_lets_watermarks_and_the_end_through() -> None:
    calls: list[int] = []
    out, recorder = Fan(), Recorder()
    out.add(recorder)
    steps = [
        step_for(node, plan(value_type=int), unchecked)
        for node in (Filter(name="f", predicate=lambda value: value > 1), Peek(name="p", fn=calls.append))
    ]
    chain = Chain(steps, out)
    for values in ([1, 2, 3], [0, 1], []):
        chain.receive(batch(values, int))
    chain.advance(5)
    chain.advance(5)
    chain.end()
    assert calls == [2, 3]
    assert recorder.seen == [[2, 3], 5, "end"]


def test_the_rows_of_each_record_are_numbered() -> None:
    """Their order is part of what `first` and `last` go by; where a batch is cut, no record is."""
    made = run(FlatMap(name="f", fn=lambda value: [value] * value), batch([2, 0, 3, 1], int), plan(value_type=int))
    assert rows_in_record(made).tolist() == [0, 1, 0, 1, 2, 0]
