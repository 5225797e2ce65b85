"""Batches and their columns, against lists."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.records import Batch, Column, EncodedRecords, Header, Later, Origin, TopicPartition


class CountingDecoder:
    """Numbers in decimal; remembers each conversion of a whole column."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def objects_from_encoded(self, encoded: Sequence[bytes | None]) -> list[Any]:
        self.calls.append("objects_from_encoded")
        return [int(data) for data in encoded if data is not None]

    def frame_from_encoded(self, encoded: Sequence[bytes | None]) -> pl.DataFrame:
        self.calls.append("frame_from_encoded")
        return pl.DataFrame({"value": [int(data) for data in encoded if data is not None]}, schema={"value": pl.Int64})

    def frame_from_objects(self, objects: Sequence[Any]) -> pl.DataFrame:
        self.calls.append("frame_from_objects")
        return pl.DataFrame({"value": objects}, schema={"value": pl.Int64})

    def objects_from_frame(self, frame: pl.DataFrame) -> list[Any]:
        self.calls.append("objects_from_frame")
        return frame.get_column("value").to_list()

    def encoded_from_objects(self, objects: Sequence[Any]) -> list[bytes | None]:
        self.calls.append("encoded_from_objects")
        return [b"%d" % value for value in objects]

    def encoded_from_frame(self, frame: pl.DataFrame) -> list[bytes | None]:
        self.calls.append("encoded_from_frame")
        return [b"%d" % value for value in frame.get_column("value").to_list()]


FORMS = ("encoded", "objects", "frame")


def column_of(values: list[int], form: str) -> Column:
    decoder = CountingDecoder()
    match form:
        case "encoded":
            return Column(decoder, encoded=[b"%d" % value for value in values])
        case "objects":
            return Column(decoder, objects=list(values))
        case _:
            return Column(decoder, frame=pl.DataFrame({"value": values}, schema={"value": pl.Int64}))


def read(column: Column, form: str) -> list[int]:
    if form == "encoded":
        return [int(data) for data in column.encoded() if data is not None]
    return column.objects() if form == "objects" else column.frame().get_column("value").to_list()


def calls_of(column: Column) -> list[str]:
    assert isinstance(column.decoder, CountingDecoder)
    return column.decoder.calls


def indices(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int64)


@given(st.lists(st.integers(0, 99), max_size=6), st.sampled_from(FORMS), st.data())
def test_a_column_is_the_list_it_was_made_of_through_all_that_is_taken_of_it(
    values: list[int], form: str, data: st.DataObject
) -> None:
    column = column_of(values, form)
    for _ in range(data.draw(st.integers(0, 3))):
        for looked in data.draw(st.lists(st.sampled_from(FORMS), max_size=2)):
            assert read(column, looked) == values
        picked = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=6)) if values else []
        column, values = column.take(indices(*picked)), [values[index] for index in picked]
        assert len(column) == len(values)
    for looked in data.draw(st.permutations(FORMS)):
        assert read(column, looked) == values
        assert len(column) == len(values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wanted", FORMS)
def test_a_column_is_converted_once(form: str, wanted: str) -> None:
    column = column_of([1, 2], form)
    for _ in range(3):
        assert read(column, wanted) == [1, 2]
    assert calls_of(column) == ([] if form == wanted else [f"{wanted}_from_{form}"])


def test_rows_that_are_taken_again_and_again_are_converted_with_the_column_they_came_from() -> None:
    column = column_of([1, 2, 3], "encoded")
    thirds = [column.take(indices(index)) for index in range(3)]
    assert [taken.objects() for taken in thirds] == [[1], [2], [3]]
    assert [taken.take(indices(0, 0)).objects() for taken in thirds] == [[1, 1], [2, 2], [3, 3]]
    assert calls_of(column) == ["objects_from_encoded"]


def test_a_column_that_is_replaced_is_never_decoded() -> None:
    batch = batch_of([1, 2, 3], [4, 5, 6])
    keys, values = batch.keys, batch.values
    other = batch.take(indices(0, 2)).with_values(column_of([7, 8], "objects")).take(indices(1))
    other = other.with_keys(column_of([9], "objects"))
    assert (read(other.keys, "encoded"), read(other.values, "encoded")) == ([9], [8])
    assert (calls_of(keys), calls_of(values)) == ([], [])


def test_taken_bytes_are_never_decoded_to_be_written_as_they_were() -> None:
    column = column_of([1, 2, 3], "encoded")
    assert column.take(indices(2, 0)).encoded() == [b"3", b"1"]
    assert calls_of(column) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("read_before", FORMS)
def test_taken_rows_are_written_as_the_whole_column_would_be_whatever_was_read_before(
    form: str, read_before: str
) -> None:
    whole, column = column_of([1, 2], form), column_of([1, 2], form)
    taken = column.take(indices(0, 1))
    read(taken, read_before)
    read(whole, read_before)
    calls_of(whole).clear()
    calls_of(column).clear()
    assert taken.encoded() == whole.encoded()
    assert calls_of(column) == calls_of(whole)


@pytest.mark.parametrize(("form", "framed"), [("encoded", False), ("objects", False), ("frame", True)])
def test_a_column_knows_whether_its_rows_are_in_a_frame(form: str, framed: bool) -> None:
    column = column_of([1, 2], form)
    assert column.is_frame == framed
    assert column.take(indices(0)).is_frame == framed
    column.frame()
    assert column.is_frame
    taken = column_of([1, 2], "encoded").take(indices(1))
    taken.objects()
    assert not taken.is_frame


def batch_of(keys: list[int], values: list[int], headers: Sequence[Sequence[Header]] | None = None) -> Batch:
    count = len(keys)
    ends = np.arange(count, dtype=np.int64) * 1000
    return Batch(
        Origin(
            source=TopicPartition("topic", 3),
            offsets=np.arange(100, 100 + count, dtype=np.int64),
            timestamps_ms=ends + 1,
            watermarks_ms=ends - 1,
            windows=(ends - 1000, ends),
            headers=lambda: headers,
        ),
        column_of(keys, "encoded"),
        column_of(values, "encoded"),
    )


Row = tuple[int, int, int, int, int, int, int, Any]


def rows_of(batch: Batch) -> list[Row]:
    windows, headers = batch.windows, batch.headers
    assert windows is not None
    assert headers is not None
    return list(
        zip(
            read(batch.keys, "objects"),
            read(batch.values, "objects"),
            batch.offsets.tolist(),
            batch.timestamps_ms.tolist(),
            batch.watermarks_ms.tolist(),
            windows[0].tolist(),
            windows[1].tolist(),
            headers,
            strict=True,
        )
    )


@given(st.integers(0, 5), st.data())
def test_a_batch_is_a_list_of_rows_through_all_that_is_done_to_it(count: int, data: st.DataObject) -> None:
    headers = [[("name", b"%d" % index)] for index in range(count)]
    batch = batch_of(list(range(count)), list(range(10, 10 + count)), headers)
    rows: list[Row] = rows_of(batch)
    assert rows == [
        (n, 10 + n, 100 + n, 1000 * n + 1, 1000 * n - 1, 1000 * n - 1000, 1000 * n, headers[n]) for n in range(count)
    ]
    for step in data.draw(st.lists(st.sampled_from(["take", "spread", "values", "keys"]), max_size=5)):
        size = len(rows)
        picked = data.draw(st.lists(st.integers(0, size - 1), max_size=6)) if size else []
        match step:
            case "take":
                batch, rows = batch.take(indices(*picked)), [rows[index] for index in picked]
            case "spread":
                made = list(range(50, 50 + len(picked)))
                batch = batch.spread(indices(*picked), column_of(made, "objects"))
                rows = [
                    (key, value, *rest) for (key, _, *rest), value in zip([rows[i] for i in picked], made, strict=True)
                ]  # type: ignore[misc]  # the rest has its types
            case "values":
                made = list(range(60, 60 + size))
                batch = batch.with_values(column_of(made, "frame"))
                rows = [(key, value, *rest) for (key, _, *rest), value in zip(rows, made, strict=True)]  # type: ignore[misc]  # as above
            case _:
                made = list(range(70, 70 + size))
                batch = batch.with_keys(column_of(made, "objects"))
                rows = [(key, *rest) for (_, *rest), key in zip(rows, made, strict=True)]  # type: ignore[misc]  # as above
        assert len(batch) == len(rows)
    assert rows_of(batch) == rows


def test_a_batch_without_windows_or_headers_says_none() -> None:
    origin = Origin(
        source=TopicPartition("topic", 0),
        offsets=indices(1, 2),
        timestamps_ms=indices(1, 2),
        watermarks_ms=indices(0, 0),
    )
    batch = Batch(origin, column_of([1, 2], "objects"), column_of([1, 2], "objects")).take(indices(1))
    assert (batch.windows, batch.headers) == (None, None)
    assert str(origin.source) == "topic-0"


def test_records_about_to_be_appended_have_columns_of_one_length() -> None:
    records = EncodedRecords.to_append(timestamps_ms=[5, 6], keys=[b"a", None], values=[None, b"b"])
    assert len(records) == 2
    assert records.timestamps_ms.dtype == np.int64
    with pytest.raises(AssertionError, match="columns differ in length"):
        EncodedRecords.to_append(timestamps_ms=[5], keys=[], values=[b"b"])


def test_encoded_rows_may_be_read_later_and_are_read_once() -> None:
    reads: list[int] = []

    def read_rows() -> list[bytes | None]:
        reads.append(1)
        return [b"1", b"2", b"3"]

    column = Column(CountingDecoder(), later=Later(3, read_rows))
    assert len(column) == 3
    assert len(column.take(indices(0))) == 1
    assert not reads, "nobody has asked for a row"
    assert list(column.take(indices(2, 0)).encoded()) == [b"3", b"1"]
    assert column.objects() == [1, 2, 3]
    assert list(column.encoded()) == [b"1", b"2", b"3"]
    assert len(reads) == 1
