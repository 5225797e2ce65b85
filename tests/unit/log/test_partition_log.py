"""A partition's log: given out offsets, rolled segments, durable ends, reading, deleting."""

from itertools import pairwise

import pytest
from log_files import DIRECTORY, assert_indexes_are_right, batch, contents, files, opened, split
from watched_files import WatchedFileSystem

from streamkit.log import ControlKind, control_batch, decode, parse_header
from streamkit.log.partition_log import PartitionLog
from streamkit.seams import MemoryFileSystem

SEGMENT_BYTES = 300  # three batches of the usual 96 bytes
INTERVAL_BYTES = 150


@pytest.fixture
def fs() -> MemoryFileSystem:
    return MemoryFileSystem()


def opened_small(fs: MemoryFileSystem | WatchedFileSystem, recover_from: int = 0) -> PartitionLog:
    return opened(fs, segment_bytes=SEGMENT_BYTES, index_interval_bytes=INTERVAL_BYTES, recover_from=recover_from)


def append(log: PartitionLog, *names: str) -> tuple[int, int]:
    """Append a batch of two records for each name."""
    return log.append([batch(name.encode(), b"%d" % len(name) * 20, timestamps_ms=[1, 2]) for name in names])


def names(log: PartitionLog, from_offset: int = 0) -> list[str]:
    """Return the names of all batches, as a reader sees them."""
    values = decode(log.read(from_offset, bytes_max=1 << 30)).values
    return [value.decode() for value in values[::2] if value is not None]


def segment_names(fs: MemoryFileSystem | WatchedFileSystem) -> list[str]:
    return [name for name in fs.list(DIRECTORY) if name.endswith(".log")]


def test_a_new_log_has_one_empty_segment_with_its_indexes(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    assert (log.start_offset, log.end_offset, log.durable_offset) == (0, 0, 0)
    assert files(fs) == {f"{0:020d}.{suffix}": b"" for suffix in ("index", "log", "timeindex")}
    assert log.read(0, bytes_max=100) == []
    assert list(log.scan(0)) == []
    assert log.offset_for_time(0) is None


def test_offsets_are_given_out_in_order_and_the_batches_stored_as_they_came(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    assert append(log, "a") == (0, 1)
    assert append(log, "b", "c") == (2, 5)
    assert log.end_offset == 6
    stored = split(contents(fs, f"{DIRECTORY}/{0:020d}.log"))
    assert [data[16:] for data in stored] == [
        bytes(batch(name, b"1" * 20, timestamps_ms=[1, 2]))[16:] for name in (b"a", b"b", b"c")
    ]
    assert [parse_header(data).base_offset for data in stored] == [0, 2, 4]


def test_nothing_is_durable_before_sync_and_everything_before_it_is_after(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    append(log, "a", "b")
    assert log.durable_offset == 0
    assert names(opened_small(fs.crashed())) == []
    log.sync(1)
    assert log.durable_offset == 4
    assert names(opened_small(fs.crashed())) == ["a", "b"]


def test_one_fsync_serves_all_who_wait() -> None:
    fs, synced = WatchedFileSystem(), []
    log = opened_small(fs)
    append(log, "a", "b")
    fs.watch = lambda change, path: synced.append(path) if change == "sync" else None
    for upto in (2, 4, 1, 0):
        log.sync(upto)
    assert synced == [f"{DIRECTORY}/{0:020d}.log"]


def test_segments_are_rolled_before_they_would_be_too_large_and_named_after_their_first_offset(
    fs: MemoryFileSystem,
) -> None:
    log = opened_small(fs)
    for number in range(20):
        append(log, *[f"{number} {part}" for part in range(number % 5 + 1)])
    stored = {name: split(contents(fs, f"{DIRECTORY}/{name}")) for name in segment_names(fs)}
    assert len(stored) > 5
    for name, data in stored.items():
        assert parse_header(data[0]).base_offset == int(name[:20])
        assert sum(map(len, data)) <= SEGMENT_BYTES
    ordered = list(stored.values())
    for data, following in pairwise(ordered):
        assert sum(map(len, data)) + len(following[0]) > SEGMENT_BYTES
    assert names(log) == [f"{number} {part}" for number in range(20) for part in range(number % 5 + 1)]
    log.close()
    assert_indexes_are_right(fs, INTERVAL_BYTES)


def test_a_batch_larger_than_a_segment_gets_one_of_its_own(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    append(log, "a", "x" * 1000, "b")
    assert segment_names(fs) == [f"{offset:020d}.log" for offset in (0, 2, 4)]
    assert names(log) == ["a", "x" * 1000, "b"]


def test_a_full_segment_is_durable_before_the_next_is_begun() -> None:
    fs, changes = WatchedFileSystem(), []
    log = opened_small(fs)
    append(log, "a")
    fs.watch = lambda change, path: changes.append((change, path.removeprefix(f"{DIRECTORY}/")))
    append(log, "b", "c", "d", "e")
    synced, made, entered = (
        changes.index(change)
        for change in (
            ("sync", f"{0:020d}.log"),
            ("create", f"{6:020d}.log"),
            ("sync_dir", DIRECTORY),
        )
    )
    written = changes.index(("write", f"{6:020d}.log"))
    assert synced < made < entered < written


def test_batches_are_read_from_any_offset_on_in_pieces_of_any_size(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    expected = [f"{number}" for number in range(30)]
    for name in expected:
        append(log, name)
    for bytes_max in (1, 100, 250, 1_000, 10_000):
        offset = 0
        found: list[bytes | None] = []
        while offset < log.end_offset:
            data = log.read(offset, bytes_max=bytes_max)
            assert data
            assert sum(map(len, data[:-1])) < bytes_max
            found += decode(data).values[::2]
            offset = parse_header(data[-1]).last_offset + 1
        assert found == [name.encode() for name in expected]
    for offset in range(log.end_offset):
        assert names(log, offset) == expected[offset // 2 :]


def test_a_read_and_a_scan_begin_with_the_batch_that_holds_the_offset(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    append(log, *"abcdefghij")
    for offset in range(log.end_offset):
        first = parse_header(log.read(offset, bytes_max=1)[0])
        assert first.base_offset <= offset <= first.last_offset
        assert [header.base_offset for header in log.scan(offset)] == list(range(offset - offset % 2, 20, 2))


def test_a_read_ends_before_the_batch_that_reaches_its_end(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    append(log, *"abcdefghij")
    for end in range(21):
        data = log.read(0, bytes_max=1 << 30, end=end)
        assert [parse_header(encoded).last_offset for encoded in data] == [
            last for last in range(1, 20, 2) if last < end
        ]


def test_markers_hold_no_record_that_a_time_could_find(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    append(log, "a")
    log.append([control_batch(ControlKind.COMMIT, producer_id=1, producer_epoch=0, timestamp_ms=50)])
    log.append([batch(b"later", timestamps_ms=[60])])
    assert [log.offset_for_time(timestamp_ms) for timestamp_ms in (1, 2, 3, 60, 61)] == [0, 1, 3, 3, None]


def test_deleting_removes_the_segments_that_lie_wholly_below(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    append(log, *"abcdefghij")
    log.sync(log.end_offset)
    before = segment_names(fs)
    log.delete_before(7)
    assert log.start_offset == 7
    assert segment_names(fs) == [name for name in before if int(name[:20]) >= 6]
    assert {name[:20] for name in files(fs)} == {name[:20] for name in segment_names(fs)}
    assert names(log, 7) == list("defghij")
    assert [log.offset_for_time(timestamp_ms) for timestamp_ms in (1, 2, 3)] == [7, 7, None]
    log.delete_before(3)
    assert log.start_offset == 7
    again = opened_small(fs)
    assert (again.start_offset, again.end_offset) == (6, 20)


def test_a_time_that_only_deleted_records_of_a_batch_reach_is_not_found_there(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    log.append([batch(b"x", b"y", timestamps_ms=[50, 1])])
    append(log, "a")
    log.delete_before(1)
    assert [log.offset_for_time(timestamp_ms) for timestamp_ms in (0, 1, 2, 3, 50)] == [1, 1, 3, None, None]


def test_deleting_everything_keeps_the_segment_that_is_appended_to(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    append(log, *"abcdefghij")
    log.delete_before(log.end_offset)
    assert len(segment_names(fs)) == 1
    assert append(log, "k") == (20, 21)
    assert names(log, 20) == ["k"]


def test_who_reads_a_deleted_segment_reads_on(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    append(log, *"abcdefghij")
    reading = log.scan(0)
    assert next(reading).base_offset == 0
    log.delete_before(20)
    assert [header.base_offset for header in reading] == list(range(2, 20, 2))


def test_gaps_in_the_offsets_are_no_damage(fs: MemoryFileSystem) -> None:
    """Compaction leaves gaps within a segment, retention and a removed segment between them."""
    log = opened_small(fs)
    append(log, *"abcdefghij")
    log.sync(log.end_offset)
    log.close()
    kept = split(contents(fs, f"{DIRECTORY}/{6:020d}.log"))
    fs.remove(f"{DIRECTORY}/{12:020d}.log")
    file = fs.open(f"{DIRECTORY}/{6:020d}.log")
    file.truncate(0)
    file.write_at(0, kept[0] + kept[2])
    again = opened_small(fs)
    assert [header.base_offset for header in again.scan(0)] == [0, 2, 4, 6, 10, 18]
    assert names(again, 8) == ["f", "j"]
    assert names(again, 12) == ["j"]
    assert append(again, "k") == (20, 21)
    again.close()
    assert_indexes_are_right(fs, INTERVAL_BYTES)


def test_closing_twice_does_nothing(fs: MemoryFileSystem) -> None:
    log = opened_small(fs)
    log.close()
    log.close()
