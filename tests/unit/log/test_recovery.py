"""What is found at open: where the search for damage looks, and what is known without a second look."""

import struct

import pytest
from log_files import DIRECTORY, assert_indexes_are_right, batch, contents, opened, overwrite, split

from streamkit.errors import CorruptBatchError
from streamkit.log import recovery
from streamkit.log.recovery import recover
from streamkit.seams import MemoryFileSystem

PATH = f"{DIRECTORY}/{0:020d}.log"
INTERVAL_BYTES = 200


@pytest.fixture
def fs() -> MemoryFileSystem:
    return MemoryFileSystem()


def written(fs: MemoryFileSystem, times_ms: list[int]) -> list[bytes]:
    """Write one batch of one record for each timestamp into one segment; return the batches."""
    log = opened(fs, index_interval_bytes=INTERVAL_BYTES)
    for time_ms in times_ms:
        log.append([batch(b"x" * 50, timestamps_ms=[time_ms])])
    log.sync(log.end_offset)
    log.close()
    return split(contents(fs, PATH))


def test_it_tells_segments_end_offset_and_how_many_bytes_it_cut(fs: MemoryFileSystem) -> None:
    batches = written(fs, [1, 2, 3])
    overwrite(fs, PATH, b"".join(batches)[:-4])
    recovered = recover(fs, DIRECTORY, recover_from=0, index_interval_bytes=INTERVAL_BYTES)
    assert [segment.base_offset for segment in recovered.segments] == [0]
    assert (recovered.end_offset, recovered.cut_bytes) == (2, len(batches[2]) - 4)
    assert contents(fs, PATH) == b"".join(batches[:2])


def test_what_is_left_is_durable_even_if_its_writer_never_synced_it(fs: MemoryFileSystem) -> None:
    log = opened(fs)
    log.append([batch(b"x")])
    opened(fs)
    assert opened(fs.crashed()).end_offset == 1


def test_other_files_in_the_directory_are_let_be(fs: MemoryFileSystem) -> None:
    written(fs, [1])
    for name in ("notes.txt", "1.log", "00000000000000000001.index.bak", "partition.metadata"):
        overwrite(fs, f"{DIRECTORY}/{name}", b"mine")
    before = fs.list(DIRECTORY)
    assert opened(fs).end_offset == 1
    assert fs.list(DIRECTORY) == before


@pytest.mark.parametrize("search_bytes", [1, 64, 100, 2**20])
def test_a_whole_batch_behind_the_damage_is_found_wherever_it_lies(
    fs: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, search_bytes: int
) -> None:
    """The search reads in pieces; a header may lie across two of them."""
    monkeypatch.setattr(recovery, "_SEARCH_BYTES", search_bytes)
    first, second, third = written(fs, [1, 2, 3])
    for gap_bytes in range(0, 300, 7):
        data = first + b"\xee" * gap_bytes + third
        overwrite(fs, PATH, data if gap_bytes else first + b"\xee" + third)
        with pytest.raises(CorruptBatchError) as caught:
            opened(fs)
        assert (caught.value.file, caught.value.position) == (PATH, len(first))
    overwrite(fs, PATH, first + b"\xee" * 300 + third[:-1])
    assert opened(fs).end_offset == 1
    assert second not in contents(fs, PATH)


@pytest.mark.parametrize("flaw", ["length", "records", "compression", "earlier offset", "far offset", "magic", "crc"])
def test_what_only_looks_like_a_batch_behind_the_damage_is_torn_too(fs: MemoryFileSystem, flaw: str) -> None:
    first, _, third = written(fs, [1, 2, 3])
    position, layout, value = {
        "length": (8, ">i", 3),
        "records": (57, ">i", -1),
        "compression": (21, ">h", 7),
        "earlier offset": (0, ">q", 1),
        "far offset": (0, ">q", 2**40),
        "magic": (16, ">b", 1),
        "crc": (17, ">I", 0),
    }[flaw]
    almost = bytearray(third)
    struct.pack_into(layout, almost, position, value)
    overwrite(fs, PATH, first + b"\xee" * 100 + almost)
    assert opened(fs).end_offset == 1
    assert contents(fs, PATH) == first


def test_a_whole_batch_too_far_from_the_first_offset_for_an_index_is_an_error(fs: MemoryFileSystem) -> None:
    (first,) = written(fs, [1])
    overwrite(fs, PATH, first + batch(b"x", base_offset=2**31))
    with pytest.raises(CorruptBatchError) as caught:
        opened(fs)
    assert caught.value.position == len(first)


def damaged(fs: MemoryFileSystem, batches: list[bytes], row: int) -> None:
    """Flip a byte in the records of one batch."""
    data = bytearray(b"".join(batches))
    data[sum(map(len, batches[:row])) + 80] ^= 1
    overwrite(fs, PATH, bytes(data))


def test_what_is_known_to_be_durable_is_not_checked_again(fs: MemoryFileSystem) -> None:
    """The damage of batch 3 shows whether it was looked at; an index entry lies between it and batch 17."""
    batches = written(fs, list(range(20)))
    damaged(fs, batches, 3)
    log = opened(fs, index_interval_bytes=INTERVAL_BYTES, recover_from=17)
    assert log.end_offset == 20
    assert log.append([batch(b"x" * 50, timestamps_ms=[30])]) == (20, 20)
    log.close()
    assert_indexes_are_right(fs, INTERVAL_BYTES)
    with pytest.raises(CorruptBatchError):
        opened(fs, index_interval_bytes=INTERVAL_BYTES)


def test_everything_after_what_is_known_is_checked(fs: MemoryFileSystem) -> None:
    batches = written(fs, list(range(20)))
    damaged(fs, batches, 17)
    with pytest.raises(CorruptBatchError) as caught:
        opened(fs, index_interval_bytes=INTERVAL_BYTES, recover_from=17)
    assert caught.value.position == sum(map(len, batches[:17]))


@pytest.mark.parametrize("flaw", ["no offsets", "no times", "a wrong entry at 10", "a wrong entry at 18"])
def test_an_index_that_lost_something_is_not_built_upon(fs: MemoryFileSystem, flaw: str) -> None:
    """Index files are not synced. A hole in one that is appended to would hide records from a search by time."""
    times_ms = [*range(10, 20), 50, *range(20, 29)]
    written(fs, times_ms)
    offsets, times = f"{DIRECTORY}/{0:020d}.index", f"{DIRECTORY}/{0:020d}.timeindex"
    entries = list(struct.iter_unpack(">ii", contents(fs, offsets)))
    assert [offset for offset, _ in entries] == list(range(2, 20, 2))
    if flaw == "no offsets":
        overwrite(fs, offsets, b"")
    elif flaw == "no times":
        overwrite(fs, times, b"")
    else:
        wrong = int(flaw.rpartition(" ")[2])
        moved = [(offset, position + (offset == wrong)) for offset, position in entries]
        overwrite(fs, offsets, b"".join(struct.pack(">ii", *entry) for entry in moved))

    log = opened(fs, index_interval_bytes=INTERVAL_BYTES, recover_from=20)
    for _ in range(5):
        log.append([batch(b"x" * 50, timestamps_ms=[5])])
    for timestamp_ms in range(60):
        reached = (offset for offset, time_ms in enumerate(times_ms) if time_ms >= timestamp_ms)
        assert log.offset_for_time(timestamp_ms) == next(reached, None)
    log.close()
    assert_indexes_are_right(fs, INTERVAL_BYTES)
