import numpy as np
import pytest

from streamkit.state import (
    POSITION_KEY,
    split_window_key,
    store_key,
    store_range,
    window_key,
    window_keys,
    window_range,
)
from streamkit.state.keys import STORE_INDEX_MAX

LEAST, GREATEST = -(2**63), 2**63 - 1


def test_a_plain_key_is_the_store_index_and_the_key() -> None:
    assert store_key(3, b"bob") == b"\x00\x03bob"


def test_a_window_key_is_the_store_index_the_flipped_end_and_the_key() -> None:
    assert window_key(3, 10_000, b"bob") == b"\x00\x03" + b"\x80\x00\x00\x00\x00\x00\x27\x10" + b"bob"


def test_the_position_sorts_behind_every_store() -> None:
    last_begin, last_end = store_range(STORE_INDEX_MAX)
    assert last_begin < last_end < POSITION_KEY
    assert window_range(STORE_INDEX_MAX, GREATEST)[1] < POSITION_KEY


def test_a_store_index_out_of_range_is_a_programming_error() -> None:
    for index in (-1, STORE_INDEX_MAX + 1):
        with pytest.raises(AssertionError, match="out of range"):
            store_key(index, b"")


@pytest.mark.parametrize("end_ms", [LEAST, -1, 0, 1, 255, GREATEST])
def test_a_window_range_holds_its_window_and_nothing_else(end_ms: int) -> None:
    begin, end = window_range(7, end_ms)
    assert begin <= window_key(7, end_ms, b"") < window_key(7, end_ms, b"\xff" * 20) < end
    if end_ms > LEAST:
        assert window_key(7, end_ms - 1, b"\xff" * 20) < begin
    if end_ms < GREATEST:
        assert end <= window_key(7, end_ms + 1, b"")
    assert end <= store_range(8)[0]


def test_many_keys_are_built_as_one_by_one_from_lists_and_from_arrays() -> None:
    ends, keys = [5, -5, 5, 2**62], [b"a", b"b", b"", b"d"]
    expected = [window_key(1, end, key) for end, key in zip(ends, keys, strict=True)]
    assert window_keys(1, ends, keys) == expected
    assert window_keys(1, np.array(ends, dtype=np.int64), keys) == expected
    assert window_keys(1, [], []) == []


def test_ends_and_keys_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        window_keys(1, [1, 2], [b"a"])


def test_a_window_key_splits_into_what_it_was_made_of() -> None:
    assert split_window_key(window_key(9, -1234, b"key")) == (9, -1234, b"key")
