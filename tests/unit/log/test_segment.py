"""One segment: what is appended at the head, found by offset and time, and kept beside a wrong index."""

import struct
from collections.abc import Iterator

import pytest
from log_files import DIRECTORY, batch, contents, files, kafka_indexes, overwrite
from watched_files import WatchedFileSystem

from streamkit.errors import CorruptBatchError, SegmentFullError
from streamkit.log import parse_header, place
from streamkit.log.segment import SEGMENT_BYTES_MAX, Segment
from streamkit.seams import MemoryFileSystem

BASE = 100
INTERVAL_BYTES = 200
STEM = f"{DIRECTORY}/{BASE:020d}"
TIMES_MS = [10, 30, 20, 30, 5, 60, 61, 40, 62, 62, 90, 7]
NO_LIMIT = 1 << 30


@pytest.fixture
def fs() -> MemoryFileSystem:
    return MemoryFileSystem()


def batches() -> list[bytearray]:
    """Two records a batch, and a gap of one offset before each."""
    return [
        batch(b"value", b"%d" % row * 40, timestamps_ms=[0, time_ms], base_offset=BASE + 3 * row)
        for row, time_ms in enumerate(TIMES_MS)
    ]


def segment(fs: MemoryFileSystem | WatchedFileSystem) -> Segment:
    return Segment(fs, DIRECTORY, BASE, index_interval_bytes=INTERVAL_BYTES)


def filled(fs: MemoryFileSystem | WatchedFileSystem, *, seal: bool = False) -> Segment:
    written = segment(fs)
    for encoded in batches():
        written.append(encoded, [parse_header(encoded)], size_bytes_max=NO_LIMIT)
    if seal:
        written.seal()
    return written


def positions() -> Iterator[tuple[int, bytearray]]:
    position = 0
    for encoded in batches():
        yield position, encoded
        position += len(encoded)


def test_the_files_are_named_after_the_first_offset_in_20_digits(fs: MemoryFileSystem) -> None:
    filled(fs)
    assert sorted(files(fs)) == [f"{BASE:020d}.{suffix}" for suffix in ("index", "log", "timeindex")]


@pytest.mark.parametrize("seal", [False, True])
def test_the_files_hold_the_batches_and_kafkas_indexes(fs: MemoryFileSystem, seal: bool) -> None:
    filled(fs, seal=seal).close()
    data = batches()
    assert contents(fs, f"{STEM}.log") == b"".join(data)
    indexes = contents(fs, f"{STEM}.index"), contents(fs, f"{STEM}.timeindex")
    assert indexes == kafka_indexes(data, BASE, INTERVAL_BYTES, sealed=seal)


def test_several_batches_go_in_with_one_write() -> None:
    fs, changes = WatchedFileSystem(), []
    fs.watch = lambda change, path: changes.append((change, path))
    written, data = segment(fs), batches()
    written.append(b"".join(data), [parse_header(encoded) for encoded in data], size_bytes_max=NO_LIMIT)
    assert changes.count(("write", f"{STEM}.log")) == 1
    assert written.size_bytes == sum(map(len, data))
    written.close()
    indexes = contents(fs, f"{STEM}.index"), contents(fs, f"{STEM}.timeindex")
    assert indexes == kafka_indexes(data, BASE, INTERVAL_BYTES, sealed=False)


def test_index_files_are_written_some_entries_at_a_time() -> None:
    """Each write to them makes the next fsync of the segment slower; what is missing is made up at the next open."""
    fs = WatchedFileSystem()
    writes: list[str] = []
    fs.watch = lambda change, path: writes.append(path) if change == "write" else None
    written = Segment(fs, DIRECTORY, BASE, index_interval_bytes=1)
    data: list[bytearray] = []
    stored: set[bytes] = set()
    for row in range(300):
        data.append(batch(b"x", timestamps_ms=[row], base_offset=BASE + row))
        written.append(data[-1], [parse_header(data[-1])], size_bytes_max=NO_LIMIT)
        stored.add(contents(fs, f"{STEM}.index"))
    indexes = kafka_indexes(data, BASE, 1, sealed=False)
    assert sorted(map(len, stored)) == [0, 1024, 2048]
    assert all(indexes[0].startswith(entries) for entries in stored)
    assert writes.count(f"{STEM}.index") == writes.count(f"{STEM}.timeindex") == len(stored)
    written.close()
    assert (contents(fs, f"{STEM}.index"), contents(fs, f"{STEM}.timeindex")) == indexes


@pytest.mark.parametrize("damage", ["none", "missing", "wrong", "impossible"])
@pytest.mark.parametrize("seal", [False, True])
def test_offset_and_time_are_found_whatever_the_index_files_say(fs: MemoryFileSystem, damage: str, seal: bool) -> None:
    filled(fs, seal=seal).close()
    for suffix, entry in (("index", ">ii"), ("timeindex", ">qi")):
        path = f"{STEM}.{suffix}"
        if damage == "missing":
            fs.remove(path)
        elif damage == "impossible":
            overwrite(fs, path, contents(fs, path)[:-1])
        elif damage == "wrong":
            entries = struct.iter_unpack(entry, contents(fs, path))
            overwrite(fs, path, b"".join(struct.pack(entry, first + 1, second + 1) for first, second in entries))
    read = segment(fs)
    read.sealed = seal
    for offset in range(BASE - 1, BASE + 3 * len(TIMES_MS) + 2):
        expected = next((at for at, data in positions() if parse_header(data).last_offset >= offset), read.size_bytes)
        assert read.locate(offset) == expected
    for timestamp_ms in range(max(TIMES_MS) + 2):
        reached = [at for at, data in positions() if parse_header(data).max_timestamp_ms >= timestamp_ms]
        found = read.locate_time(timestamp_ms)
        assert found <= min(reached, default=read.size_bytes)
        assert found in {at for at, _ in positions()}
    if seal or damage in ("missing", "impossible"):
        indexes = contents(fs, f"{STEM}.index"), contents(fs, f"{STEM}.timeindex")
        assert indexes == kafka_indexes(batches(), BASE, INTERVAL_BYTES, sealed=seal)


def test_a_right_index_saves_walking_the_segment(fs: MemoryFileSystem) -> None:
    read = filled(fs, seal=True)
    first = read.read_at(0, 100)
    overwrite(fs, f"{STEM}.log", bytes(100) + contents(fs, f"{STEM}.log")[100:])
    last = max(at for at, _ in positions())
    assert read.locate(BASE + 3 * len(TIMES_MS) - 2) == last
    assert read.locate_time(80) > 0
    assert first != bytes(100)


def test_whole_batches_are_read_as_far_as_asked_and_at_least_one(fs: MemoryFileSystem) -> None:
    read = filled(fs)
    expected = [(at, bytes(data)) for at, data in positions()]
    for bytes_max in (1, 61, 150, 400, 1_000, NO_LIMIT):
        for row, (position, _) in enumerate(expected):
            found = list(read.batches(position, bytes_max=bytes_max))
            fitting = [
                item for item in expected[row:] if item[0] + len(item[1]) <= max(position + bytes_max, position + 61)
            ]
            assert found == (fitting or expected[row : row + 1])
    assert list(read.batches(read.size_bytes, bytes_max=100)) == []


def test_reading_stops_before_a_batch_that_reaches_the_end_asked_for(fs: MemoryFileSystem) -> None:
    read = filled(fs)
    for end in range(BASE, BASE + 3 * len(TIMES_MS) + 1):
        found = [bytes(data) for _, data in read.batches(0, bytes_max=NO_LIMIT, end=end)]
        assert found == [bytes(data) for data in batches() if parse_header(data).last_offset < end]


def test_headers_are_walked_over_batches_larger_than_a_read(fs: MemoryFileSystem) -> None:
    data = [batch(b"x" * size) for size in (10, 40_000, 10, 16_300, 10)]
    written = segment(fs)
    for row, encoded in enumerate(data):
        place(encoded, BASE + row)
        written.append(encoded, [parse_header(encoded)], size_bytes_max=NO_LIMIT)
    sizes = [0, *(len(encoded) for encoded in data)]
    expected = [(sum(sizes[: row + 1]), parse_header(encoded)) for row, encoded in enumerate(data)]
    for row, (position, _) in enumerate(expected):
        assert list(written.headers(position)) == expected[row:]


def test_a_batch_that_does_not_fit_is_refused_and_nothing_is_written(fs: MemoryFileSystem) -> None:
    written = filled(fs)
    before = files(fs)
    encoded = batch(b"x", base_offset=BASE + 500)
    limit = written.size_bytes + len(encoded)
    with pytest.raises(SegmentFullError, match=f"{STEM}.log"):
        written.append(encoded, [parse_header(encoded)], size_bytes_max=limit - 1)
    assert files(fs) == before
    written.append(encoded, [parse_header(encoded)], size_bytes_max=limit)
    assert written.size_bytes == limit


def test_an_empty_segment_takes_one_batch_of_any_size(fs: MemoryFileSystem) -> None:
    written, encoded = segment(fs), batch(b"x" * 1000, base_offset=BASE)
    written.append(encoded, [parse_header(encoded)], size_bytes_max=10)
    assert written.size_bytes == len(encoded)


def test_an_offset_too_far_from_the_first_for_an_index_does_not_fit(fs: MemoryFileSystem) -> None:
    written = filled(fs)
    encoded = batch(b"x", base_offset=BASE + SEGMENT_BYTES_MAX + 1)
    with pytest.raises(SegmentFullError):
        written.append(encoded, [parse_header(encoded)], size_bytes_max=NO_LIMIT)
    place(encoded, BASE + SEGMENT_BYTES_MAX)
    written.append(encoded, [parse_header(encoded)], size_bytes_max=NO_LIMIT)
    assert written.locate(BASE + SEGMENT_BYTES_MAX) == written.size_bytes - len(encoded)


def test_what_lies_beyond_the_head_does_not_count_and_is_cut_before_the_next_append(fs: MemoryFileSystem) -> None:
    written = filled(fs)
    fs.open(written.path).write_at(written.size_bytes, b"left by a dead writer" * 20)
    assert written.read_at(written.size_bytes, 10) == b""
    encoded = batch(b"x", base_offset=BASE + 500)
    written.append(encoded, [parse_header(encoded)], size_bytes_max=NO_LIMIT)
    assert contents(fs, written.path) == b"".join([*batches(), encoded])


def test_a_failed_write_leaves_the_head_where_it_was() -> None:
    fs = WatchedFileSystem()
    written, data = segment(fs), batches()

    def refuse(change: str, path: str) -> None:
        if change == "write" and path.endswith(".log"):
            raise OSError(28, "no space left on device")

    for row, encoded in enumerate(data):
        fs.watch = refuse
        with pytest.raises(OSError, match="no space left"):
            written.append(encoded, [parse_header(encoded)], size_bytes_max=NO_LIMIT)
        assert written.size_bytes == sum(map(len, data[:row]))
        fs.watch = lambda change, path: None
        written.append(encoded, [parse_header(encoded)], size_bytes_max=NO_LIMIT)
    assert contents(fs, written.path) == b"".join(data)
    written.close()
    indexes = contents(fs, f"{STEM}.index"), contents(fs, f"{STEM}.timeindex")
    assert indexes == kafka_indexes(data, BASE, INTERVAL_BYTES, sealed=False)


def test_index_files_that_cannot_be_written_do_not_fail_an_append() -> None:
    fs = WatchedFileSystem()

    def refuse(change: str, path: str) -> None:
        if path.endswith("index"):
            raise OSError(28, "no space left on device")

    fs.watch = refuse
    written = filled(fs, seal=True)
    last = max(at for at, _ in positions())
    assert written.locate(BASE + 3 * len(TIMES_MS) - 2) == last


def test_truncating_takes_the_indexes_along_and_takes_batches_again(fs: MemoryFileSystem) -> None:
    data = batches()
    for row, (position, _) in enumerate(positions()):
        written = filled(fs, seal=True)
        written.truncate(position)
        assert contents(fs, written.path) == b"".join(data[:row])
        for encoded in data[row:]:
            written.append(encoded, [parse_header(encoded)], size_bytes_max=NO_LIMIT)
        written.close()
        indexes = contents(fs, f"{STEM}.index"), contents(fs, f"{STEM}.timeindex")
        assert indexes == kafka_indexes(data, BASE, INTERVAL_BYTES, sealed=False)
        written.truncate(0)


def test_damage_names_the_file_and_the_byte_where_the_batch_begins(fs: MemoryFileSystem) -> None:
    read = filled(fs)
    good = contents(fs, read.path)
    for position, data in positions():
        for at, reason in ((16, "magic"), (40, "CRC"), (len(data) - 1, "CRC"), (8, "claims")):
            bad = bytearray(good)
            bad[position + at] ^= 0x40
            overwrite(fs, read.path, bytes(bad))
            with pytest.raises(CorruptBatchError, match=reason) as caught:
                list(read.batches(0, bytes_max=NO_LIMIT))
            assert (caught.value.file, caught.value.position) == (read.path, position)


def test_a_file_that_became_shorter_than_the_head_is_damage(fs: MemoryFileSystem) -> None:
    read = filled(fs)
    last = max(at for at, _ in positions())
    for size_bytes in (read.size_bytes - 1, last + 61, last + 60):
        fs.open(read.path).truncate(size_bytes)
        with pytest.raises(CorruptBatchError) as caught:
            list(read.batches(last, bytes_max=NO_LIMIT))
        assert (caught.value.file, caught.value.position) == (read.path, last)


def test_a_removed_segment_is_read_to_its_end_by_who_has_it_open(fs: MemoryFileSystem) -> None:
    read = filled(fs)
    read.remove()
    assert list(files(fs)) == []
    assert [bytes(data) for _, data in read.batches(0, bytes_max=NO_LIMIT)] == [bytes(data) for data in batches()]
