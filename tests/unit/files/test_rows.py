"""Records of a sink as lines of JSON and as flat columns."""

import io
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.errors import ConfigError, FileError
from streamkit.files.rows import SinkRows, columns_of, csv_cells, flat_frame, inferred, json_lines
from streamkit.files.shapes import SinkShape


def shape(
    dtype: pl.DataType | None = None, *, form: Any = "json", nested: bool = False, integer_key: bool = False
) -> SinkShape:
    return SinkShape(integer_key=integer_key, form=form, dtype=dtype, nested=nested, latest=False)


def rows(*values: bytes | None, keys: list[bytes | None] | None = None) -> SinkRows:
    stamps = np.arange(len(values), dtype=np.int64)
    return SinkRows(keys=keys or [b"k"] * len(values), values=values, timestamps_ms=stamps)


def flat(given_rows: SinkRows, of: SinkShape) -> list[dict[str, Any]]:
    dtype = inferred([given_rows]) if of.dtype is None and of.form == "json" else of.dtype
    return flat_frame(given_rows, of, dtype, columns_of("sums", of, dtype)).to_dicts()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(records=st.lists(st.tuples(st.none() | st.text(max_size=4), JSON), min_size=1, max_size=5))
def test_a_line_is_key_timestamp_and_the_json_of_the_value_as_it_is(records: list[tuple[str | None, Any]]) -> None:
    values = [orjson.dumps(value) for _, value in records]
    keys = [None if key is None else key.encode() for key, _ in records]
    lines = json_lines(rows(*values, keys=keys), shape()).splitlines()
    assert [orjson.loads(line) for line in lines] == [
        {"key": key, "timestamp_ms": index, "value": value} for index, (key, value) in enumerate(records)
    ]
    assert all(line.endswith(b',"value":' + value + b"}") for line, value in zip(lines, values, strict=True))


@given(values=st.lists(st.none() | st.text(max_size=5), min_size=1, max_size=5))
def test_text_is_json_in_a_line_and_itself_in_a_column(values: list[str | None]) -> None:
    encoded = rows(*(None if value is None else value.encode() for value in values))
    of = shape(form="text")
    assert [orjson.loads(line)["value"] for line in json_lines(encoded, of).splitlines()] == values
    assert [row["value"] for row in flat(encoded, of)] == values


def test_keys_are_integers_where_the_job_says_so_and_text_with_backslashes_where_they_are_none() -> None:
    (number,) = json_lines(rows(b"1", keys=[b"7"]), shape(integer_key=True)).splitlines()
    assert orjson.loads(number)["key"] == 7
    (odd,) = flat(rows(b"1", keys=[b"\xff"]), shape(pl.Int64()))
    assert odd == {"key": "\\xff", "timestamp_ms": 0, "value": 1}


def test_nothing_is_nothing() -> None:
    assert json_lines(rows(), shape()) == b""
    assert inferred([]) is None
    assert flat_frame(rows(), shape(), None, columns_of("sums", shape(), None)).is_empty()
    assert list(columns_of("sums", shape(pl.Int64()), pl.Int64())) == ["key", "timestamp_ms", "value"]


def test_an_object_becomes_its_fields_and_a_deleted_value_nulls() -> None:
    of = shape(pl.Struct({"a": pl.Int64(), "b": pl.List(pl.String())}))
    assert flat(rows(b'{"b":["x"],"a":1}', None), of) == [
        {"key": "k", "timestamp_ms": 0, "a": 1, "b": ["x"]},
        {"key": "k", "timestamp_ms": 1, "a": None, "b": None},
    ]


def test_what_lies_below_a_window_is_flat_too() -> None:
    bounds = {"window_start": pl.Int64(), "window_end": pl.Int64()}
    of = shape(pl.Struct({**bounds, "value": pl.Struct({"total": pl.Float64()})}), nested=True)
    (row,) = flat(rows(b'{"window_start":0,"window_end":5,"value":{"total":1.5}}'), of)
    assert row == {"key": "k", "timestamp_ms": 0, "window_start": 0, "window_end": 5, "total": 1.5}


def test_types_that_nobody_declared_are_found_from_all_values() -> None:
    batches = [rows(b'{"a":1}'), rows(b'{"a":1.5,"b":"x"}', b'{"b":null}')]
    dtype = inferred(batches)
    assert dtype == pl.Struct({"a": pl.Float64(), "b": pl.String()})
    columns = columns_of("sums", shape(), dtype)
    made = pl.concat(flat_frame(batch, shape(), dtype, columns) for batch in batches)
    assert made.select("a", "b").rows() == [(1.0, None), (1.5, "x"), (None, None)]


def test_values_that_are_no_json_are_an_error_that_points_to_jsonl() -> None:
    with pytest.raises(FileError, match="fit no columns") as caught:
        flat(rows(b"no json"), shape(pl.Int64()))
    assert ".jsonl" in caught.value.hint


def test_a_field_called_like_a_column_beside_it_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="the values of 'sums' have a field 'timestamp_ms'"):
        columns_of("sums", shape(), pl.Struct({"timestamp_ms": pl.Int64()}))


def test_cells_of_csv_hold_lists_and_objects_as_json() -> None:
    frame = pl.DataFrame({"l": [["a,", "b"], None], "s": [{"x": 1}, {"x": None}], "n": [1, 2]})
    text = csv_cells(frame).write_csv()
    again = pl.read_csv(io.StringIO(text))
    assert [orjson.loads(cell) if cell else None for cell in again["l"]] == [["a,", "b"], None]
    assert [orjson.loads(cell) for cell in again["s"]] == [{"x": 1}, {"x": None}]
