"""Rows read as lines are rows read one by one, or are not taken at all."""

import itertools
import json
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from streamkit.records import RowError
from streamkit.serde import value_serde
from streamkit.serde.lines import ROWS_MIN, LinesDecoder


class Plain(msgspec.Struct):
    number: int
    text: str
    share: float
    flag: bool


class Renamed(msgspec.Struct, rename={"number": "n-1"}):
    number: int
    text: str = "none"


DECODER = LinesDecoder.of(Plain)
assert DECODER is not None
IN_PARTS = [decoder for part_bytes in (1, 2, 7) if (decoder := LinesDecoder.of(Plain, part_bytes=part_bytes))]

NUMBERS = st.one_of(st.integers(-(2**64), 2**64), st.floats(allow_nan=False, allow_infinity=False))
TEXTS = st.text(alphabet='ab":[]{}\\ ,\t\n\ré\u2028', max_size=4)
VALUES: st.SearchStrategy[Any] = st.one_of(
    NUMBERS, TEXTS, st.booleans(), st.none(), st.lists(TEXTS, max_size=2), st.dictionaries(TEXTS, TEXTS, max_size=1)
)
PAIRS = st.lists(st.tuples(st.sampled_from(["number", "text", "share", "flag", "more"]), VALUES), max_size=6)
GOOD = st.tuples(
    st.integers(-(2**63), 2**63 - 1), TEXTS, st.floats(allow_nan=False, allow_infinity=False), st.booleans()
).map(lambda row: list(zip(["number", "text", "share", "flag"], row, strict=True)))
COLONS = st.sampled_from([":", ": ", " :", "\t:", " : "])


@st.composite
def encoded_rows(draw: st.DrawFn) -> bytes:
    """Draw a row: mostly good ones, some with fields that are missing, doubled, unknown or of another type."""
    pairs, colon = draw(GOOD | GOOD | GOOD | PAIRS), draw(st.sampled_from([":", ": "]) | COLONS)
    ascii_only = draw(st.booleans())
    body = ",".join(f"{json.dumps(name)}{colon}{json.dumps(value, ensure_ascii=ascii_only)}" for name, value in pairs)
    row = bytearray(("{" + body + "}").encode())
    if draw(st.integers(0, 9)) == 0:
        row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(list(b'":,{}[]\\ \n1a')))
    return bytes(row)


def one_by_one(rows: list[bytes]) -> pl.DataFrame | None:
    """Return what the decoder of single rows makes of them, None if one is bad."""
    assert len(rows) < ROWS_MIN
    try:
        return value_serde(Plain).frame_from_encoded(rows)
    except RowError:
        return None


@given(st.lists(encoded_rows(), min_size=1, max_size=6))
@example([b'{"number":1,"text":5,"share":1,"flag":true}', b'{"number":1,"text":["a","b"],"share":1,"flag":true}'])
@example([b'{"number":1,"text":":","share":1,"flag":true}'])
@example([b'{"number":1,"number":2,"text":"","share":1,"flag":true}'])
@example([b'{"number" :1,"number":2,"text":5,"share":1,"flag":true}'])
@example([b'{"number":1,"text":"","share":1,"flag":true}\n{"number":1,"text":"","share":1,"flag":true}', b" "])
def test_lines_are_taken_only_if_they_are_what_single_rows_are(rows: list[bytes]) -> None:
    assert DECODER is not None
    frame = DECODER.decode(rows)
    if frame is not None:
        expected = one_by_one(rows)
        assert expected is not None, "a bad row was taken"
        assert_frame_equal(frame, expected, check_exact=True)


@given(st.lists(encoded_rows(), min_size=1, max_size=3))
@example([b'{"number" :1,"number":2,"text":5,"share":1,"flag":true}'])
@example([b'{"number":1,"text":"","share":1,"flag":true}'])
def test_lines_are_taken_wherever_they_are_cut_into_parts(rows: list[bytes]) -> None:
    assert DECODER is not None
    whole = DECODER.decode(rows)
    for decoder in IN_PARTS:
        frame = decoder.decode(rows)
        assert (frame is None) == (whole is None)
        if frame is not None and whole is not None:
            assert_frame_equal(frame, whole, check_exact=True)


SPELLINGS = (
    '1', '-0', '1.0', '1.5', '1e3', '1e400', '5e-324', '9007199254740993', '9223372036854775808', '"5"', '"1.5"',
    '18446744073709551616', '"true"', '""', 'true', 'null', '{}', '01', '1.', '+1', 'NaN', '1 2',
)  # fmt: skip


def bits(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Return rows that tell 0.0 from -0.0, which polars calls equal."""
    return [tuple(value.hex() if isinstance(value, float) else value for value in row) for row in frame.rows()]


@pytest.mark.parametrize("names", list(itertools.combinations(["number", "text", "share", "flag"], 2)))
def test_two_fields_of_any_spelling_are_taken_only_as_single_rows_are(names: tuple[str, str]) -> None:
    """Two at once: a text in place of a number has the quotes that a number in place of a text lacks."""
    assert DECODER is not None
    good = {"number": "1", "text": '"a"', "share": "1.5", "flag": "true"}
    for spelled in itertools.product(SPELLINGS, repeat=2):
        pairs = (good | dict(zip(names, spelled, strict=True))).items()
        row = ("{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}").encode()
        frame = DECODER.decode([row])
        if frame is not None:
            expected = one_by_one([row])
            assert expected is not None, f"a bad row was taken: {row!r}"
            assert bits(frame) == bits(expected)


@given(st.lists(GOOD, min_size=1, max_size=20))
def test_plain_rows_are_taken(rows: list[list[tuple[str, Any]]]) -> None:
    """Or the decoder would be right by never taking any."""
    assert DECODER is not None
    plain = [{**dict(row), "text": "".join(c for c in dict(row)["text"] if c in "ab,é")} for row in rows]
    frame = DECODER.decode([json.dumps(row, ensure_ascii=False).encode() for row in plain])
    assert frame is not None
    assert frame.rows(named=True) == [{**row, "share": float(row["share"])} for row in plain]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.integers(1, 25))
def test_floats_are_the_nearest_ones_however_many_digits_are_given(floats: list[float], digits: int) -> None:
    assert DECODER is not None
    texts = [f"{number:.{digits}e}" for number in floats]
    rows = [f'{{"number":1,"text":"","share":{text},"flag":true}}'.encode() for text in texts]
    frame = DECODER.decode(rows)
    expected = one_by_one(rows[:500])
    if frame is not None and expected is not None:
        assert_frame_equal(frame.head(500), expected, check_exact=True)


def test_many_rows_are_read_as_lines_and_a_bad_one_is_still_named() -> None:
    serde = value_serde(Renamed)
    rows = [b'{"n-1":%d,"text":"t"}' % number for number in range(ROWS_MIN)]
    frame = serde.frame_from_encoded(rows)
    assert frame.get_column("number").to_list() == list(range(ROWS_MIN))
    defaulted = serde.frame_from_encoded([*rows, b'{"n-1":1}'])
    assert defaulted.row(-1) == (1, "none")
    with pytest.raises(RowError) as caught:
        serde.frame_from_encoded([*rows, b'{"n-1":1,"text":2}', b"{}"])
    assert (caught.value.index, caught.value.data) == (ROWS_MIN, b'{"n-1":1,"text":2}')


@pytest.mark.parametrize("type_", [int, dict, dict[str, int], list[int]])
def test_other_types_have_no_decoder_of_lines(type_: Any) -> None:
    assert LinesDecoder.of(type_) is None


def test_structs_of_more_than_plain_fields_have_no_decoder_of_lines() -> None:
    tagged = msgspec.defstruct("Tagged", [("number", int)], tag="t")
    listed = msgspec.defstruct("Listed", [("number", int)], array_like=True)
    optional = msgspec.defstruct("Optional", [("number", int | None)])
    oddly_named = msgspec.defstruct("Odd", [("number", int)], rename={"number": "a b"})
    assert all(LinesDecoder.of(type_) is None for type_ in (tagged, listed, optional, oddly_named))
