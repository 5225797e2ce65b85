"""The codecs of record batches: gzip, snappy, lz4 and zstd, as Kafka's clients frame them.

Whatever a batch's records claim, they inflate into memory of a bounded size: `INFLATED_BYTES_MAX`, and for more than
`SMALL_BYTES_MAX` at most `INFLATED_RATIO_MAX` times what they take compressed. No codec is asked to allocate what its
own header says, and a batch that could not be read back is not written: it stays as it is.

Not here: the records (`codec`).
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

import cramjam
import numpy as np

from streamkit.errors import CorruptBatchError
from streamkit.log.header import (
    ATTRIBUTES_POSITION,
    CODEC_MASK,
    HEADER_BYTES,
    BatchHeader,
    Compression,
    set_compression,
)

__all__ = ["INFLATED_BYTES_MAX", "INFLATED_RATIO_MAX", "SMALL_BYTES_MAX", "compressed", "inflated"]

INFLATED_BYTES_MAX: Final = 64 * 2**20
"""The most that the records of one compressed batch may inflate to."""

INFLATED_RATIO_MAX: Final = 200
"""How many times its compressed size a batch may inflate to, unless it is small."""

SMALL_BYTES_MAX: Final = 4 * 2**20
"""What any batch may inflate to: four times Kafka's default for a batch, which equal records compress without limit."""

_GZIP_WINDOW_BITS: Final = 31
_GZIP_LEVEL: Final = 6
_LZ4_LEVEL: Final = 1
_ZSTD_LEVEL: Final = 3
_PIECE_BYTES: Final = 64 * 1024

# snappy-java's stream: a magic and two versions, then blocks, each with its length before it.
_SNAPPY_MAGIC: Final = b"\x82SNAPPY\x00"
_SNAPPY_HEADER: Final = _SNAPPY_MAGIC + struct.pack(">ii", 1, 1)
_SNAPPY_BLOCK_BYTES: Final = 32 * 1024
_LENGTH: Final = struct.Struct(">i")


def compressed(batch: bytearray, compression: Compression) -> bytearray:
    """Return a batch that was not compressed as one that is; a new one, or `batch` itself where it stays as it is.

    It stays where the codec makes it no smaller, or so small that no reader would inflate it again.

    Cost: for 1 MiB of JSON about 0.8 ms with lz4 and snappy, 1.5 with zstd, 11 with gzip.
    """
    if compression == "none":
        return batch
    plain_bytes = len(batch) - HEADER_BYTES
    records = _COMPRESS[compression](memoryview(batch)[HEADER_BYTES:])
    if len(records) >= plain_bytes or plain_bytes > _inflated_bytes_max(len(records)):
        return batch
    smaller = batch[:HEADER_BYTES] + records
    set_compression(smaller, compression)
    return smaller


def inflated(batch: bytes | bytearray, header: BatchHeader, padding: bytes) -> bytes:
    """Return the batch as it would be without compression, `padding` behind it; its CRC is that of `batch`.

    Raises:
        CorruptBatchError: Its records are no whole stream of the codec, or inflate to more than is allowed.

    Cost: for 1 MiB of JSON about 0.3 ms with lz4, snappy and zstd, 0.9 with gzip. At most twice the inflated size in
    memory, and never more than twice `INFLATED_BYTES_MAX`.
    """
    stream = memoryview(batch)[HEADER_BYTES:]
    limit_bytes = _inflated_bytes_max(len(stream))
    inflate = _INFLATE[header.compression]
    # Memory that is touched for the first time costs more than inflating into it, so a little is tried first.
    for room_bytes in sorted({min(limit_bytes, SMALL_BYTES_MAX), limit_bytes}):
        try:
            records = inflate(stream, room_bytes)
        except (cramjam.DecompressionError, zlib.error) as error:
            failure = error
        else:
            plain = bytearray(batch[:HEADER_BYTES])
            plain[ATTRIBUTES_POSITION + 1] &= ~CODEC_MASK
            return b"".join((plain, records, padding))
    primary = (
        f"record batch at offset {header.base_offset} does not inflate: {failure} "
        f"({len(stream)} bytes of {header.compression}, {limit_bytes} at most inflated)"
    )
    raise CorruptBatchError(primary) from failure


def _inflated_bytes_max(compressed_bytes: int) -> int:
    return min(INFLATED_BYTES_MAX, max(SMALL_BYTES_MAX, INFLATED_RATIO_MAX * compressed_bytes))


def _to_gzip(records: memoryview) -> bytes:
    # Half of what cramjam takes at the same level.
    deflater = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    return deflater.compress(records) + deflater.flush()


def _to_snappy(records: memoryview) -> bytes:
    stream = [_SNAPPY_HEADER]
    for start in range(0, len(records), _SNAPPY_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(records[start : start + _SNAPPY_BLOCK_BYTES]))
        stream += (_LENGTH.pack(len(block)), block)
    return b"".join(stream)


def _to_lz4(records: memoryview) -> bytes:
    # Kafka's reader knows no blocks that refer to the one before.
    frame = cramjam.lz4.Compressor(level=_LZ4_LEVEL, content_checksum=False, block_linked=False)
    frame.compress(bytes(records))
    return bytes(frame.finish())


def _to_zstd(records: memoryview) -> bytes:
    return bytes(cramjam.zstd.compress(records, level=_ZSTD_LEVEL))


def _from_gzip(stream: memoryview, room_bytes: int) -> memoryview:
    # zlib's own module, piece by piece: cramjam before 2.14 inflates the whole stream before it looks at the room.
    room, end = _room(room_bytes), 0
    inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
    tail, position = b"", 0
    while not inflater.eof:
        if not tail:
            tail = bytes(stream[position : position + _PIECE_BYTES])
            position = min(position + _PIECE_BYTES, len(stream))
        some = inflater.decompress(tail, _PIECE_BYTES)
        tail = inflater.unconsumed_tail
        if not (some or tail or inflater.eof) and position == len(stream):
            raise _broken("no whole gzip stream")
        if end + len(some) > room_bytes:
            raise _broken(f"more than {room_bytes} bytes")
        room[end : end + len(some)] = some
        end += len(some)
    if inflater.unused_data or position < len(stream):
        raise _broken("bytes behind the gzip stream")
    return room[:end]


def _from_snappy(stream: memoryview, room_bytes: int) -> memoryview:
    room = _room(room_bytes)
    if bytes(stream[: len(_SNAPPY_MAGIC)]) != _SNAPPY_MAGIC:
        return room[: _unsnap(stream, room)]
    position, end = len(_SNAPPY_HEADER), 0
    if position > len(stream):
        raise _broken("no whole snappy header")
    while position < len(stream):
        start = position + _LENGTH.size
        length_bytes = _LENGTH.unpack_from(stream, position)[0] if start <= len(stream) else -1
        position = start + length_bytes
        if length_bytes < 0 or position > len(stream):
            raise _broken("no whole snappy block")
        end += _unsnap(stream[start:position], room[end:])
    return room[:end]


def _unsnap(block: memoryview, room: memoryview) -> int:
    if cramjam.snappy.decompress_raw_len(block) > len(room):
        raise _broken(f"snappy claims more than {len(room)} bytes")
    return cramjam.snappy.decompress_raw_into(block, room)


def _from_lz4(stream: memoryview, room_bytes: int) -> memoryview:
    room = _room(room_bytes)
    return room[: cramjam.lz4.decompress_into(stream, room)]


def _from_zstd(stream: memoryview, room_bytes: int) -> memoryview:
    room = _room(room_bytes)
    return room[: cramjam.zstd.decompress_into(stream, room)]


def _room(size_bytes: int) -> memoryview:
    # Not a bytearray, which is written to the end before it is used.
    return np.empty(size_bytes, dtype=np.uint8).data


def _broken(what: str) -> Exception:
    error: Exception = cramjam.DecompressionError(what)
    return error


_COMPRESS: Final[Mapping[Compression, Callable[[memoryview], bytes]]] = {
    "gzip": _to_gzip,
    "snappy": _to_snappy,
    "lz4": _to_lz4,
    "zstd": _to_zstd,
}

_INFLATE: Final[Mapping[Compression, Callable[[memoryview, int], memoryview]]] = {
    "gzip": _from_gzip,
    "snappy": _from_snappy,
    "lz4": _from_lz4,
    "zstd": _from_zstd,
}
