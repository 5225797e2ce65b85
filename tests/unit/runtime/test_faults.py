"""What is wrong with a store is said with the keys that it concerns."""

import pytest

from streamkit.runtime.folding import Fault
from streamkit.state import store_key, window_key
from streamkit.state.keys import STORE_INDEX_MAX, store_range
from streamkit.state.ranges import KeyRange
from streamkit.topology import StoreSpec


def said(begin: bytes, end: bytes | None, *, windowed: bool = False, index: int = 7) -> str:
    spec = StoreSpec(name="counts", index=index, changelog_topic="job-counts-changelog", windowed=windowed)
    return str(Fault(store=spec, where="task 1_0", reason="it differs", keys=KeyRange(begin=begin, end=end)))


@pytest.mark.parametrize("index", [7, STORE_INDEX_MAX])
def test_a_range_that_ends_with_its_store_goes_to_the_last_key(index: int) -> None:
    begin = store_key(index, b"be")
    for end in (None, store_range(index)[1], b"\xff\xff\xff"):
        assert said(begin, end, index=index) == "store counts, task 1_0: it differs; keys from 'be' to the last"


def test_a_range_that_begins_with_its_store_begins_with_the_first_key() -> None:
    for begin in (b"", store_range(6)[0], store_range(7)[0]):
        assert said(begin, store_key(7, b"to")).endswith("; keys from the first up to 'to'")


def test_a_range_without_bounds_in_its_store_has_all_keys() -> None:
    assert said(b"", None).endswith("it differs; all keys")
    assert said(*store_range(7)).endswith("it differs; all keys")
    assert said(*store_range(7), windowed=True).endswith("it differs; all keys")


def test_bounds_within_a_store_of_windows_are_said_with_their_windows() -> None:
    begin, end = window_key(7, 60_000, b"a"), window_key(7, 120_000, b"b")
    assert said(begin, end, windowed=True).endswith(
        "; keys from 'a' of the window that ends at 60000 ms up to 'b' of the window that ends at 120000 ms"
    )
    assert said(begin, store_range(7)[1], windowed=True).endswith("ends at 60000 ms to the last")
