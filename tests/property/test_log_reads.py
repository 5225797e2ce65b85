"""A partition's log against a list: reads, times and indexes after appends, openings and lost index files."""

import struct
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from log_files import DIRECTORY, assert_indexes_are_right, batch, contents, opened, overwrite

from streamkit.log import decode, parse_header
from streamkit.log.partition_log import PartitionLog
from streamkit.seams import MemoryFileSystem

Batches = list[list[int]]
TIMES_MS = st.integers(-1, 12)
SEGMENT_BYTES = st.one_of(st.integers(100, 600), st.just(1 << 20))
GROUPS = st.lists(st.lists(st.lists(TIMES_MS, min_size=1, max_size=3), min_size=1, max_size=6), max_size=8)


@dataclass
class Model:
    """What the log should hold: (offset, timestamp) of every record, and the offsets at which a batch ends."""

    records: list[tuple[int, int]]
    ends: list[int]

    def append(self, log: PartitionLog, group: Batches) -> None:
        first = log.end_offset
        batches = [batch(*map(b"%d".__mod__, times_ms), timestamps_ms=times_ms) for times_ms in group]
        assert log.append(batches) == (first, first + sum(map(len, group)) - 1)
        for times_ms in group:
            start = len(self.records)
            self.records += enumerate(times_ms, start)
            self.ends.append(start + len(times_ms))


def assert_alike(log: PartitionLog, model: Model, bytes_max: int) -> None:
    assert log.end_offset == len(model.records)
    for offset in range(len(model.records)):
        data = log.read(offset, bytes_max=bytes_max)
        read = decode(data, from_offset=offset)
        pairs = list(zip(read.offsets.tolist(), read.timestamps_ms.tolist(), strict=True))
        assert pairs
        assert pairs == model.records[offset : offset + len(pairs)]
        assert [header.last_offset + 1 for header in log.scan(offset)] == [end for end in model.ends if end > offset]
    for timestamp_ms in range(-2, 15):
        reached = (offset for offset, time_ms in model.records if time_ms >= timestamp_ms)
        assert log.offset_for_time(timestamp_ms) == next(reached, None)


@given(GROUPS, GROUPS, SEGMENT_BYTES, st.integers(1, 300), st.integers(1, 700), st.data())
def test_a_log_reads_like_a_list_also_after_index_files_were_lost(
    before: list[Batches],
    after: list[Batches],
    segment_bytes: int,
    interval_bytes: int,
    bytes_max: int,
    data: st.DataObject,
) -> None:
    fs, model = MemoryFileSystem(), Model([], [])
    log = opened(fs, segment_bytes=segment_bytes, index_interval_bytes=interval_bytes)
    for group in before:
        model.append(log, group)
    assert_alike(log, model, bytes_max)
    log.sync(log.end_offset)
    log.close()
    assert_indexes_are_right(fs, interval_bytes)

    shortened = data.draw(st.booleans())
    if shortened:
        for name in fs.list(DIRECTORY):
            if name.endswith("index"):
                size_bytes = len(contents(fs, f"{DIRECTORY}/{name}"))
                fs.open(f"{DIRECTORY}/{name}").truncate(data.draw(st.integers(0, size_bytes)))
    recover_from = data.draw(st.sampled_from([0, *model.ends]))
    log = opened(fs, segment_bytes=segment_bytes, index_interval_bytes=interval_bytes, recover_from=recover_from)
    assert_alike(log, model, bytes_max)
    for group in after:
        model.append(log, group)
    assert_alike(log, model, bytes_max)
    log.close()
    if recover_from == 0 or not shortened:
        assert_indexes_are_right(fs, interval_bytes)


@given(GROUPS, SEGMENT_BYTES, st.integers(1, 300), st.data())
def test_a_log_reads_like_a_list_after_any_index_entries_were_changed(
    groups: list[Batches], segment_bytes: int, interval_bytes: int, data: st.DataObject
) -> None:
    """Entries are compared with the segment when they are used, so one that is wrong is not believed."""
    fs, model = MemoryFileSystem(), Model([], [])
    log = opened(fs, segment_bytes=segment_bytes, index_interval_bytes=interval_bytes)
    for group in groups:
        model.append(log, group)
    log.close()
    for name in fs.list(DIRECTORY):
        if name.endswith(".index"):
            path = f"{DIRECTORY}/{name}"
            entries = [list(entry) for entry in struct.iter_unpack(">ii", contents(fs, path))]
            for entry in entries:
                entry[data.draw(st.integers(0, 1))] += data.draw(st.integers(0, 3))
            overwrite(fs, path, b"".join(struct.pack(">ii", *entry) for entry in entries))
    recover_from = data.draw(st.sampled_from([0, *model.ends]))
    log = opened(fs, segment_bytes=segment_bytes, index_interval_bytes=interval_bytes, recover_from=recover_from)
    assert_alike(log, model, 200)


@given(GROUPS, SEGMENT_BYTES, st.data())
def test_deleting_leaves_every_record_from_the_new_start_on(
    groups: list[Batches], segment_bytes: int, data: st.DataObject
) -> None:
    fs, model = MemoryFileSystem(), Model([], [])
    log = opened(fs, segment_bytes=segment_bytes, index_interval_bytes=100)
    for group in groups:
        model.append(log, group)
    start = data.draw(st.sampled_from([0, *model.ends]))
    log.delete_before(start)
    assert log.start_offset == start
    if start < log.end_offset:
        kept = decode(log.read(start, bytes_max=1 << 30), from_offset=start)
        assert list(zip(kept.offsets.tolist(), kept.timestamps_ms.tolist(), strict=True)) == model.records[start:]
    for timestamp_ms in range(-2, 15):
        reached = (offset for offset, time_ms in model.records[start:] if time_ms >= timestamp_ms)
        assert log.offset_for_time(timestamp_ms) == next(reached, None)
    first = min(int(name[:20]) for name in fs.list(DIRECTORY))
    assert first <= start
    assert parse_header(log.read(first, bytes_max=1)[0]).base_offset == first if model.records else first == 0
