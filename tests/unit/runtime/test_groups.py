"""Groups of an aggregation, in both spellings, against a dict."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from batches import batch_of
from hypothesis import given
from hypothesis import strategies as st
from row_types import Point

from streamkit.errors import ProcessingError, RecordError, SerializationError
from streamkit.graph import Aggregate, Aggregation, Columns, Fold, Reduce
from streamkit.records import Batch, Column, TopicPartition
from streamkit.runtime.aggregates import FrameAggregates
from streamkit.runtime.groups import FrameGroups, Groups, RowGroups, RowWindows, fold_for
from streamkit.serde import frame_serde, key_serde, value_serde

AGGREGATES = {"rows": Aggregate("count"), "total": Aggregate("sum", "v"), "newest": Aggregate("last", "v")}
SCHEMA = {"v": pl.Int64()}
ROW_SERDE = frame_serde(SCHEMA)


def frame_groups(key_type: Any, aggregates: dict[str, Aggregate] = AGGREGATES, scalar: str | None = None) -> Groups:
    made = FrameAggregates(aggregates, SCHEMA)
    results = value_serde(int) if scalar else frame_serde(made.result_schema)
    return FrameGroups("node", made, key_serde(key_type), results, scalar)


def row_groups(key_type: Any, how: Fold | Reduce | Columns | None = None) -> RowGroups:
    node = Aggregation(name="node", how=how or Columns(aggregates=AGGREGATES))
    return RowGroups("node", fold_for(node), key_serde(key_type), key_type, value_serde(None))


SPELLINGS: dict[str, Callable[[Any], Groups]] = {"columns": frame_groups, "python": row_groups}
both_spellings = pytest.mark.parametrize("spelling", SPELLINGS)

ROWS = st.lists(st.tuples(st.sampled_from([10, 20, 30]), st.sampled_from("abé"), st.none() | st.integers(-9, 9)))
Rows = list[tuple[int, str, int | None]]


def batch(key_type: Any, keys: Sequence[Any], values: Sequence[Any], first_offset: int = 0) -> Batch:
    offsets = range(first_offset, first_offset + len(keys))
    rows = [{"v": value} for value in values]
    return batch_of(key_serde(key_type), keys, ROW_SERDE, rows, offsets=list(offsets))


def modelled(rows: Rows) -> dict[tuple[int, bytes], dict[str, Any]]:
    """Return what the groups of rows are, by their definition."""
    groups: dict[tuple[int, bytes], list[int | None]] = {}
    for end_ms, key, value in rows:
        groups.setdefault((end_ms, key.encode()), []).append(value)
    return {
        place: {
            "rows": len(values),
            "total": sum(present) if (present := [value for value in values if value is not None]) else None,
            "newest": present[-1] if present else None,
        }
        for place, values in groups.items()
    }


def listed(groups: Groups) -> dict[tuple[int, bytes], dict[str, Any]]:
    """Return the results of groups, which are in order, and agree with what else lists them."""
    if not len(groups):
        return {}
    results = groups.results()
    keys = list(results.keys.encoded())
    places = list(zip(results.ends_ms.tolist(), keys, strict=True))
    assert places == sorted(places)
    assert (groups.ends_ms().tolist(), list(groups.keys())) == (results.ends_ms.tolist(), keys)
    return dict(zip(places, results.values.objects(), strict=True))  # type: ignore[arg-type]  # keys are no nulls


class Machine:
    """Groups beside the rows that went into them, through everything that may happen to groups."""

    def __init__(self, spelling: str) -> None:
        self.make = SPELLINGS[spelling]
        self.groups = self.make(str)
        self.rows: Rows = []
        self.offset = 0

    def add(self, rows: Rows) -> None:
        self._add_to(self.groups, rows)

    def _add_to(self, groups: Groups, rows: Rows) -> None:
        if rows:
            some = batch(str, [key for _, key, _ in rows], [value for _, _, value in rows], self.offset)
            groups.add(some, RowWindows(ends_ms=np.array([end_ms for end_ms, _, _ in rows], dtype=np.int64)))
        self.rows += rows
        self.offset += len(rows)

    def absorb(self, rows: Rows) -> None:
        """Rows that another task folded."""
        upstream = self.make(str)
        self._add_to(upstream, rows)
        if rows:
            for shard, block in upstream.blocks(3):
                assert 0 <= shard < 3
                self.groups.absorb(block)

    def merge_stored(self, rows: Rows) -> None:
        """Rows that an earlier commit stored; those of groups that are not here are loaded."""
        stored_groups = self.make(str)
        self._add_to(stored_groups, rows)
        if not rows:
            return
        places = list(zip(stored_groups.ends_ms().tolist(), stored_groups.keys(), strict=True))
        stored = dict(zip(places, stored_groups.encoded(), strict=True))
        mine = list(zip(self.groups.ends_ms().tolist(), self.groups.keys(), strict=True))
        self.groups.merge_stored([stored.pop(place, None) for place in mine])
        assert list(zip(self.groups.ends_ms().tolist(), self.groups.keys(), strict=True)) == mine
        ends, keys = [end for end, _ in stored], [key for _, key in stored]
        self.groups.load(ends, keys, list(stored.values()))

    def take_until(self, end_ms: int) -> None:
        taken = self.groups.take_until(end_ms)
        closed = [row for row in self.rows if row[0] <= end_ms]
        self.rows = [row for row in self.rows if row[0] > end_ms]
        assert listed(taken) == modelled(closed)

    def look(self) -> None:
        assert listed(self.groups) == modelled(self.rows)

    def take_all(self) -> None:
        taken = self.groups.take_all()
        assert len(self.groups) == 0
        self.groups = taken


STEPS = st.one_of(
    st.tuples(st.sampled_from(["add", "absorb", "merge_stored"]), ROWS),
    st.tuples(st.just("take_until"), st.sampled_from([5, 10, 20, 30])),
    st.tuples(st.sampled_from(["look", "take_all"])),
)


@both_spellings
@given(st.lists(STEPS, max_size=6))
def test_groups_are_what_a_dict_of_rows_says(spelling: str, steps: list[tuple[Any, ...]]) -> None:
    machine = Machine(spelling)
    for name, *arguments in steps:
        getattr(machine, name)(*arguments)
    machine.look()


@both_spellings
def test_stored_groups_have_the_same_bytes_however_they_came_together(spelling: str) -> None:
    rows: Rows = [(10, "a", 1), (10, "b", None), (10, "a", 3), (20, "a", 4)]
    at_once, bit_by_bit = Machine(spelling), Machine(spelling)
    at_once.add(rows)
    for row in rows:
        bit_by_bit.absorb([row])
    stored = [
        dict(zip(zip(one.ends_ms().tolist(), one.keys(), strict=True), one.encoded(), strict=True))
        for one in (at_once.groups, bit_by_bit.groups)
    ]
    assert stored[0] == stored[1]


KEYS: dict[Any, list[Any]] = {
    str: ["b", "a", "é"],
    bytes: [b"b", b"\xff", b""],
    int: [2, 10, -1],
    float: [0.0, -0.0, 1.5],
    bool: [True, False, True],
    Point: [Point(2, 1.0), Point(1, 0.0), Point(1, -0.0)],
    list[int]: [[2], [1, 1], []],
    None: [b"b", "a", 7],
}


@both_spellings
@pytest.mark.parametrize("key_type", KEYS)
def test_two_keys_are_one_group_if_they_are_encoded_alike(spelling: str, key_type: Any) -> None:
    """0.0 and -0.0 are two keys in either spelling; in both forms results are in the order of the keys' bytes."""
    keys = KEYS[key_type]
    encoded = key_serde(key_type).encoded_from_objects(keys)
    groups = SPELLINGS[spelling](key_type)
    groups.add(batch(key_type, keys, [1] * len(keys)), None)
    groups.add(batch(key_type, keys, [1] * len(keys), first_offset=5), None)
    found = {key: row["rows"] for (_, key), row in listed(groups).items()}
    assert found == {key: 2 * encoded.count(key) for key in encoded}
    again = SPELLINGS[spelling](key_type)
    again.load(groups.ends_ms().tolist(), groups.keys(), groups.encoded())
    assert listed(again) == listed(groups)
    assert again.results().keys.objects() == key_serde(key_type).objects_from_encoded(sorted(encoded_once(encoded)))


def encoded_once(encoded: Sequence[bytes | None]) -> list[bytes]:
    return [key for key in dict.fromkeys(encoded) if key is not None]


@pytest.mark.parametrize(
    ("key_type", "column"), [(int, pl.Series([1, 2], dtype=pl.Int8)), (None, pl.Series(["a", "b"])), (None, [1, 2])]
)
def test_keys_that_an_expression_made_meet_those_that_were_stored(key_type: Any, column: Any) -> None:
    serde = key_serde(key_type)
    rows = batch(key_type, [b"", b""], [1, 2]).with_keys(Column(serde, frame=pl.DataFrame({"key": column})))
    groups, stored = frame_groups(key_type), frame_groups(key_type)
    groups.add(rows, None)
    stored.load(groups.ends_ms().tolist(), groups.keys(), groups.encoded())
    stored.add(rows, None)
    assert [row["rows"] for row in listed(stored).values()] == [2, 2]


@both_spellings
@pytest.mark.parametrize(
    ("key_type", "keys"),
    [
        (int, [1, True]),
        (int, [1, 1.0]),
        (int, [1, None]),
        (str, ["a", None]),
        (float, [1.0, None]),
        (int, [1, "1"]),
        (None, [b"a", None]),
    ],
)
def test_a_key_that_is_none_names_its_record(spelling: str, key_type: Any, keys: list[Any]) -> None:
    """True is not the group of 1, whichever comes first."""
    with pytest.raises(RecordError) as caught:
        SPELLINGS[spelling](key_type).add(batch(key_type, keys, [1, 2], first_offset=7), None)
    assert (caught.value.topic, caught.value.partition, caught.value.offset) == ("source", 0, 8)
    assert caught.value.node == "node"


def test_a_key_of_another_type_fails_when_the_groups_leave() -> None:
    groups = row_groups(str)
    groups.add(batch(str, ["a", 5], [1, 2]), None)
    with pytest.raises(SerializationError, match="5 is not of the declared type"):
        groups.keys()


@both_spellings
def test_an_integer_sum_that_leaves_64_bits_is_an_error_that_names_the_group(spelling: str) -> None:
    groups = SPELLINGS[spelling](str)
    groups.add(batch(str, ["fine", "over", "over"], [1, 2**63 - 1, 1]), None)
    with pytest.raises(ProcessingError, match=r"an integer sum leaves 64 bits: 'total'") as caught:
        groups.results()
    assert caught.value.node == "node"
    assert "over" in str(caught.value)


@both_spellings
def test_a_value_that_is_no_row_names_its_record(spelling: str) -> None:
    rows = batch_of(key_serde(str), ["a", "a"], value_serde(Point), [Point(1, 2.0), Point("x", 1.0)], offsets=[3, 4])
    aggregates = {"total": Aggregate("sum", "x")}
    groups: Groups = (
        FrameGroups("node", FrameAggregates(aggregates, {"x": pl.Int64()}), key_serde(str), frame_serde({}), None)
        if spelling == "columns"
        else row_groups(str, Columns(aggregates=aggregates))
    )
    with pytest.raises(RecordError) as caught:
        groups.add(rows, None)
    assert caught.value.offset == 4


def test_a_count_alone_is_a_bare_number_in_both_spellings() -> None:
    count = {"value": Aggregate("count")}
    for groups in (
        frame_groups(str, count, scalar="value"),
        row_groups(str, Columns(aggregates=count, scalar=True)),
    ):
        groups.add(batch(str, ["a", "b", "a"], [1, 2, 3]), None)
        assert groups.results().values.objects() == [2, 1]


def test_first_and_last_go_by_timestamp_topic_partition_and_offset() -> None:
    ends = {"oldest": Aggregate("first", "v"), "newest": Aggregate("last", "v")}
    places = [(5, "b", 0, 1), (5, "a", 10, 1), (5, "a", 2, 9), (5, "a", 2, 3), (4, "z", 0, 0), (6, "a", 0, 0)]
    ordered = sorted(range(len(places)), key=places.__getitem__)
    for groups in (frame_groups(str, ends), row_groups(str, Columns(aggregates=ends))):
        for index, (timestamp_ms, topic, partition, offset) in enumerate(places):
            groups.add(
                batch_of(
                    key_serde(str),
                    ["a"],
                    ROW_SERDE,
                    [{"v": index}],
                    timestamps_ms=[timestamp_ms],
                    offsets=[offset],
                    source=TopicPartition(topic, partition),
                ),
                None,
            )
        assert groups.results().values.objects() == [{"oldest": ordered[0], "newest": ordered[-1]}]


def test_an_ordered_fold_loads_what_is_stored_before_it_folds() -> None:
    how = Fold(fn=lambda text, row: text + str(row["v"]), initial=str, accumulator_type=str)
    groups = row_groups(str, how)
    rows = batch(str, ["a", "b", "a"], [1, 2, 3])
    assert groups.missing_keys(rows, None) == [(0, b"a"), (0, b"b")]
    groups.load([0], [b"a"], fold_for(Aggregation(name="n", how=how)).encode(["0"]))
    assert groups.missing_keys(rows, None) == [(0, b"b")]
    assert groups.missing_keys(rows, RowWindows(ends_ms=np.array([10, 10, 20]))) == [(10, b"a"), (10, b"b"), (20, b"a")]
    groups.add(rows, None)
    groups.merge_stored([b"never read"] * 2)
    assert listed(groups) == {(0, b"a"): "013", (0, b"b"): "2"}


@pytest.mark.parametrize(
    "how",
    [
        Fold(fn=lambda total, row: total + 10 // row["v"], initial=int, merge=operator.add),
        Reduce(fn=lambda one, other: {"v": 10 // other["v"]}),
    ],
)
def test_a_fold_that_raises_names_its_record(how: Fold | Reduce) -> None:
    groups = row_groups(str, how)
    rows = batch(str, ["a", "a", "b", "a"], [1, 2, 3, 0], first_offset=10)
    with pytest.raises(ProcessingError, match="ZeroDivisionError") as caught:
        groups.add(rows, RowWindows(ends_ms=np.array([10, 20, 10, 10])))
    assert caught.value.offset == 13
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_merge_that_raises_names_the_group() -> None:
    groups = row_groups(str, Fold(fn=lambda total, row: row["v"], initial=int, merge=lambda one, other: 1 // 0))
    groups.add(batch(str, ["a"], [1]), None)
    with pytest.raises(ProcessingError) as caught:
        groups.load([0], [b"a"], groups.encoded())
    assert caught.value.data == b"a"


def test_an_accumulator_that_cannot_be_stored_says_so() -> None:
    groups = row_groups(str, Fold(fn=lambda total, row: 2**70, initial=int, merge=operator.add))
    groups.add(batch(str, ["a"], [1]), None)
    with pytest.raises(SerializationError, match="an accumulator of int cannot be stored"):
        groups.encoded()


@both_spellings
def test_groups_without_rows_list_nothing(spelling: str) -> None:
    groups = SPELLINGS[spelling](str)
    groups.load([], [], [])
    assert len(groups) == 0
    assert (groups.ends_ms().tolist(), list(groups.keys()), groups.encoded()) == ([], [], [])
    assert len(groups.take_until(2**62)) == 0


def test_partial_frames_are_merged_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit.runtime.groups.frames._UNMERGED_ROWS_MAX", 3)
    groups = frame_groups(str)
    for offset in range(10):
        groups.add(batch(str, ["a", "b"], [1, 1], first_offset=2 * offset), None)
        assert len(groups) <= 4
    assert [row["rows"] for row in listed(groups).values()] == [10, 10]


def test_many_groups_are_not_merged_again_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a thousand batches of new keys would cost a thousand passes over all of them."""
    monkeypatch.setattr("streamkit.runtime.groups.frames._UNMERGED_ROWS_MAX", 10)
    merged_heights: list[int] = []

    class Watched(FrameAggregates):
        def merge(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
            merged_heights.append(frame.height)
            return super().merge(frame, by)

    made = Watched({"n": Aggregate("count")}, {"x": pl.Int64()})
    groups = FrameGroups("node", made, key_serde(int), frame_serde(made.result_schema), None)
    for number in range(200):
        groups.add(batch(int, [number], [1]), None)
    assert len(groups.results().ends_ms) == 200
    assert sum(merged_heights) < 4 * 200


def test_a_reduce_folds_and_merges_with_one_function() -> None:
    how = Reduce(fn=lambda one, other: {"v": max(one["v"], other["v"])})
    upstream, groups = row_groups(str, how), row_groups(str, how)
    upstream.add(batch(str, ["a", "b", "a"], [5, 1, 7]), None)
    groups.add(batch(str, ["a", "a"], [6, 2]), None)
    for _, block in upstream.blocks(2):
        groups.absorb(block)
    assert listed(groups) == {(0, b"a"): {"v": 7}, (0, b"b"): {"v": 1}}


def test_a_key_that_cannot_be_looked_up_names_its_record() -> None:
    groups = row_groups(int, Fold(fn=lambda total, row: total, initial=int))
    with pytest.raises(RecordError) as caught:
        groups.missing_keys(batch(int, [1, "x"], [1, 2], first_offset=7), None)
    assert caught.value.offset == 8


@both_spellings
def test_only_windows_that_are_over_are_taken(spelling: str) -> None:
    groups = SPELLINGS[spelling](str)
    groups.add(batch(str, ["a", "a"], [1, 2]), RowWindows(ends_ms=np.array([10, 20])))
    groups.keys()
    groups.add(batch(str, ["a", "b"], [3, 4], first_offset=2), RowWindows(ends_ms=np.array([10, 20])))
    taken = groups.take_until(10)
    assert {place: row["total"] for place, row in listed(taken).items()} == {(10, b"a"): 4}
    assert {place: row["total"] for place, row in listed(groups).items()} == {(20, b"a"): 2, (20, b"b"): 4}


def fold_four(here: Groups, there: Groups, split: int) -> None:
    """Fold four values of one key, some of them elsewhere."""
    here.add(batch(str, ["a"] * split, list(range(split))), None)
    there.add(batch(str, ["a"] * (4 - split), list(range(split, 4)), first_offset=split), None)
    for _, block in there.blocks(1):
        here.absorb(block)
    here.results()


@pytest.mark.parametrize("kind", ["collect", "distinct"])
@pytest.mark.parametrize("split", [1, 2, 3, 4])
def test_a_group_with_more_values_than_allowed_is_an_error_that_names_it_wherever_it_is_met(
    kind: Any, split: int
) -> None:
    """In one batch, when batches are merged, when a block arrives, and when stored groups are merged in."""
    how = {"x": Aggregate(kind, "v", limit=3)}
    for make in (lambda: frame_groups(str, how), lambda: row_groups(str, Columns(aggregates=how))):
        fine = make()
        fine.add(batch(str, ["a", "b", "a", "a"], [1, 2, 3, 4]), None)
        assert len(fine.results().values.objects()) == 2
        with pytest.raises(ProcessingError, match="a group has more than 3 values: 'x'") as raised:
            fold_four(make(), make(), split)
        assert "raise limit=" in (raised.value.hint or "")
        assert "'a'" in str(raised.value) or raised.value.data in (b"a", b"{'v': 3}")


class Tally(msgspec.Struct):
    counts: dict[str, int]
    names: set[str]


def tallied(tally: Tally, row: dict[str, Any]) -> Tally:
    name = f"name {row['v']}"
    return Tally({**tally.counts, name: tally.counts.get(name, 0) + 1}, tally.names | {name})


def tallied_together(one: Tally, other: Tally) -> Tally:
    names = (*one.counts, *other.counts)
    counts = {name: one.counts.get(name, 0) + other.counts.get(name, 0) for name in names}
    return Tally(counts, other.names | one.names)


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(0, 10))
def test_equal_accumulators_are_stored_and_published_alike_in_whatever_order_they_were_filled(
    values: list[int], cut: int
) -> None:
    """Python says that two dicts are equal, so a merge that gives equal ones is exact; their bytes must be too."""
    how = Fold(fn=tallied, initial=lambda: Tally({}, set()), merge=tallied_together, accumulator_type=Tally)
    made = []
    for parts in ([values], [values[:cut], values[cut:]], [values[cut:], values[:cut]], [values[::-1]]):
        groups = row_groups(str, how)
        for part in parts:
            some = row_groups(str, how)
            some.add(batch(str, ["a"] * len(part), part), None)
            for _, block in some.blocks(1):
                groups.absorb(block)
        results = groups.results().values.objects()
        made.append((groups.encoded(), value_serde(Tally).encoded_from_objects(results), list(results[0].counts)))
    assert all(one == made[0] for one in made[1:])


class Kept(msgspec.Struct):
    b: int
    a: int


def test_a_struct_of_no_declared_type_is_stored_alike_when_it_comes_back_as_a_dict() -> None:
    fold = fold_for(Aggregation(name="node", how=Reduce(fn=max, commutative=True, value_type=None)))
    stored = fold.encode([Kept(b=1, a=2)])
    assert fold.encode(fold.decode(stored)) == stored
    assert list(fold.final(Kept(b=1, a=2))) == list(fold.final({"b": 1, "a": 2})) == ["a", "b"]


def test_a_dict_that_was_filled_in_the_order_of_the_rows_keeps_it_when_it_is_stored() -> None:
    def newest(kept: dict[str, int], row: dict[str, Any]) -> dict[str, int]:
        name = f"name {row['v']}"
        return {**{one: n for one, n in kept.items() if one != name}, name: 1}

    how = Fold(fn=newest, initial=dict, merge=None, accumulator_type=dict[str, int])
    groups, again = row_groups(str, how), row_groups(str, how)
    groups.add(batch(str, ["a"] * 4, [2, 1, 3, 2]), None)
    again.load(groups.ends_ms().tolist(), groups.keys(), groups.encoded())
    for some in (groups, again):
        assert list(some.results().values.objects()[0]) == ["name 1", "name 3", "name 2"]
