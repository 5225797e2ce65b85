"""Serdes: the three forms of a column say the same, and no bytes make a decoder raise anything but `RowError`."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from row_types import ANY_TYPE, COLUMNAR, JSON_VALUES, OBJECTS, first_bad

from streamkit.records import RowError
from streamkit.serde import Serde, frame_serde, key_serde, schema_of, value_serde

ROWS = st.integers(0, 5)
SERDES = {"value": value_serde, "key": key_serde}

JSON_TEXT = st.one_of(
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            b"",
            b"{}",
            b"null",
            b"NaN",
            b"Infinity",
            b'{"number": NaN}',
            b"-0",
            b"-0.0",
            b"1.0",
            b"1e2",
            b"1e400",
            b"01",
            b"+1",
            b" 1",
            b"1 ",
            b"1 2",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"1" + b"0" * 400,
            b'"\\ud800"',
            b'"\xff"',
            b'{"number": 1, "number": 2}',
            b'{"number": 9223372036854775808}',
            b'{"number": 1, "text": "a"} x',
            b'{"number": 13}',
            b'{"x": 1, "y": 2}',
            b'{"x": 1, "y": 1000000000000000000000}',
            b'{"x": 1, "y": null}',
            b'{"type": "tagged", "number": 1}',
            b"[" * 2000,
            b"[" * 900 + b"]" * 900,
            b'{"a":' * 900 + b"1" + b"}" * 900,
        ]
    ),
    st.binary(max_size=12),
)


def rows_of(name: str, data: st.DataObject) -> list[Any]:
    return data.draw(st.lists(ANY_TYPE[name][1], max_size=5))


def a_name(types: dict[str, Any]) -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(types))


ROW_TYPES = {name: type_ for name, (type_, _) in COLUMNAR.items() if schema_of(type_)}
KEY_TYPES = {name: typed for name, typed in ANY_TYPE.items() if name not in ("untyped", "Sparse", "dict[int, str]")}


@given(st.sampled_from(sorted(SERDES)), a_name(KEY_TYPES), st.data())
def test_an_object_survives_its_encoding(what: str, name: str, data: st.DataObject) -> None:
    serde, rows = SERDES[what](ANY_TYPE[name][0]), rows_of(name, data)
    encoded = serde.encoded_from_objects(rows)
    assert serde.objects_from_encoded(encoded) == rows
    assert encoded == [serde.encode(row) for row in rows]


@given(a_name(COLUMNAR), st.data())
def test_the_three_forms_of_a_column_say_the_same(name: str, data: st.DataObject) -> None:
    serde, rows = value_serde(COLUMNAR[name][0]), rows_of(name, data)
    encoded = serde.encoded_from_objects(rows)
    frame = serde.frame_from_objects(rows)
    assert_frame_equal(serde.frame_from_encoded(encoded), frame, check_exact=True)
    assert serde.objects_from_frame(frame) == rows
    again = serde.encoded_from_frame(frame)
    if name == "Sparse":
        # msgspec leaves a default out only if it is the very same object, so the bytes may differ: the rows do not.
        assert serde.objects_from_encoded(again) == rows
    else:
        assert again == encoded


@given(a_name(COLUMNAR), st.data())
def test_a_key_of_a_columnar_type_survives_its_frame(name: str, data: st.DataObject) -> None:
    assume(name != "Sparse")
    serde, rows = key_serde(COLUMNAR[name][0]), rows_of(name, data)
    frame = serde.frame_from_objects(rows)
    assert frame.columns == ["key"]
    assert serde.objects_from_frame(frame) == rows
    assert serde.encoded_from_frame(frame) == serde.encoded_from_objects(rows)
    assert_frame_equal(serde.frame_from_encoded(serde.encoded_from_objects(rows)), frame, check_exact=True)


def outcome(convert: Callable[[Sequence[bytes | None]], Any], rows: Sequence[bytes | None]) -> Any:
    """Return what a conversion gives, or where, how and over which bytes it fails; anything but `RowError` is a bug."""
    try:
        return convert(rows)
    except RowError as error:
        return error.index, error.reason, error.data


@given(st.sampled_from(sorted(SERDES)), a_name(KEY_TYPES), st.data())
def test_arbitrary_bytes_raise_nothing_but_a_row_error_with_the_first_bad_row(
    what: str, name: str, data: st.DataObject
) -> None:
    """Good rows among arbitrary ones: the row named is the first that fails when each is decoded alone."""
    type_, values = ANY_TYPE[name]
    serde = SERDES[what](type_)
    good = values.map(serde.encode)
    rows = data.draw(st.lists(st.one_of(st.none(), JSON_TEXT, good, good), max_size=6))
    bad = first_bad(serde.decode, rows)
    try:
        objects = serde.objects_from_encoded(rows)
    except RowError as error:
        assert error.index == bad
        assert error.data == rows[bad]
        assert error.reason
    else:
        assert bad is None
        assert len(objects) == len(rows)


@given(a_name(COLUMNAR), st.data())
def test_bytes_are_refused_alike_as_objects_and_as_a_frame(name: str, data: st.DataObject) -> None:
    type_, values = COLUMNAR[name]
    serde = value_serde(type_)
    rows = data.draw(st.lists(st.one_of(st.none(), JSON_TEXT, values.map(serde.encode)), max_size=6))
    by_objects, by_frame = outcome(serde.objects_from_encoded, rows), outcome(serde.frame_from_encoded, rows)
    if isinstance(by_objects, tuple):
        assert by_frame == by_objects
    else:
        assert_frame_equal(by_frame, serde.frame_from_objects(by_objects), check_exact=True)


@given(a_name(ROW_TYPES), st.data())
def test_a_narrowed_serde_makes_the_same_columns_and_refuses_the_same_rows(name: str, data: st.DataObject) -> None:
    type_, values = COLUMNAR[name]
    serde = value_serde(type_)
    wanted = data.draw(st.sets(st.sampled_from([*(schema_of(type_) or {}), "not there"])))
    rows = data.draw(st.lists(st.one_of(JSON_TEXT, values.map(serde.encode)), max_size=4))
    whole, narrow = outcome(serde.frame_from_encoded, rows), outcome(serde.narrowed(wanted).frame_from_encoded, rows)
    if isinstance(whole, tuple):
        assert narrow == whole
    else:
        assert_frame_equal(narrow, whole.select(narrow.columns), check_exact=True)
        assert wanted - {"not there"} <= set(narrow.columns)
        assert narrow.height == len(rows)


STRANGERS = st.one_of(
    JSON_VALUES,
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=3),
    st.builds(object),
    st.lists(st.builds(object), min_size=1, max_size=2),
    st.dictionaries(st.integers(), st.text(), max_size=2),
)


@given(a_name(ANY_TYPE), st.data())
def test_arbitrary_objects_raise_nothing_but_a_row_error_with_the_first_bad_row(name: str, data: st.DataObject) -> None:
    serde: Serde = value_serde(ANY_TYPE[name][0])
    rows = data.draw(st.lists(ANY_TYPE[name][1] | STRANGERS, max_size=5))
    bad = first_bad(serde.encode, rows)
    try:
        encoded = serde.encoded_from_objects(rows)
    except RowError as error:
        assert error.index == bad
    else:
        assert bad is None
        assert len(encoded) == len(rows)


@given(a_name(COLUMNAR), st.data())
def test_a_frame_is_made_of_the_objects_that_can_be_encoded(name: str, data: st.DataObject) -> None:
    """One exception: a float column takes an integer as a float does; both spellings write it."""
    serde: Serde = value_serde(COLUMNAR[name][0])
    rows = data.draw(st.lists(COLUMNAR[name][1] | STRANGERS, max_size=5))
    try:
        frame = serde.frame_from_objects(rows)
    except RowError as error:
        assert error.index == first_bad(lambda row: serde.frame_from_objects([row]), rows)
    else:
        assert frame.height == len(rows)
        assert first_bad(serde.encode, rows) is None


@given(a_name(OBJECTS), st.data())
def test_a_frame_of_what_has_no_columns_is_made_or_refused(name: str, data: st.DataObject) -> None:
    serde, rows = value_serde(OBJECTS[name][0]), rows_of(name, data)
    try:
        frame = serde.frame_from_objects(rows)
    except RowError as error:
        assert 0 <= error.index < len(rows)
    else:
        assert frame.height == len(rows) or not frame.width


@given(a_name(ROW_TYPES), st.data())
def test_rows_known_by_their_columns_alone_keep_their_values(name: str, data: st.DataObject) -> None:
    """Dicts of the same fields; JSON has no bytes, so they travel as base64 in both forms."""
    type_, _ = COLUMNAR[name]
    frame = value_serde(type_).frame_from_objects(rows_of(name, data))
    serde = frame_serde(schema_of(type_) or {})
    objects = serde.objects_from_frame(frame)
    encoded = serde.encoded_from_frame(frame)
    assert objects == frame.to_dicts()
    assert encoded == serde.encoded_from_objects(objects)
    assert serde.objects_from_encoded(encoded) == objects
    assert_frame_equal(serde.frame_from_encoded(encoded), frame, check_exact=True)
