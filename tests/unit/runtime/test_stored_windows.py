"""Stored windows keep their rows in memory as long as they fit, and never an older one."""

from typing import Any

import numpy as np
import polars as pl
from batches import batch_of
from hypothesis import given
from hypothesis import strategies as st

from streamkit.graph import Aggregate, Aggregation, Columns
from streamkit.runtime.aggregates import FrameAggregates
from streamkit.runtime.groups import FrameGroups, Groups, RowGroups, RowWindows, fold_for
from streamkit.runtime.operators.stored import StoredWindows
from streamkit.serde import frame_serde, key_serde, value_serde

AGGREGATES = {"total": Aggregate("sum", "v")}
ROW_SERDE = frame_serde({"v": pl.Int64()})

Cells = dict[tuple[int, str], int]


def empty() -> FrameGroups:
    made = FrameAggregates(AGGREGATES, {"v": pl.Int64()})
    return FrameGroups("node", made, key_serde(str), frame_serde(made.result_schema), None)


def filled(groups: Any, cells: Cells) -> Any:
    """Add one row for each cell: its window's end, its key, its value."""
    if cells:
        rows = [{"v": value} for value in cells.values()]
        batch = batch_of(key_serde(str), [key for _, key in cells], ROW_SERDE, rows, offsets=list(range(len(cells))))
        groups.add(batch, RowWindows(ends_ms=np.array([end_ms for end_ms, _ in cells], dtype=np.int64)))
    return groups


def cells_of(groups: Groups) -> Cells:
    results = groups.results()
    return {
        (end_ms, (key or b"").decode()): row["total"]
        for end_ms, key, row in zip(
            results.ends_ms.tolist(), results.keys.encoded(), results.values.objects(), strict=True
        )
    }


CELLS = st.dictionaries(
    st.tuples(st.sampled_from([10, 20, 30, 40]), st.sampled_from("abc")), st.integers(-9, 9), min_size=1
)
STEPS = st.lists(CELLS | st.sampled_from([10, 20, 30, 40]), max_size=8)


@given(opened_with=st.sets(st.sampled_from([10, 20])), rows_max=st.integers(0, 12), steps=STEPS)
def test_a_window_gives_its_newest_rows_or_leaves_them_to_the_store(
    opened_with: set[int], rows_max: int, steps: list[Cells | int]
) -> None:
    """A step is a commit of cells, or a watermark that closes windows."""
    stored, model = StoredWindows(opened_with, rows_max=rows_max), Cells()
    known = set(opened_with)
    for step in steps:
        if isinstance(step, int):
            closed = stored.take_until(step)
            assert [end_ms for end_ms, _ in closed] == sorted(end_ms for end_ms in known if end_ms <= step)
            for end_ms, rows in closed:
                expected = {cell: value for cell, value in model.items() if cell[0] == end_ms}
                assert rows is None or cells_of(rows) == expected
            known = {end_ms for end_ms in known if end_ms > step}
            model = {cell: value for cell, value in model.items() if cell[0] > step}
            # A closed window takes no more rows.
            opened_with = {end_ms for end_ms in opened_with if end_ms > step}
            continue
        stored.store(filled(empty(), step))
        model.update(step)
        known.update(end_ms for end_ms, _ in step)
        assert all(end_ms in stored for end_ms in known)
        assert stored.isdisjoint({10, 20, 30, 40} - known)


def test_rows_are_kept_while_they_fit_and_only_of_windows_that_were_empty() -> None:
    stored = StoredWindows([10], rows_max=3)
    stored.store(filled(empty(), {(10, "a"): 1, (20, "a"): 2, (20, "b"): 3}))
    kept = dict(stored.take_until(20))
    assert kept[10] is None, "the store had rows of it that nobody has read"
    assert kept[20] is not None
    assert cells_of(kept[20]) == {(20, "a"): 2, (20, "b"): 3}
    stored.store(filled(empty(), {(30, key): 1 for key in "abcd"}))
    assert stored.take_until(30) == [(30, None)]


def test_rows_of_python_objects_are_left_to_the_store() -> None:
    how = Columns(aggregates=AGGREGATES)
    rows = RowGroups("node", fold_for(Aggregation(name="node", how=how)), key_serde(str), str, value_serde(None))
    stored = StoredWindows([])
    stored.store(filled(rows, {(10, "a"): 1}))
    assert stored.take_until(10) == [(10, None)]
