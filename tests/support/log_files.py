"""What the tests of the log share: record batches, the files of a partition, and Kafka's indexes built naively."""

import gzip
import struct
from collections.abc import Iterable, Sequence

import google_crc32c

from streamkit.log import NO_PRODUCER, BatchHeader, ProducerStamp, encode, parse_header, place
from streamkit.log.partition_log import LogConfig, PartitionLog
from streamkit.records import EncodedRecords
from streamkit.seams import FileSystem

DIRECTORY = "log/a-0"


def batch(
    *values: bytes | None,
    timestamps_ms: Sequence[int] | None = None,
    base_offset: int = 0,
    stamp: ProducerStamp = NO_PRODUCER,
) -> bytearray:
    """Return one record batch of records without keys."""
    stamps = [0] * len(values) if timestamps_ms is None else timestamps_ms
    records = EncodedRecords.to_append(timestamps_ms=stamps, keys=[None] * len(values), values=values)
    (encoded,) = encode(records, stamp=stamp)
    place(encoded, base_offset)
    return encoded


def resealed(data: bytes | bytearray) -> bytes:
    """Return the batch with the length and CRC that its bytes should have."""
    sealed = bytearray(data)
    struct.pack_into(">i", sealed, 8, len(sealed) - 12)
    struct.pack_into(">I", sealed, 17, google_crc32c.value(bytes(sealed[21:])))
    return bytes(sealed)


def compressed(data: bytes | bytearray, attribute: int = 1) -> bytes:
    """Return the batch with its records compressed by gzip, labelled as `attribute` says (1 is gzip)."""
    return labelled(data, gzip.compress(data[61:], mtime=0), attribute)


def labelled(data: bytes | bytearray, stream: bytes, attribute: int) -> bytes:
    """Return the batch with `stream` for its records and the codec of that number."""
    changed = bytearray(data[:61]) + stream
    changed[22] |= attribute
    return resealed(changed)


def contents(fs: FileSystem, path: str) -> bytes:
    """Return all bytes of a file."""
    file = fs.open(path)
    try:
        return file.read_at(0, file.size_bytes())
    finally:
        file.close()


def overwrite(fs: FileSystem, path: str, data: bytes) -> None:
    """Make `data` the whole, durable content of a file."""
    file = fs.open(path, create=True)
    file.truncate(0)
    file.write_at(0, data)
    file.sync()
    file.close()


def files(fs: FileSystem, directory: str = DIRECTORY) -> dict[str, bytes]:
    """Return name and content of every file of a directory."""
    return {name: contents(fs, f"{directory}/{name}") for name in fs.list(directory)}


def opened(
    fs: FileSystem, *, segment_bytes: int = 1 << 20, index_interval_bytes: int = 4096, recover_from: int = 0
) -> PartitionLog:
    """Open the log of `DIRECTORY`."""
    config = LogConfig(segment_bytes=segment_bytes, index_interval_bytes=index_interval_bytes)
    return PartitionLog.open(fs, DIRECTORY, config, recover_from=recover_from)


def split(data: bytes) -> list[bytes]:
    """Return the record batches of a segment, by their length fields alone."""
    batches, position = [], 0
    while position < len(data):
        size_bytes = 12 + struct.unpack_from(">i", data, position + 8)[0]
        batches.append(data[position : position + size_bytes])
        position += size_bytes
    return batches


def kafka_indexes(
    batches: Iterable[bytes | bytearray], base_offset: int, interval_bytes: int, *, sealed: bool
) -> tuple[bytes, bytes]:
    """Return the offset and time index that Kafka would write for the batches of a segment, the naive way."""
    offsets: list[tuple[int, int]] = []
    times: list[tuple[int, int]] = [(-1, base_offset)]
    largest, position, since_entry = (-1, base_offset), 0, 0
    for data in batches:
        header: BatchHeader = parse_header(data)
        if not header.control and header.max_timestamp_ms > largest[0]:
            largest = (header.max_timestamp_ms, header.last_offset)
        if since_entry > interval_bytes:
            offsets.append((header.last_offset, position))
            if largest[0] > times[-1][0]:
                times.append(largest)
            since_entry = 0
        since_entry += len(data)
        position += len(data)
    if sealed and largest[0] > times[-1][0]:
        times.append(largest)
    return (
        b"".join(struct.pack(">ii", offset - base_offset, position) for offset, position in offsets),
        b"".join(struct.pack(">qi", timestamp_ms, offset - base_offset) for timestamp_ms, offset in times[1:]),
    )


def assert_indexes_are_right(fs: FileSystem, interval_bytes: int) -> None:
    """Assert that every segment of `DIRECTORY` has exactly the index files of its batches; the last is not sealed."""
    stems = [name.removesuffix(".log") for name in fs.list(DIRECTORY) if name.endswith(".log")]
    for stem in stems:
        found = tuple(contents(fs, f"{DIRECTORY}/{stem}.{suffix}") for suffix in ("index", "timeindex"))
        batches = split(contents(fs, f"{DIRECTORY}/{stem}.log"))
        assert found == kafka_indexes(batches, int(stem), interval_bytes, sealed=stem != stems[-1]), stem
