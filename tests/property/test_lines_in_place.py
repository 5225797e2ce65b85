"""Rows that lie in one piece of memory are read as the same rows one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from streamkit.records import Lines, RowError
from streamkit.serde import Serde, value_serde

ROWS = st.lists(st.binary(max_size=6) | st.text(max_size=4).map(str.encode), min_size=1, max_size=6).map(
    lambda rows: [row.replace(b"\n", b"") for row in rows]
)
TEXT = value_serde(str)


def outcome(serde: Serde, rows: Lines | list[bytes], *, frame: bool) -> object:
    try:
        return serde.frame_from_encoded(rows) if frame else serde.objects_from_encoded(rows)
    except RowError as error:
        return error.index, error.reason, error.data


def one_by_one(rows: list[bytes]) -> object:
    """Return what the first bad row says, or the texts."""
    texts = []
    for index, row in enumerate(rows):
        try:
            texts.append(row.decode())
        except UnicodeDecodeError as error:
            return index, f"the value does not decode as str: {error}", row
    return texts


@given(rows=ROWS)
def test_lines_are_a_sequence_of_their_rows(rows: list[bytes]) -> None:
    lines = Lines(b"\n".join(rows), len(rows))
    assert (list(lines), len(lines), lines[-1], list(lines[:2])) == (rows, len(rows), rows[-1], rows[:2])
    assert None not in lines
    assert rows[0] in lines


@given(rows=ROWS)
def test_text_is_read_in_one_piece_as_row_by_row(rows: list[bytes]) -> None:
    lines, expected = Lines(b"\n".join(rows), len(rows)), one_by_one(rows)
    assert outcome(TEXT, lines, frame=False) == outcome(TEXT, rows, frame=False) == expected
    for given_rows in (lines, rows):
        made = outcome(TEXT, given_rows, frame=True)
        if isinstance(expected, list):
            assert_frame_equal(made, TEXT.frame_from_objects(expected))  # type: ignore[arg-type]  # a frame then
        else:
            assert made == expected


def test_a_null_among_texts_is_found_in_columns_too() -> None:
    with pytest.raises(RowError, match="the value is null") as caught:
        TEXT.frame_from_encoded([b"a", None])
    assert caught.value.index == 1
    assert value_serde(str | None).frame_from_encoded([b"a", None]).to_series().to_list() == ["a", None]
