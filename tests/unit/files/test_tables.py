"""Rows of csv and parquet as records."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import polars as pl
import pytest
from file_streams import file_broker, rows_of
from hypothesis import given
from hypothesis import strategies as st

from streamkit.errors import FileError


class Reading(msgspec.Struct):
    at: int
    celsius: float
    place: str
    valid: bool = True


def values(broker: Any, **kwargs: Any) -> list[Any]:
    return [orjson.loads(value) for rows in rows_of(broker, **kwargs) for _, _, value in rows]


CSV = b'at,celsius,place\r\n1,2.5,"a, b"\n\n2,3,"x\ny"\n3,4,\n4,5,""'


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("bytes_max", [1, 12, 1000])
def test_a_row_of_csv_is_an_object_and_cells_are_what_the_type_says(
    tmp_path: Path, bytes_max: int, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / ("a.csv" if compress is bytes else "a.csv.gz")
    path.write_bytes(compress(CSV))
    expected = [
        {"at": 1, "celsius": 2.5, "place": "a, b"},
        {"at": 2, "celsius": 3.0, "place": "x\ny"},
        {"at": 3, "celsius": 4.0, "place": None},
        {"at": 4, "celsius": 5.0, "place": ""},
    ]
    assert values(file_broker(path, value_type=Reading), bytes_max=bytes_max) == expected
    untyped = values(file_broker(path), bytes_max=bytes_max)
    assert untyped[0] == {"at": "1", "celsius": "2.5", "place": "a, b"}, "without a type a cell is text"
    (rows,) = rows_of(file_broker(path), bytes_max=bytes_max)
    assert [offset for offset, _, _ in rows] == [18, 32, 42, 47]
    (rest,) = rows_of(file_broker(path), bytes_max=bytes_max, begin=32)
    assert rest == rows[1:]


def test_a_cell_that_is_not_of_its_type_is_left_for_the_type_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"at,celsius,valid\n1,2,true\nx,3,false\n3,,maybe\n")
    assert values(file_broker(tmp_path / "a.csv", value_type=Reading)) == [
        {"at": 1, "celsius": 2.0, "valid": True},
        {"at": "x", "celsius": 3.0, "valid": False},
        {"at": 3, "celsius": None, "valid": "maybe"},
    ]


@pytest.mark.parametrize("end", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("type_", "cells", "expected"),
    [(str, ["a", ""], [b"a", b""]), (int, [1, -2], [b"1", b"-2"]), (float, [1.5, 2.0], [b"1.5", b"2.0"])],
)
def test_a_scalar_is_the_column_value(
    tmp_path: Path, end: str, type_: Any, cells: list[Any], expected: list[bytes]
) -> None:
    frame, path = pl.DataFrame({"other": ["x", "y"], "value": cells}), tmp_path / f"a.{end}"
    frame.write_csv(path) if end == "csv" else frame.write_parquet(path)
    (rows,) = rows_of(file_broker(path, value_type=type_))
    assert [value for _, _, value in rows] == expected
    frame.drop("value").write_csv(tmp_path / "b.csv")
    with pytest.raises(FileError, match="no column 'value'"):
        rows_of(file_broker(tmp_path / "b.csv", value_type=type_))


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_keys_are_the_column_key_where_the_source_declares_one(tmp_path: Path, end: str) -> None:
    frame, path = pl.DataFrame({"key": ["a", None], "at": [1, 2]}), tmp_path / f"a.{end}"
    frame.write_csv(path) if end == "csv" else frame.write_parquet(path)
    (rows,) = rows_of(file_broker(path, key_type=str, value_type=Reading))
    assert [(key, value) for _, key, value in rows] == [(b"a", b'{"at":1}'), (None, b'{"at":2}')]
    (rows,) = rows_of(file_broker(path, value_type=dict[str, Any]))
    assert [key for _, key, _ in rows] == [None, None]
    assert orjson.loads(rows[0][2] or b"")["key"] == "a"


@pytest.mark.parametrize(
    ("data", "message", "byte"),
    [
        (b"a,b\n1,2\n3,4,5\n", "it has 3 cells, not 2", 8),
        (b'a,b\n1,2\n3,"open\n', "a quote is not closed", 8),
        (b"a,b\n1,2\n\n3,\xff\n", "its byte 2 is no UTF-8", 9),
        (b"a,a\n1,2\n", "does not name each column once", 0),
        (b"a,\n1,2\n", "does not name each column once", 0),
        (b"", "", -1),
    ],
)
def test_what_is_no_csv_is_an_error_that_names_file_and_byte(
    tmp_path: Path, data: bytes, message: str, byte: int
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    if not message:
        assert rows_of(file_broker(path)) == [[]]
        return
    with pytest.raises(FileError, match=message) as caught:
        rows_of(file_broker(path))
    assert caught.value.detail == f"{path} byte {byte}"


@given(
    cells=st.lists(st.tuples(st.text('a",\n\r é', max_size=4), st.text("b\n", max_size=2)), min_size=1, max_size=8),
    bytes_max=st.integers(1, 30),
)
def test_what_polars_writes_as_csv_is_read_as_it_was(
    cells: list[tuple[str, str]], bytes_max: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    pl.DataFrame(cells, schema=["one", "two"], orient="row").write_csv(path)
    assert values(file_broker(path), bytes_max=bytes_max) == [{"one": one, "two": two} for one, two in cells]


def test_rows_of_parquet_are_objects_at_their_row_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1, 2, 3], "s": [{"a": [1]}, None, {"a": []}], "b": [b"x", b"", None]})
    frame.write_parquet(tmp_path / "a.parquet")
    broker = file_broker(tmp_path / "a.parquet")
    assert values(broker, bytes_max=1) == [
        {"n": 1, "s": {"a": [1]}, "b": "eA=="},
        {"n": 2, "s": None, "b": ""},
        {"n": 3, "s": {"a": []}, "b": None},
    ]
    assert [offset for offset, _, _ in rows_of(broker)[0]] == [0, 1, 2]


def test_a_column_without_a_form_in_json_is_refused_by_name(tmp_path: Path) -> None:
    pl.DataFrame({"n": [[b"x"]]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(FileError, match="the column 'n' is List"):
        rows_of(file_broker(tmp_path / "a.parquet"))


def test_a_damaged_parquet_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"n": list(range(1000))}).write_parquet(path, compression="uncompressed")
    data = bytearray(path.read_bytes())
    data[4:300] = bytes(296)
    path.write_bytes(data)
    with pytest.raises(FileError, match="cannot be read") as caught:
        rows_of(file_broker(path))
    assert caught.value.path == str(path)
