"""Consecutive records of others are the same records."""

import numpy as np

from streamkit.log import decode, encode
from streamkit.records import EncodedRecords
from streamkit.records.placed import SlicedRecords


def test_a_slice_has_the_columns_of_its_records() -> None:
    headers = [[], [("h", b"1")], [], []]
    keys, values = [b"a", None, b"c", b"d"], [b"1", b"2", None, b"4"]
    records = EncodedRecords.to_append(timestamps_ms=[5, 6, 7, 8], keys=keys, values=values, headers=headers)
    some = SlicedRecords(decode(list(encode(records))), 1, 4)
    assert len(some) == 3
    assert (some.keys, some.values, some.headers) == (keys[1:], values[1:], headers[1:])
    assert some.offsets.tolist() == [1, 2, 3]
    assert np.array_equal(some.timestamps_ms, [6, 7, 8])
    fewer = some.below(3)
    assert (len(fewer), fewer.keys, fewer.offsets.tolist()) == (2, [None, b"c"], [1, 2])


def test_a_slice_of_records_without_headers_has_none() -> None:
    records = EncodedRecords.to_append(timestamps_ms=[5, 6], keys=[None, None], values=[b"1", b"2"])
    assert SlicedRecords(decode(list(encode(records))), 0, 1).headers is None
