"""What bad values and keys get: which row, why, and its bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Annotated, Any, NewType

import msgspec
import polars as pl
import pytest
from row_types import Checked, Entry, Flat, Nested, Optional, Point, Sparse, Tree

from streamkit.errors import DefinitionError
from streamkit.records import RowError
from streamkit.serde import Serde, admits_none, dtype_of, frame_serde, key_serde, schema_of, value_serde

POINT = b'{"x": 1, "y": 2.0}'


def refusal(convert: Callable[[Any], Any], rows: Any) -> RowError:
    with pytest.raises(RowError) as caught:
        convert(rows)
    return caught.value


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "truncated"),
        (b'{"x": 1, "y": 2.0} x', "trailing"),
        (b'{"y": 2.0}', "missing required field `x`"),
        (b'{"x": "1", "y": 2.0}', "Expected `int`, got `str` - at `$.x`"),
        (b'{"x": true, "y": 2.0}', "Expected `int`, got `bool` - at `$.x`"),
        (b'{"x": 1.5, "y": 2.0}', "Expected `int`, got `float` - at `$.x`"),
        (b'{"x": null, "y": 2.0}', "Expected `int`, got `null` - at `$.x`"),
        (b'{"x": 1, "y": NaN}', "invalid character"),
        (b'{"x": 9223372036854775808, "y": 2.0}', "the integer leaves 64 bits - at `$.x`"),
        (b'{"x": -9223372036854775809, "y": 2.0}', "the integer leaves 64 bits - at `$.x`"),
        (b"[1, 2.0]", "Expected `object`, got `array`"),
        (b"", "truncated"),
        (None, "the value is null, and Point is declared"),
    ],
)
def test_a_bad_row_names_its_index_its_reason_and_its_bytes(bad: bytes | None, reason: str) -> None:
    serde = value_serde(Point)
    rows = [POINT, POINT, bad, b"also bad"]
    for convert in (serde.objects_from_encoded, serde.frame_from_encoded, serde.narrowed(["y"]).frame_from_encoded):
        error = refusal(convert, rows)
        assert (error.index, error.data) == (2, bad)
        assert reason in error.reason


def test_the_last_of_two_members_of_one_name_counts() -> None:
    """As in every JSON reader streamkit meets; a producer that repeats a name is not told."""
    data = b'{"x": 1, "y": 2.0, "x": 3}'
    assert value_serde(Point).decode(data) == Point(3, 2.0)
    assert value_serde(None).decode(data) == {"x": 3, "y": 2.0}


@pytest.mark.parametrize("depth", [900, 100_000])
@pytest.mark.parametrize("type_", [None, Any, dict, list[Any], Tree, Point])
def test_deeply_nested_json_is_a_value_or_a_bad_row(type_: Any, depth: int) -> None:
    serde = value_serde(type_)
    for data in (b"[" * depth + b"]" * depth, b'{"children":[' * depth + b"]}" * depth, b'{"value":' * depth):
        try:
            value = serde.decode(data)
        except RowError as error:
            assert error.data == data
        else:
            assert serde.decode(serde.encode(value)) == value


def test_an_object_that_holds_itself_is_a_bad_row() -> None:
    ring: list[Any] = []
    ring.append(ring)
    for type_, value in ((None, ring), (Any, ring), (list[Any], ring), (list[int], ring), (dict, {"ring": ring})):
        serde = value_serde(type_)
        assert refusal(serde.encoded_from_objects, [value]).index == 0
        assert refusal(serde.frame_from_objects, [value]).index == 0
    nested = Nested(Point(1, 2.0), None, ring, ())
    assert refusal(value_serde(Nested).frame_from_objects, [nested]).index == 0
    assert refusal(value_serde(Nested).encoded_from_objects, [nested]).index == 0


@pytest.mark.parametrize("data", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80"])
def test_text_that_is_no_utf8_is_a_bad_row(data: bytes) -> None:
    for serde in (value_serde(str), key_serde(str)):
        for convert in (serde.objects_from_encoded, serde.frame_from_encoded):
            error = refusal(convert, [b"fine", data])
            assert (error.index, error.data) == (1, data)
            assert "does not decode as str" in error.reason


def test_a_lone_surrogate_is_a_bad_row_when_read_and_when_written() -> None:
    assert refusal(value_serde(None).objects_from_encoded, [rb'"\ud800"']).index == 0
    assert refusal(value_serde(list[str]).objects_from_encoded, [rb'["\ud800"]']).index == 0
    for type_, value in ((str, "\ud800"), (None, ["\ud800"]), (list[str], ["\ud800"]), (dict, {"\ud800": 1})):
        error = refusal(value_serde(type_).encoded_from_objects, ["fine" if type_ is str else type_ and type_(), value])
        assert error.index == 1
        assert rb"\ud800" in (error.data or b"")
    assert refusal(value_serde(list[str]).frame_from_objects, [["\ud800"]]).index == 0


@pytest.mark.parametrize("data", [b"+1", b"01", b"1.0", b" 1", b"1 ", b"1e2", b"", b"-0", b"9223372036854775808"])
def test_an_integer_key_has_one_spelling(data: bytes) -> None:
    serde = key_serde(int)
    for convert in (serde.objects_from_encoded, serde.frame_from_encoded):
        error = refusal(convert, [b"7", data, b"x"])
        assert (error.index, error.data) == (1, data)
        assert "no integer of 64 bits in plain decimal" in error.reason


@pytest.mark.parametrize("key", [True, 1.0, "1", 2**63, -(2**63) - 1, None])
def test_an_integer_key_is_an_int_of_64_bits(key: Any) -> None:
    serde = key_serde(int)
    assert refusal(serde.encoded_from_objects, [1, key]).index == 1
    assert refusal(serde.frame_from_objects, [1, key]).index == 1


def test_integer_keys_of_a_frame_are_written_without_a_detour_and_checked() -> None:
    serde = key_serde(int)
    assert serde.encoded_from_frame(pl.DataFrame({"key": [1, -5]})) == [b"1", b"-5"]
    assert refusal(serde.encoded_from_frame, pl.DataFrame({"key": [1, None]})).index == 1
    assert refusal(serde.encoded_from_frame, pl.DataFrame({"key": ["1"]})).index == 0


def test_an_undeclared_key_is_bytes_when_read_and_text_or_an_integer_too_when_written() -> None:
    serde = key_serde(None)
    assert serde.objects_from_encoded([b"\xff", None]) == [b"\xff", None]
    assert serde.encoded_from_objects([b"\xff", None, "é", 7]) == [b"\xff", None, "é".encode(), b"7"]
    assert serde.frame_from_objects(["a", 7, None]).to_series().to_list() == [b"a", b"7", None]
    assert serde.encoded_from_objects([b"only bytes"]) == [b"only bytes"]
    for key in (1.5, True, 2**63, "\ud800"):
        assert refusal(serde.encoded_from_objects, [b"fine", key]).index == 1
    for column, encoded in (([1, None], [b"1", None]), (["a", None], [b"a", None]), ([b"a"], [b"a"])):
        assert serde.encoded_from_frame(pl.DataFrame({"key": column})) == encoded
    assert refusal(serde.encoded_from_frame, pl.DataFrame({"key": [1.5]})).index == 0


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_key_is_no_number_that_json_does_not_have(number: float) -> None:
    """Written as null, NaN and both infinities would be one key, which nobody could read."""
    assert refusal(key_serde(float).encoded_from_objects, [1.0, number]).index == 1
    assert refusal(key_serde(Point).encoded_from_objects, [Point(1, number)]).index == 0


def test_a_key_is_written_as_its_type_reads_it() -> None:
    assert key_serde(float).encoded_from_objects([1, 1.0]) == [b"1.0", b"1.0"]
    assert key_serde(dict[str, int]).encode({"b": 1, "a": 2}) == key_serde(dict[str, int]).encode({"a": 2, "b": 1})
    assert "Expected `int`, got `str`" in refusal(key_serde(Point).encoded_from_objects, [Point("1", 2.0)]).reason


def test_a_key_that_would_have_two_spellings_is_refused() -> None:
    with pytest.raises(DefinitionError, match="leaves out defaults"):
        key_serde(tuple[Sparse, int])
    with pytest.raises(DefinitionError, match="a dict whose keys are no str"):
        key_serde(dict[int, str])


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        (int, 1, True),
        (int | None, None, "1"),
        (float, 1, True),
        (float | None, None, "1.0"),
        (bool, True, 1),
        (bool | None, None, 0),
        (str, "a", b"a"),
        (bytes, b"a", "a"),
        (Flat, Flat(1, 1.0, "a", True, b"a"), Point(1, 2.0)),
        (Flat, Flat(1, 1.0, "a", True, b"a"), {"number": 1}),
        (Point, Point(1, 2.0), Point(2**63, 2.0)),
        (list[int], [1], [2**63]),
        (dict[int, int], {1: 2}, {2**63: 1}),
        (Any, {"a": [1]}, {"a": [{"b": 2**63}]}),
    ],
)
def test_an_object_of_another_type_is_a_bad_row(type_: Any, good: Any, bad: Any) -> None:
    serde = value_serde(type_)
    error = refusal(serde.encoded_from_objects, [good, bad, object()])
    assert error.index == 1
    assert error.data == repr(bad).encode()
    if serde.dtype is not None:
        assert refusal(serde.frame_from_objects, [good, bad]).index == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Point(1, "2"), "expected float, got str - at `$.y`"),
        (Point(None, 2.0), "expected int, got null - at `$.x`"),
        (Point(2**63, 2.0), "does not fit a column of int - at `$.x`"),
        (None, "the value is null, and Point is declared"),
        ({"x": 1, "y": 2.0}, "got dict"),
    ],
)
def test_a_frame_says_which_field_of_which_object_does_not_fit(row: Any, reason: str) -> None:
    error = refusal(value_serde(Point).frame_from_objects, [Point(1, 2.0), row, Point("x", "y")])
    assert error.index == 1
    assert reason in error.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"point": Point("1", 2.0)}, "expected int, got str - at `$.point`"),
        ({"point": 5}, "got int - at `$.point`"),
        ({"points": Point(1, 2.0)}, "got dict - at `$.points`"),
        ({"points": [Point(1, 2.0), "x"]}, "got str - at `$.points`"),
        ({"numbers": (1, True)}, "expected int, got bool - at `$.numbers`"),
        ({"texts": [b"a"]}, "expected str, got bytes - at `$.texts`"),
    ],
)
def test_what_is_nested_is_checked_too(changes: dict[str, Any], reason: str) -> None:
    good = Nested(Point(1, 2.0), None, [], ())
    bad = msgspec.structs.replace(good, **changes)
    error = refusal(value_serde(Nested).frame_from_objects, [good, bad])
    assert error.index == 1
    assert reason in error.reason


def test_a_struct_that_checks_itself_is_asked() -> None:
    serde = value_serde(Checked)
    for convert in (serde.objects_from_encoded, serde.frame_from_encoded):
        error = refusal(convert, [b'{"number": 1}', b'{"number": 13}'])
        assert error.index == 1
        assert "thirteen is refused" in error.reason
    assert refusal(serde.objects_from_frame, pl.DataFrame({"number": [1, 13]})).index == 1


def test_a_null_in_a_frame_is_refused_where_the_type_has_none() -> None:
    for serde, frame in (
        (value_serde(Point), pl.DataFrame({"x": [1, 2, None], "y": [1.0, None, 2.0]})),
        (value_serde(Nested), value_serde(Nested).frame_from_objects([NESTED] * 2).with_columns(point=pl.lit(None))),
        (value_serde(str), pl.DataFrame({"value": ["a", None]})),
    ):
        index = 0 if serde.name == "Nested" else 1
        assert refusal(serde.objects_from_frame, frame).index == index
        assert refusal(serde.encoded_from_frame, frame).index == index


NESTED = Nested(Point(1, 2.0), None, [Point(3, 4.0)], (5,))


def test_a_null_inside_a_nested_column_is_refused_where_the_type_has_none() -> None:
    serde = value_serde(Nested)
    frame = serde.frame_from_objects([NESTED, NESTED])
    hollow = frame.with_columns(point=pl.struct(pl.lit(None, pl.Int64).alias("x"), pl.lit(1.0).alias("y")))
    error = refusal(serde.objects_from_frame, hollow)
    assert (error.index, "a nested value is null" in error.reason) == (0, True)
    listed = frame.with_columns(numbers=pl.Series([[1], [None]], dtype=pl.List(pl.Int64)))
    assert refusal(serde.objects_from_frame, listed).index == 1


def test_a_field_without_a_column_takes_its_default() -> None:
    serde = value_serde(Optional)
    frame = pl.DataFrame({"number": [1]})
    assert serde.objects_from_frame(frame) == [Optional(number=1)]
    assert serde.encoded_from_frame(frame) == serde.encoded_from_objects([Optional(number=1)])
    assert refusal(value_serde(Point).objects_from_frame, pl.DataFrame({"x": [1]})).index == 0


class Unreadable:
    def __init__(self, value: int) -> None:
        self.value = value


@pytest.mark.parametrize("serde_for", [value_serde, key_serde])
@pytest.mark.parametrize("type_", [Unreadable, list[Unreadable], complex, "no such type", Callable])
def test_a_type_that_json_cannot_be_read_as_is_refused_when_it_is_declared(
    serde_for: Callable[[Any], Serde], type_: Any
) -> None:
    with pytest.raises(DefinitionError, match="cannot be read from JSON"):
        serde_for(type_)


class Hexadecimal:
    """A user's serde."""

    def encode(self, value: Any) -> bytes | None:
        return None if value is None else value if isinstance(value, str) else b"%x" % value

    def decode(self, data: bytes | None) -> Any:
        return None if data is None else int(data, 16)


@pytest.mark.parametrize("serde_for", [value_serde, key_serde])
def test_a_users_serde_is_asked_row_by_row(serde_for: Callable[[Any], Serde]) -> None:
    serde = serde_for(Hexadecimal())
    assert serde.encoded_from_objects([255, None]) == [b"ff", None]
    assert serde.objects_from_encoded([b"ff", None]) == [255, None]
    assert refusal(serde.objects_from_encoded, [b"1", b"x"]).index == 1
    assert refusal(serde.encoded_from_objects, [1, 1.5]).index == 1
    error = refusal(serde.encoded_from_objects, [1, "text"])
    assert (error.index, "encode returned str, not bytes" in error.reason) == (1, True)
    assert "Hexadecimal" in repr(serde)
    assert serde_for(serde) is serde


def test_the_class_of_a_users_serde_is_a_type_like_any_other() -> None:
    with pytest.raises(DefinitionError, match="cannot be read from JSON"):
        value_serde(Hexadecimal)


def test_rows_without_a_type_are_laid_out_by_the_names_they_have() -> None:
    serde = value_serde(None)
    frame = serde.frame_from_objects([{"b": 1}, {"a": "x", "b": None}])
    assert frame.to_dicts() == [{"b": 1, "a": None}, {"b": None, "a": "x"}]
    assert serde.objects_from_frame(frame) == frame.to_dicts()
    assert serde.encoded_from_frame(frame) == [b'{"b":1,"a":null}', b'{"b":null,"a":"x"}']
    assert serde.objects_from_frame(pl.DataFrame()) == []
    assert "columns need JSON objects, got list" in refusal(serde.frame_from_objects, [{}, []]).reason
    error = refusal(serde.frame_from_objects, [{"a": None}, {"a": 1}, {"a": 2}, {"a": "x"}])
    assert error.index == 3
    assert "'a' mixes types" in error.reason


@dataclass
class Moment:
    at: datetime


def test_times_have_no_columns_but_travel_as_objects() -> None:
    assert schema_of(Moment) is None
    serde = value_serde(Moment)
    row = Moment(datetime(2020, 1, 2))  # noqa: DTZ001  # naive on purpose: JSON keeps what it is given
    assert serde.decode(serde.encode(row)) == row


def test_rows_known_by_their_columns_may_hold_times() -> None:
    schema = {
        "at": pl.Datetime(),
        "on": pl.Date(),
        "when": pl.Time(),
        "list": pl.List(pl.Int64()),
        "odd": pl.Duration(),
    }
    serde = frame_serde(schema)
    row = {
        "at": datetime(2020, 1, 2, 3),  # noqa: DTZ001  # as polars hands it out
        "on": date(2020, 1, 2),
        "when": time(3, 4),
        "list": [1, None],
        "odd": None,
    }
    frame = pl.DataFrame([row], schema=schema)
    encoded = serde.encoded_from_frame(frame)
    assert serde.objects_from_encoded(encoded) == [row]
    assert serde.frame_from_encoded(encoded).equals(frame)


def test_a_frame_without_columns_is_as_many_empty_objects_as_it_has_rows() -> None:
    serde = frame_serde({})
    assert serde.encoded_from_frame(pl.DataFrame()) == []
    assert serde.objects_from_frame(pl.DataFrame()) == []


@pytest.mark.parametrize("count", [3, 600])
def test_the_size_of_a_batch_never_shows_in_the_bytes(count: int) -> None:
    """Few rows are encoded in another way than many."""
    rows = [{"n": index, "t": 'a"\n\x00é\U0001f600', "b": index % 2 == 0, "l": [index, None]} for index in range(count)]
    schema = {"n": pl.Int64(), "t": pl.String(), "b": pl.Boolean(), "l": pl.List(pl.Int64())}
    frame = pl.DataFrame(rows, schema=schema).with_columns(s=pl.struct("n", "t"))
    serde = frame_serde(dict(frame.schema))
    assert serde.encoded_from_frame(frame) == list(map(msgspec.json.encode, frame.to_dicts()))


def test_a_number_that_json_does_not_have_is_null_in_a_value() -> None:
    for number in (float("nan"), float("inf")):
        assert value_serde(float).encode(number) == b"null"
        assert value_serde(Point).encode(Point(1, number)) == b'{"x":1,"y":null}'
        frame = pl.DataFrame({"x": [1], "y": [number]})
        assert value_serde(Point).encoded_from_frame(frame) == [b'{"x":1,"y":null}']


def test_an_integer_beyond_64_bits_is_written_from_no_form() -> None:
    """A column of unsigned integers holds more than every JSON reader does."""
    frame = pl.DataFrame({"x": pl.Series([1, 2**63], dtype=pl.UInt64)})
    assert refusal(frame_serde(dict(frame.schema)).encoded_from_frame, frame).index == 1
    assert refusal(frame_serde(dict(frame.schema)).encoded_from_objects, frame.to_dicts()).index == 1


Meters = NewType("Meters", int)


def test_what_a_type_looks_like_as_columns() -> None:
    assert schema_of(Meters) is None
    assert dtype_of(Meters) == pl.Int64()
    assert dtype_of(Tree) is None
    assert dtype_of("no such type") is None
    assert not admits_none("no such type")
    assert admits_none(Any)
    assert admits_none(int | None)
    assert not admits_none(Point)


class Noted(msgspec.Struct):
    number: Annotated[int, msgspec.Meta(description="how many")]
    ratio: Annotated[float | None, msgspec.Meta(description="how much")] = None
    drawn: int = msgspec.field(default_factory=lambda: 3)


class Drawn(msgspec.Struct):
    number: int = msgspec.field(default_factory=lambda: 3)


def test_a_note_on_a_field_changes_nothing() -> None:
    serde = value_serde(Noted)
    rows = [Noted(1, 2.0), Noted(2), Noted(3, 4.0, 5)]
    encoded = serde.encoded_from_objects(rows)
    frame = serde.frame_from_encoded(encoded)
    assert frame.to_dict(as_series=False) == {"number": [1, 2, 3], "ratio": [2.0, None, 4.0], "drawn": [3, 3, 5]}
    assert serde.objects_from_frame(frame) == rows
    assert serde.encoded_from_frame(frame) == encoded
    assert admits_none(Annotated[int | None, msgspec.Meta(description="perhaps")])


def test_a_default_that_is_made_is_made_in_a_frame_too() -> None:
    assert value_serde(Drawn).frame_from_encoded([b"{}"]).to_dicts() == [{"number": 3}]


def test_a_dict_that_lacks_a_field_is_a_bad_row_of_a_frame() -> None:
    row = {"text": None, "number": 1}
    assert refusal(value_serde(Entry).frame_from_objects, [row, {"number": 1}]).index == 1


def test_rows_that_are_typed_dicts_come_back_as_dicts_of_the_declared_fields() -> None:
    frame = pl.DataFrame({"more": [0], "number": [1], "text": ["a"]})
    assert value_serde(Entry).objects_from_frame(frame) == [{"text": "a", "number": 1}]
    assert schema_of(Entry) == {"text": pl.String(), "number": pl.Int64()}


def test_a_value_without_columns_is_not_narrowed() -> None:
    serde = value_serde(str)
    assert serde.narrowed(["anything"]) is serde


def test_a_list_is_looked_into_before_it_is_a_column() -> None:
    error = refusal(value_serde(list[int]).frame_from_objects, [[1], [True], [2**63]])
    assert (error.index, error.data) == (1, b"[True]")
    assert "expected int, got bool" in error.reason


def test_a_nested_field_without_a_column_takes_its_default() -> None:
    frame = value_serde(Nested).frame_from_objects([NESTED]).drop("texts")
    assert value_serde(Nested).objects_from_frame(frame) == [NESTED]
