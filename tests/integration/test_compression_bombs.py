"""A megabyte that inflates to a gigabyte is refused, and costs no more memory than twice the limit."""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cramjam
import pytest
from log_files import batch, labelled

from streamkit.log.compression import INFLATED_BYTES_MAX

pytestmark = [pytest.mark.process, pytest.mark.slow]

MEGABYTE = 2**20
SLACK_BYTES = 4 * MEGABYTE

# In a process of its own, because the peak of a process never goes down.
MEASURE = """
import json, re, sys
from streamkit.errors import CorruptBatchError
from streamkit.log import decode

def peak_bytes():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

data = open(sys.argv[1], "rb").read()
before_bytes = peak_bytes()
try:
    decode([data])
except CorruptBatchError as error:
    print(json.dumps({"peak_bytes": peak_bytes() - before_bytes, "error": error.primary}))
"""


def gzip_bomb(size_bytes: int) -> bytes:
    deflater = zlib.compressobj(1, zlib.DEFLATED, 31)
    zeros = bytes(MEGABYTE)
    return b"".join(deflater.compress(zeros) for _ in range(size_bytes // MEGABYTE)) + deflater.flush()


def zstd_bomb(size_bytes: int) -> bytes:
    stream = cramjam.zstd.Compressor(level=1)
    for _ in range(size_bytes // MEGABYTE):
        stream.compress(bytes(MEGABYTE))
    return bytes(stream.finish())


def lz4_bomb(size_bytes: int) -> bytes:
    frame = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)
    for _ in range(size_bytes // MEGABYTE):
        frame.compress(bytes(MEGABYTE))
    return bytes(frame.finish())


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def raw_snappy(size_bytes: int, claimed_bytes: int) -> bytes:
    """Return one literal zero, and copies of 64 bytes from one byte before."""
    return varint(claimed_bytes) + b"\0\0" + b"\xfe\x01\x00" * (size_bytes // 64)


def framed_snappy(size_bytes: int) -> bytes:
    block = bytes(cramjam.snappy.compress_raw(bytes(MEGABYTE)))
    return (
        b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1) + (struct.pack(">i", len(block)) + block) * (size_bytes // MEGABYTE)
    )


def claim_only_zstd(window_log: int) -> bytes:
    """Return a frame that claims a window and a terabyte, and holds one byte a thousand times."""
    content = struct.pack("<Q", 2**40)
    run = struct.pack("<I", (1000 << 3) | (1 << 1) | 1)[:3] + b"a"
    return b"\x28\xb5\x2f\xfd" + bytes([0b11_000000, (window_log - 10) << 3]) + content + run


def windowed_zstd(size_bytes: int) -> bytes:
    """Return a frame that is decoded through a window of 128 MiB, behind ballast that raises what it may inflate to."""
    ballast = b"\x50\x2a\x4d\x18" + struct.pack("<I", 400_000) + bytes(400_000)
    run = struct.pack("<I", (2**17 << 3) | (1 << 1))[:3] + b"a"
    return ballast + b"\x28\xb5\x2f\xfd" + bytes([0, (27 - 10) << 3]) + run * (size_bytes // 2**17)


BOMBS: dict[str, tuple[int, Callable[[], bytes], int]] = {
    "gzip": (1, lambda: gzip_bomb(1024 * MEGABYTE), 2 * INFLATED_BYTES_MAX),
    "raw snappy": (2, lambda: raw_snappy(1024 * MEGABYTE, 1024 * MEGABYTE), 0),
    "raw snappy that claims less": (2, lambda: raw_snappy(1024 * MEGABYTE, 60 * MEGABYTE), 2 * INFLATED_BYTES_MAX),
    "framed snappy": (2, lambda: framed_snappy(1024 * MEGABYTE), 2 * INFLATED_BYTES_MAX),
    "snappy that claims what is not there": (2, lambda: varint(2**32 - 1) + b"\0\0", 0),
    "snappy that claims the limit": (2, lambda: varint(4 * MEGABYTE) + b"\0\0", 0),
    "lz4": (3, lambda: lz4_bomb(1024 * MEGABYTE), 2 * INFLATED_BYTES_MAX),
    "zstd": (4, lambda: zstd_bomb(1024 * MEGABYTE), 2 * INFLATED_BYTES_MAX),
    "many zstd frames": (4, lambda: bytes(cramjam.zstd.compress(bytes(MEGABYTE))) * 20_000, 2 * INFLATED_BYTES_MAX),
    "zstd through a window of 128 MiB": (4, lambda: windowed_zstd(1024 * MEGABYTE), 2 * INFLATED_BYTES_MAX),
    "zstd that claims a window of 128 MiB": (4, lambda: claim_only_zstd(27), 0),
    "zstd that claims a window of 2 GiB": (4, lambda: claim_only_zstd(31), 0),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_bounded_memory(name: str, tmp_path: Path) -> None:
    attribute, make, bound_bytes = BOMBS[name]
    bomb = tmp_path / "bomb"
    bomb.write_bytes(labelled(batch(b"a"), make(), attribute))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(bomb)], capture_output=True, text=True, check=True, timeout=300
    )
    found = json.loads(done.stdout)
    print(name, bomb.stat().st_size, found)
    assert "does not inflate" in found["error"]
    assert found["peak_bytes"] <= bound_bytes + SLACK_BYTES + 2 * bomb.stat().st_size


MEASURE_PARTS = """
import json, re
from streamkit.log import decode_parts, encode, place
from streamkit.records import EncodedRecords

def peak_bytes():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

value = bytes(4 * 2**20 - 1000)
one = EncodedRecords.to_append(timestamps_ms=[0], keys=[None], values=[value])
(batch,) = encode(one, batch_bytes_max=2**20, compression="zstd")
batches = [bytearray(batch) for _ in range(500)]
for offset, batch in enumerate(batches):
    place(batch, offset)
before_bytes = peak_bytes()
count = 0
for part in decode_parts(batches):
    count += len(part.keys)
print(json.dumps({"peak_bytes": peak_bytes() - before_bytes, "record_count": count}))
"""


def test_a_fetch_full_of_small_bombs_is_read_within_bounded_memory() -> None:
    """Two gigabytes of it, each batch of which is small enough to inflate as far as it likes."""
    done = subprocess.run([sys.executable, "-c", MEASURE_PARTS], capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    print(found)
    assert found["record_count"] == 500
    assert found["peak_bytes"] <= 5 * INFLATED_BYTES_MAX
