"""Appending batches of 1 MiB to the log, each made durable, against `dd` with the same writes and fsyncs.

Whole processes on both sides, in turn. What was appended is read back and checked before a time is printed. The ratio
is dd's median time over ours.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from measuring import CACHE, print_sides, timed  # the benchmarks are scripts beside each other, not a package

from streamkit.log import decode, encode
from streamkit.log.partition_log import LogConfig, PartitionLog
from streamkit.records import EncodedRecords
from streamkit.seams import SystemFileSystem

MIB = 2**20
TARGET = 0.7


def one_batch() -> bytearray:
    """Return a record batch of exactly 1 MiB: records of about 1 KiB, and a larger one that fills it up."""
    values = [b"%08d" % row + b"v" * 992 for row in range(1_000)]
    (unfilled,) = encode(_records([*values, b""]))
    # The last record's own length fields take some of the room.
    for size_bytes in range(MIB - len(unfilled), 0, -1):
        filled = encode(_records([*values, b"v" * size_bytes]))
        if len(filled) == 1 and len(filled[0]) == MIB:
            return filled[0]
    raise AssertionError("no batch of exactly 1 MiB")


def _records(values: list[bytes]) -> EncodedRecords:
    return EncodedRecords.to_append(timestamps_ms=[0] * len(values), keys=[None] * len(values), values=values)


def opened(directory: Path) -> PartitionLog:
    """Open the log with Kafka's own sizes."""
    return PartitionLog.open(
        SystemFileSystem(), str(directory), LogConfig(segment_bytes=2**30, index_interval_bytes=4096)
    )


def append(directory: Path, count: int) -> None:
    """Append `count` batches, each durable before the next."""
    batch, log = one_batch(), opened(directory)
    for _ in range(count):
        _, last_offset = log.append([batch])
        log.sync(last_offset + 1)
    log.close()


def check(directory: Path, count: int) -> None:
    """Assert that the log holds exactly what was appended."""
    wanted = decode([one_batch()])
    log = opened(directory)
    assert log.end_offset == count * len(wanted), f"{log.end_offset} records instead of {count * len(wanted)}"
    for number in range(count):
        found = decode(log.read(number * len(wanted), bytes_max=1))
        assert found.values == wanted.values, f"batch {number} differs"
    log.close()


def measure(count: int, runs: int) -> None:
    """Measure both sides in turn and print the medians."""
    CACHE.mkdir(parents=True, exist_ok=True)
    directory, file = CACHE / "append-log", CACHE / "append-dd"
    ours, theirs = [], []
    for _ in range(runs):
        file.unlink(missing_ok=True)
        os.sync()
        seconds, _ = timed(["dd", "if=/dev/zero", f"of={file}", f"bs={MIB}", f"count={count}", "oflag=dsync"])
        theirs.append(seconds)
        assert file.stat().st_size == count * MIB
        shutil.rmtree(directory, ignore_errors=True)
        os.sync()
        seconds, _ = timed([sys.executable, __file__, "--append", str(directory), "--count", str(count)])
        ours.append(seconds)
        check(directory, count)
    shutil.rmtree(directory)
    file.unlink()
    print_sides(
        f"log append: {count} batches of 1 MiB, an fsync each, {runs} runs each in turn",
        ours,
        theirs,
        against_name="dd oflag=dsync",
        target=TARGET,
        speed=lambda seconds: f"{count / seconds:6.0f} MiB/s",
    )


def main() -> None:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=2_048)
    parser.add_argument("--append", type=Path)
    asked = parser.parse_args()
    if asked.append:
        append(asked.append, asked.count)
    else:
        measure(asked.count, asked.runs)


if __name__ == "__main__":
    main()
