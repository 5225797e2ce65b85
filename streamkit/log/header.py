"""The 61 bytes before the records of a record batch v2: read, placed in the log, checked.

A batch's base offset and leader epoch lie outside its CRC, so the log gives them out in place and stores the rest
byte for byte as it came.

Not here: the records themselves (`codec`).
"""

import struct
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import google_crc32c

from streamkit.errors import ConfigError, CorruptBatchError

__all__ = [
    "BATCH_BYTES_MAX",
    "COMPRESSIONS",
    "HEADER_BYTES",
    "NO_TIMESTAMP_MS",
    "BatchHeader",
    "Compression",
    "add_attributes",
    "check",
    "parse_header",
    "place",
    "set_compression",
    "set_timestamps",
]

Compression: TypeAlias = Literal["none", "gzip", "snappy", "lz4", "zstd"]

COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "gzip", "snappy", "lz4", "zstd")
"""The spellings of the attribute's lowest three bits, in Kafka's order."""

HEADER_BYTES: Final = 61
"""Bytes before the first record."""

BATCH_BYTES_MAX: Final = 1_048_588
"""Kafka's default for `max.message.bytes`: 1 MiB of records and the 12 bytes before them."""

NO_TIMESTAMP_MS: Final = -1
"""What Kafka writes where a record has no timestamp."""

ATTRIBUTES_POSITION: Final = 21
"""Where the CRC begins to count."""

CODEC_MASK: Final = 0x07
TRANSACTIONAL_MASK: Final = 0x10
CONTROL_MASK: Final = 0x20

_FIELDS = struct.Struct(">qiibIhiqqqhii")
_OFFSET = struct.Struct(">q")
_LENGTH = struct.Struct(">i")
_LENGTH_POSITION = 8
_LEADER_EPOCH = struct.Struct(">i")
_CRC = struct.Struct(">I")
_CRC_POSITION = 17
_TIMESTAMPS = struct.Struct(">qq")
_TIMESTAMPS_POSITION = 27
_PREFIX_BYTES = 12  # base offset and length, which the length does not count
_MAGIC = 2
_OFFSET_MAX = 2**63 - 1

if google_crc32c.implementation != "c":
    primary = "google_crc32c runs without its C library, about a thousand times slower"
    raise ConfigError(primary, hint="install a wheel of google-crc32c for this Python")


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """What the header of one record batch says; `size_bytes` counts the whole batch."""

    base_offset: int
    last_offset: int
    size_bytes: int
    leader_epoch: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    record_count: int
    crc: int
    transactional: bool
    control: bool
    compression: Compression


def parse_header(data: bytes | bytearray | memoryview, position: int = 0) -> BatchHeader:
    """Read the header of the record batch that begins at `position`.

    Only the header bytes are needed and looked at: the CRC is not checked.

    Raises:
        CorruptBatchError: The bytes cannot be the header of a batch v2: cut short, another magic, an impossible
            length, offset, count or compression. Carries `position`.
    """
    if len(data) - position < HEADER_BYTES:
        primary = f"record batch is cut short: {len(data) - position} of {HEADER_BYTES} header bytes"
        raise CorruptBatchError(primary, position=position)
    (
        base_offset,
        length_bytes,
        leader_epoch,
        magic,
        crc,
        attributes,
        last_offset_delta,
        first_timestamp_ms,
        max_timestamp_ms,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count,
    ) = _FIELDS.unpack_from(data, position)
    if magic != _MAGIC:
        primary = f"record batch has magic {magic}, not {_MAGIC}"
        raise CorruptBatchError(primary, position=position)
    if length_bytes < HEADER_BYTES - _PREFIX_BYTES or record_count < 0:
        primary = f"record batch claims {length_bytes} bytes and {record_count} records"
        raise CorruptBatchError(primary, position=position)
    if base_offset < 0 or last_offset_delta < 0 or base_offset + last_offset_delta > _OFFSET_MAX:
        primary = f"record batch claims offset {base_offset} and {last_offset_delta} more"
        raise CorruptBatchError(primary, position=position)
    codec = attributes & CODEC_MASK
    if codec >= len(COMPRESSIONS):
        primary = f"record batch claims compression {codec}, which does not exist"
        raise CorruptBatchError(primary, position=position)
    return BatchHeader(
        base_offset,
        base_offset + last_offset_delta,
        length_bytes + _PREFIX_BYTES,
        leader_epoch,
        producer_id,
        producer_epoch,
        base_sequence,
        first_timestamp_ms,
        max_timestamp_ms,
        record_count,
        crc,
        bool(attributes & TRANSACTIONAL_MASK),
        bool(attributes & CONTROL_MASK),
        COMPRESSIONS[codec],
    )


def place(batch: bytearray, base_offset: int, leader_epoch: int = 0) -> None:
    """Give the batch its place in the log; its CRC stays valid."""
    _OFFSET.pack_into(batch, 0, base_offset)
    _LEADER_EPOCH.pack_into(batch, _PREFIX_BYTES, leader_epoch)


def check(batch: bytes | bytearray | memoryview) -> None:
    """Check that `batch` is one whole record batch whose CRC-32C is right.

    Raises:
        CorruptBatchError: The length field is not the batch's length, or the CRC differs.

    Cost: one copy and one pass of the CRC instruction, about 0.1 ms per MiB.
    """
    header = parse_header(batch)
    if header.size_bytes != len(batch):
        primary = f"record batch claims {header.size_bytes} bytes and has {len(batch)}"
        raise CorruptBatchError(primary, position=0)
    crc = _crc(batch)
    if crc != header.crc:
        primary = f"record batch has CRC {crc:#010x}, not {header.crc:#010x} as its header says"
        raise CorruptBatchError(primary, position=0)


def add_attributes(batch: bytearray, mask: int) -> None:
    """Set attribute bits of a batch about to be appended, and its CRC anew."""
    batch[ATTRIBUTES_POSITION + 1] |= mask
    _CRC.pack_into(batch, _CRC_POSITION, _crc(batch))


def set_compression(batch: bytearray, compression: Compression) -> None:
    """Say of a batch whose records were compressed how, and set its length and its CRC anew."""
    _LENGTH.pack_into(batch, _LENGTH_POSITION, len(batch) - _PREFIX_BYTES)
    add_attributes(batch, COMPRESSIONS.index(compression))


def set_timestamps(batch: bytearray, first_timestamp_ms: int, max_timestamp_ms: int) -> None:
    """Set the header's timestamps of a batch about to be appended, and its CRC anew."""
    _TIMESTAMPS.pack_into(batch, _TIMESTAMPS_POSITION, first_timestamp_ms, max_timestamp_ms)
    _CRC.pack_into(batch, _CRC_POSITION, _crc(batch))


def _crc(batch: bytes | bytearray | memoryview) -> int:
    # The C library takes nothing but bytes.
    crc: int = google_crc32c.value(bytes(memoryview(batch)[ATTRIBUTES_POSITION:]))
    return crc
