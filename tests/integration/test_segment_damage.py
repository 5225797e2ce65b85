"""What a crash or a failing disk leaves of a segment, byte by byte, on real files (rule D8).

A torn tail is cut to exactly the whole batches before it. Damage before something valid is an error that names the
file and the byte, and changes nothing.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from log_files import batch, kafka_indexes, split

from streamkit.errors import CorruptBatchError
from streamkit.log import ControlKind, control_batch, parse_header
from streamkit.log.partition_log import LogConfig, PartitionLog
from streamkit.seams import SystemFileSystem

INTERVAL_BYTES = 200
SEGMENT_BYTES = 1_000
BATCH_COUNT = 14
SEED = 20_260_101
CONFIG = LogConfig(segment_bytes=SEGMENT_BYTES, index_interval_bytes=INTERVAL_BYTES)


def opened(directory: Path, recover_from: int = 0) -> PartitionLog:
    return PartitionLog.open(SystemFileSystem(), str(directory), CONFIG, recover_from=recover_from)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Two segments; the last ends with a plain batch, a control batch and a plain batch."""
    directory = tmp_path / "good"
    log = opened(directory)
    for number in range(BATCH_COUNT - 2):
        log.append([batch(b"%d" % number * (10 + 7 * number), b"", timestamps_ms=[number % 5, number])])
    log.append([control_batch(ControlKind.COMMIT, producer_id=1, producer_epoch=0, timestamp_ms=99)])
    log.append([batch(b"last", b"of", b"all", timestamps_ms=[20, -1, 3])])
    log.sync(log.end_offset)
    log.close()
    assert len(list(directory.glob("*.log"))) == 2
    return directory


def active(directory: Path) -> Path:
    return max(directory.glob("*.log"))


def sealed(directory: Path) -> Path:
    return min(directory.glob("*.log"))


def copies(good: Path) -> Iterator[Path]:
    """Yield the directory anew again and again."""
    copy = good.with_name("copy")
    while True:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(good, copy)
        yield copy


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def flipped(data: bytes, position: int) -> bytes:
    """Return the bytes with one bit of one of them changed."""
    changed = bytearray(data)
    changed[position] ^= 0x10
    return bytes(changed)


def assert_holds(directory: Path, batches: list[bytes], recover_from: int = 0) -> None:
    """Assert that the last segment opens with exactly these batches, right indexes, and goes on after them."""
    segment = active(directory)
    base_offset = int(segment.stem)
    end_offset = parse_header(batches[-1]).last_offset + 1 if batches else base_offset
    log = opened(directory, recover_from)
    assert (log.end_offset, log.durable_offset) == (end_offset, end_offset)
    assert log.read(base_offset, bytes_max=1 << 20) == batches
    assert segment.read_bytes() == b"".join(batches)
    indexes = segment.with_suffix(".index").read_bytes(), segment.with_suffix(".timeindex").read_bytes()
    assert indexes == kafka_indexes(batches, base_offset, INTERVAL_BYTES, sealed=False)
    assert log.append([batch(b"next")]) == (end_offset, end_offset)
    log.sync(end_offset + 1)
    assert parse_header(log.read(end_offset, bytes_max=1)[0]).base_offset == end_offset
    log.close()


def assert_refused(directory: Path, segment: Path, position: int, recover_from: int = 0) -> None:
    """Assert that opening names file and byte of the damage, and changes no file."""
    before = contents(directory)
    with pytest.raises(CorruptBatchError) as caught:
        opened(directory, recover_from)
    assert (caught.value.file, caught.value.position) == (str(segment), position)
    assert f"{segment} byte {position}" in str(caught.value)
    assert contents(directory) == before


def starts(batches: list[bytes]) -> list[int]:
    return [sum(map(len, batches[:row])) for row in range(len(batches))]


@pytest.mark.slow
def test_a_segment_cut_at_every_byte_of_its_last_three_batches_keeps_its_whole_batches(good: Path) -> None:
    data = active(good).read_bytes()
    batches = split(data)
    ends = [*starts(batches), len(data)]
    for size_bytes, copy in zip(range(ends[-4], len(data) + 1), copies(good), strict=False):
        with active(copy).open("r+b") as file:
            file.truncate(size_bytes)
        assert_holds(copy, [found for found, end in zip(batches, ends[1:], strict=True) if end <= size_bytes])


@pytest.mark.slow
def test_an_only_segment_cut_at_every_byte_of_its_first_batch_is_empty(good: Path) -> None:
    first = split(sealed(good).read_bytes())[0]
    for size_bytes, copy in zip(range(len(first)), copies(good), strict=False):
        for path in copy.iterdir():
            path.unlink()
        (copy / sealed(good).name).write_bytes(first[:size_bytes])
        assert_holds(copy, [])


@pytest.mark.parametrize("tail", ["zeros", "garbage", "ones", "text", "start of a batch", "an older batch, broken"])
def test_what_is_no_batch_behind_the_last_one_is_cut(good: Path, tail: str) -> None:
    batches = split(active(good).read_bytes())
    drawn = random.Random(SEED)
    for size_bytes in (1, 11, 12, 60, 61, 62, 100, 5_000):
        copy = next(copies(good))
        rest = {
            "zeros": bytes(size_bytes),
            "garbage": drawn.randbytes(size_bytes),
            "ones": b"\xff" * size_bytes,
            "text": (b"0123456789 no batch at all " * 200)[:size_bytes],
            "start of a batch": (batches[-1] * 60)[: min(size_bytes, len(batches[-1]) - 1)],
            "an older batch, broken": batches[0][:-2] + b"\xff" * size_bytes,
        }[tail]
        with active(copy).open("ab") as file:
            file.write(rest)
        assert_holds(copy, batches)


def test_every_flipped_byte_before_the_last_batch_is_an_error_that_names_file_and_byte(good: Path) -> None:
    """One byte in each region of each batch; base offset and leader epoch lie outside of the CRC."""
    data = active(good).read_bytes()
    batches = split(data)
    for position, found in list(zip(starts(batches), batches, strict=True))[:-1]:
        for region in (8, 16, 17, 21, 23, 27, 35, 43, 51, 53, 57, 61, len(found) - 1):
            copy = next(copies(good))
            active(copy).write_bytes(flipped(data, position + region))
            assert_refused(copy, active(copy), position)


def test_damage_in_the_last_batch_is_a_torn_tail(good: Path) -> None:
    """Nothing valid follows, so nothing says that it was ever whole."""
    data = active(good).read_bytes()
    batches = split(data)
    for region in (8, 16, 17, 40, 61, len(batches[-1]) - 1):
        copy = next(copies(good))
        active(copy).write_bytes(flipped(data, len(data) - len(batches[-1]) + region))
        assert_holds(copy, batches[:-1])


def test_damage_in_the_last_batch_is_an_error_when_it_is_known_to_be_durable(good: Path) -> None:
    data = active(good).read_bytes()
    batches = split(data)
    position = len(data) - len(batches[-1])
    last = parse_header(batches[-1])
    for size_bytes in (position, position + 30, len(data) - 1):
        copy = next(copies(good))
        active(copy).write_bytes(data[:size_bytes])
        assert_refused(copy, active(copy), position, recover_from=last.last_offset + 1)
        assert_holds(copy, batches[:-1], recover_from=last.base_offset)


@pytest.mark.parametrize("region", [8, 16, 17, 40, 61])
def test_damage_anywhere_in_an_earlier_segment_is_an_error(good: Path, region: int) -> None:
    data = sealed(good).read_bytes()
    for position in starts(split(data)):
        copy = next(copies(good))
        sealed(copy).write_bytes(flipped(data, position + region))
        assert_refused(copy, sealed(copy), position)


def test_an_earlier_segment_that_is_cut_short_is_an_error(good: Path) -> None:
    data = sealed(good).read_bytes()
    last = starts(split(data))[-1]
    for size_bytes in range(last + 1, len(data)):
        copy = next(copies(good))
        sealed(copy).write_bytes(data[:size_bytes])
        assert_refused(copy, sealed(copy), last)


def test_damage_in_what_is_known_to_be_durable_is_found_by_who_reads_it(good: Path) -> None:
    """Such batches are not checked at open, for a large log opens fast; each read checks what it returns."""
    data = sealed(good).read_bytes()
    second = starts(split(data))[1]
    changed = bytearray(data)
    changed[second + 70] ^= 0x10
    copy = next(copies(good))
    sealed(copy).write_bytes(changed)
    log = opened(copy, recover_from=int(active(copy).stem))
    assert len(log.read(0, bytes_max=second)) == 1
    with pytest.raises(CorruptBatchError) as caught:
        log.read(2, bytes_max=1)
    assert (caught.value.file, caught.value.position) == (str(sealed(copy)), second)
    log.close()


def test_a_changed_base_offset_is_an_error_although_its_crc_is_right(good: Path) -> None:
    data = active(good).read_bytes()
    batches = split(data)
    for row, position in list(enumerate(starts(batches)))[1:]:
        copy = next(copies(good))
        changed = bytearray(data)
        changed[position : position + 8] = batches[row - 1][:8]
        active(copy).write_bytes(changed)
        assert_refused(copy, active(copy), position)


def test_a_segment_that_begins_below_the_end_of_the_one_before_is_an_error(good: Path) -> None:
    copy = next(copies(good))
    wrong = copy / f"{int(active(copy).stem) - 1:020d}.log"
    active(copy).rename(wrong)
    assert_refused(copy, wrong, 0)


def test_a_log_without_its_segments_is_an_error_when_records_were_durable(good: Path) -> None:
    copy = next(copies(good))
    for path in copy.iterdir():
        path.unlink()
    assert_refused(copy, copy, 0, recover_from=1)


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "a byte short", "zeros", "of a dead segment"])
def test_index_files_are_built_again_whatever_became_of_them(good: Path, damage: str) -> None:
    copy = next(copies(good))
    whole = contents(copy)
    for path in sorted(copy.glob("*index")):
        data = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "of a dead segment":
            shutil.copy(path, copy / f"{77:020d}{path.suffix}")
        else:
            path.write_bytes(
                {
                    "empty": b"",
                    "garbage": b"garbage!" * 3,
                    "a byte short": data[:-1],
                    "zeros": bytes(len(data)),
                }[damage]
            )
    opened(copy).close()
    assert contents(copy) == whole
