"""The two sparse indexes, against Kafka's rule applied naively, and what their files cannot be."""

import struct

import pytest
from log_files import batch, kafka_indexes

from streamkit.log import ControlKind, control_batch, parse_header, place
from streamkit.log.index import OffsetEntry, SparseIndex, TimeEntry

BASE = 1_000
INTERVAL_BYTES = 150
TIMES_MS = [5, 3, 9, 9, 1, 20, -1, 30, 25, 31, 31, 2]


def batches(times_ms: list[int] = TIMES_MS) -> list[bytearray]:
    """Two records a batch, and a gap of one offset before each."""
    return [
        batch(b"x", b"y" * 20, timestamps_ms=[-1, time_ms], base_offset=BASE + 3 * row)
        for row, time_ms in enumerate(times_ms)
    ]


def built(data: list[bytearray]) -> SparseIndex:
    index, position = SparseIndex(BASE, INTERVAL_BYTES), 0
    for encoded in data:
        index.note(parse_header(encoded), position)
        position += len(encoded)
    return index


def test_entries_are_those_of_kafkas_rule_open_and_sealed() -> None:
    data = batches()
    index = built(data)
    assert (bytes(index.offsets), bytes(index.times)) == kafka_indexes(data, BASE, INTERVAL_BYTES, sealed=False)
    assert len(index.offsets) == 8 * 5
    assert len(index.times) == 12 * 4
    index.seal()
    index.seal()
    assert (bytes(index.offsets), bytes(index.times)) == kafka_indexes(data, BASE, INTERVAL_BYTES, sealed=True)


def test_an_empty_index_finds_nothing_and_seals_to_nothing() -> None:
    index = SparseIndex(BASE, INTERVAL_BYTES)
    index.seal()
    assert (index.batch_before(2**62), index.time_before(2**62)) == (None, None)
    assert (index.offsets, index.times) == (bytearray(), bytearray())
    assert index.largest == TimeEntry(-1, BASE)


def test_records_without_timestamps_leave_the_time_index_empty() -> None:
    index = built(batches([-1] * 8))
    index.seal()
    assert index.offsets
    assert not index.times


def test_markers_do_not_count_in_the_time_index() -> None:
    marker = control_batch(ControlKind.COMMIT, producer_id=1, producer_epoch=0, timestamp_ms=10**6)
    place(marker, BASE + 2)
    index = built([batches([5])[0], marker])
    index.seal()
    assert index.time_before(10**7) == TimeEntry(5, BASE + 1)


def test_the_last_entry_at_or_before_an_offset_is_found() -> None:
    data = batches()
    index = built(data)
    entries = [
        OffsetEntry(BASE + relative, position) for relative, position in struct.iter_unpack(">ii", index.offsets)
    ]
    for offset in range(BASE - 1, BASE + 3 * len(data) + 1):
        below = [entry for entry in entries if entry.offset <= offset]
        assert index.batch_before(offset) == (below[-1] if below else None)


def test_the_last_entry_below_a_timestamp_is_found() -> None:
    index = built(batches())
    entries = [TimeEntry(time_ms, BASE + relative) for time_ms, relative in struct.iter_unpack(">qi", index.times)]
    for timestamp_ms in range(-3, 40):
        below = [entry for entry in entries if entry.timestamp_ms < timestamp_ms]
        assert index.time_before(timestamp_ms) == (below[-1] if below else None)


def test_files_are_read_back_as_they_were_written() -> None:
    index = built(batches())
    index.seal()
    parsed = SparseIndex.parse(BASE, INTERVAL_BYTES, bytes(index.offsets), bytes(index.times))
    assert parsed is not None
    assert (parsed.offsets, parsed.times, parsed.largest) == (index.offsets, index.times, index.largest)
    assert SparseIndex.parse(BASE, INTERVAL_BYTES, b"", b"") is not None


@pytest.mark.parametrize(
    ("offsets", "times"),
    [
        (struct.pack(">ii", 1, 0)[:-1], b""),
        (b"", struct.pack(">qi", 1, 0)[:-1]),
        (struct.pack(">iiii", 1, 0, 1, 9), b""),
        (struct.pack(">iiii", 1, 9, 2, 9), b""),
        (struct.pack(">ii", -1, 0), b""),
        (struct.pack(">ii", 1, -1), b""),
        (b"", struct.pack(">qi", -1, 0)),
        (b"", struct.pack(">qi", 1, -1)),
        (b"", struct.pack(">qiqi", 5, 1, 5, 2)),
        (b"", struct.pack(">qiqi", 5, 1, 6, 1)),
        (b"", struct.pack(">qi", 5, 1) + bytes(12)),
    ],
)
def test_files_that_no_segment_can_have_are_not_taken(offsets: bytes, times: bytes) -> None:
    assert SparseIndex.parse(BASE, INTERVAL_BYTES, offsets, times) is None


def test_an_index_that_went_back_goes_on_as_if_it_had_never_been_further() -> None:
    data = batches()
    positions = {parse_header(encoded).last_offset: sum(map(len, data[:row])) for row, encoded in enumerate(data)}
    full = built(data)
    for relative, position in struct.iter_unpack(">ii", full.offsets):
        entry = OffsetEntry(BASE + relative, position)
        index = built(data)
        index.rewind_to(entry)
        assert index.batch_before(2**62) == entry
        for encoded in data:
            header = parse_header(encoded)
            if header.last_offset >= entry.offset:
                index.note(header, positions[header.last_offset])
        assert (index.offsets, index.times, index.largest) == (full.offsets, full.times, full.largest)
