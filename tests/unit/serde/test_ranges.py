"""Integers beyond 64 bits in batches: found by their bytes first, and refused as those in single records."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from row_types import Point, Tree

from streamkit.records import RowError
from streamkit.serde import value_serde
from streamkit.serde.ranges import may_leave_64_bits

FINE = b'{"x": 9223372036854775807, "y": 2.0}'


@dataclass
class Told:
    point: Point
    texts: list[str]
    counts: list[int | None]
    more: int | None = None


def found(type_: Any, rows: list[bytes]) -> tuple[int, str]:
    with pytest.raises(RowError) as caught:
        value_serde(type_).objects_from_encoded(rows)
    assert caught.value.data == rows[caught.value.index]
    return caught.value.index, caught.value.reason


@pytest.mark.parametrize("length", [0, 1, 7, 18])
@pytest.mark.parametrize("before", [b"", b"12-", b'"x": '])
@pytest.mark.parametrize("after", [b"", b".5", b", 1"])
def test_eighteen_digits_on_end_stay_within_64_bits(length: int, before: bytes, after: bytes) -> None:
    assert not may_leave_64_bits([b"{", before + b"9" * length + after, b"}"])
    assert may_leave_64_bits([b"{", before + b"9" * length + b"0" * (19 - length) + after, b"}"])


def test_no_row_leaves_64_bits() -> None:
    assert not may_leave_64_bits([])


@pytest.mark.parametrize("row_count", [3, 1_000])
@pytest.mark.parametrize("number", [b"9223372036854775808", b"-9223372036854775809", b"1" * 40])
def test_a_large_batch_refuses_the_integers_that_a_small_one_does(row_count: int, number: bytes) -> None:
    rows = [FINE] * row_count + [b'{"x": %s, "y": 2.0}' % number, b"no JSON"]
    index, reason = found(Point, rows)
    assert index == row_count
    assert "the integer leaves 64 bits - at `$.x`" in reason


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        (b'{"point": {"x": 9223372036854775808, "y": 1}, "texts": [], "counts": []}', "$.point.x"),
        (b'{"point": {"x": 1, "y": 1}, "texts": [], "counts": [null, 9223372036854775808]}', "$.counts[1]"),
        (b'{"point": {"x": 1, "y": 1}, "texts": [], "counts": [], "more": 9223372036854775808}', "$.more"),
    ],
)
def test_a_large_batch_refuses_a_long_integer_wherever_it_is(bad: bytes, place: str) -> None:
    fine = b'{"point": {"x": 1, "y": 1e300}, "texts": ["99999999999999999999"], "counts": [1]}'
    index, reason = found(Told, [fine] * 100 + [bad] + [fine] * 100)
    assert index == 100
    assert f"the integer leaves 64 bits - at `{place}`" in reason
    assert value_serde(Told).objects_from_encoded([fine] * 100)[99].texts == ["9" * 20]


def test_a_large_batch_refuses_a_key_whose_digits_are_escaped() -> None:
    escaped = b'{"' + b"\\u0039" * 19 + b'": 1}'
    assert found(dict[int, int], [b'{"1": 1}'] * 100 + [escaped])[0] == 100


def test_a_large_batch_refuses_what_is_nested_too_deeply() -> None:
    deep = b'{"value": 1, "children": [' * 300 + b"]}" * 300
    assert "levels deep" in found(Tree, [b'{"value": 1, "children": []}'] * 100 + [deep])[1]


@pytest.mark.parametrize("number", [b"1e19", b"1E30", b"1.0", b"12345678901234567e3", b"0.1e20"])
def test_no_number_with_a_point_or_an_exponent_is_an_integer(number: bytes) -> None:
    """Else an integer beyond 64 bits could be spelled with few digits."""
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        msgspec.json.decode(number, type=int)
