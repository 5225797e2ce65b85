"""Shuffle blocks: one record of a repartition topic holds many rows for one shard.

A block is a tag, a checksum and a payload: a frame as an Arrow IPC stream, or a msgpack list of rows. What it belongs
to stands in the record's headers (`BlockHeader`), so that a reader can follow watermarks without opening payloads. A
damaged block is a `RowError`; no byte reaches a parser before the checksum fits. Format: docs/formats/block.md.

Not here: which rows go into a block (`groups`), when blocks are written (`operators.shuffle`).
"""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec
import polars as pl

from streamkit.records import NEVER_MS, Header, RowError

__all__ = [
    "BLOCK_BYTES_MAX",
    "FIRST_TURN",
    "BlockHeader",
    "BlockKind",
    "Turn",
    "WholeRows",
    "decode_frame_block",
    "decode_row_block",
    "decode_whole_block",
    "encode_frame_block",
    "encode_row_block",
    "encode_whole_block",
]

BlockKind: TypeAlias = Literal["frame", "rows", "whole", "none"]
Turn: TypeAlias = tuple[int, str, int, int]
"""Where a row stands in the order of the log: largest timestamp of its source partition so far (ms), topic, partition
and offset of its record."""
FIRST_TURN: Final[Turn] = (NEVER_MS, "", 0, 0)
BlockRow: TypeAlias = tuple[int | None, bytes, bytes]
"""Window end in ms (None without windows), encoded key, encoded accumulator."""

BLOCK_BYTES_MAX: Final = 512 * 1024
"""Where blocks are cut. A single row may be larger: it has a block of its own."""

_FRAME_TAG: Final = b"F"
_ROWS_TAG: Final = b"R"
_WHOLE_TAG: Final = b"W"
_KINDS: Final[dict[bytes, BlockKind]] = {b"frame": "frame", b"rows": "rows", b"whole": "whole", b"none": "none"}
_CHECKSUM: Final = struct.Struct(">I")
_HEAD_BYTES: Final = 1 + _CHECKSUM.size

_encode_rows = msgspec.msgpack.Encoder().encode
_decode_turn = msgspec.json.Decoder(Turn).decode
_decode_rows = msgspec.msgpack.Decoder(list[BlockRow]).decode


def encode_frame_block(frame: pl.DataFrame) -> list[bytes]:
    """Return a frame's rows in order as blocks of about 512 KiB at most; none for a frame without rows."""
    if not frame.height:
        return []
    buffer = io.BytesIO()
    # The oldest layout: views would carry the text of the rows that another block took.
    frame.write_ipc_stream(buffer, compat_level=pl.CompatLevel.oldest())
    payload = buffer.getvalue()
    if len(payload) <= BLOCK_BYTES_MAX or frame.height == 1:
        return [_sealed(_FRAME_TAG, payload)]
    rows_count = min(max(1, frame.height * BLOCK_BYTES_MAX // len(payload)), (frame.height + 1) // 2)
    return [block for part in frame.iter_slices(rows_count) for block in encode_frame_block(part)]


def decode_frame_block(block: bytes) -> pl.DataFrame:
    """Return the rows of a frame block.

    Raises:
        RowError: The block is damaged, or is no frame block.
    """
    payload = _unsealed(_FRAME_TAG, block)
    try:
        return pl.read_ipc_stream(payload)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OSError) as cause:
        raise RowError(0, f"the frame of the block cannot be read: {cause}", block) from cause


def encode_row_block(rows: Sequence[BlockRow]) -> list[bytes]:
    """Return rows in order as blocks of about 512 KiB at most; none without rows."""
    if not rows:
        return []
    payload = _encode_rows(rows)
    if len(payload) <= BLOCK_BYTES_MAX:
        return [_sealed(_ROWS_TAG, payload)]
    blocks: list[bytes] = []
    first, room_bytes = 0, BLOCK_BYTES_MAX
    for index, (_, key, accumulator) in enumerate(rows):
        # 20 bytes: window end, two lengths and the list around them, each at its longest.
        row_bytes = len(key) + len(accumulator) + 20
        if row_bytes > room_bytes and index > first:
            blocks.append(_sealed(_ROWS_TAG, _encode_rows(rows[first:index])))
            first, room_bytes = index, BLOCK_BYTES_MAX
        room_bytes -= row_bytes
    return [*blocks, _sealed(_ROWS_TAG, _encode_rows(rows[first:]))]


def decode_row_block(block: bytes) -> list[BlockRow]:
    """Return the rows of a row block.

    Raises:
        RowError: The block is damaged, or is no row block.
    """
    payload = _unsealed(_ROWS_TAG, block)
    try:
        return _decode_rows(payload)
    except (msgspec.MsgspecError, ValueError) as cause:
        raise RowError(0, f"the rows of the block cannot be read: {cause}", block) from cause


class WholeRows(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Rows as they are, of one origin: for nodes of which no partial results can be made.

    The integers are little-endian int64 columns: offset, timestamp, watermark before the record, largest timestamp up
    to it, and number of the row in its record.
    """

    topic: str
    partition: int
    published_ms: int
    integers: tuple[bytes, bytes, bytes, bytes, bytes]
    keys: list[bytes]
    values: list[bytes | None]
    headers: list[list[tuple[str, bytes | None]]] | None


_decode_whole = msgspec.msgpack.Decoder(list[WholeRows]).decode


def encode_whole_block(parts: Sequence[WholeRows]) -> bytes:
    """Return rows in order as one block, of whatever size."""
    return _sealed(_WHOLE_TAG, _encode_rows(parts))


def decode_whole_block(block: bytes) -> list[WholeRows]:
    """Return the rows of a block of whole rows.

    Raises:
        RowError: The block is damaged, or is no block of whole rows.
    """
    payload = _unsealed(_WHOLE_TAG, block)
    try:
        return _decode_whole(payload)
    except (msgspec.MsgspecError, ValueError) as cause:
        raise RowError(0, f"the rows of the block cannot be read: {cause}", block) from cause


def _sealed(tag: bytes, payload: bytes) -> bytes:
    return tag + _CHECKSUM.pack(zlib.crc32(payload)) + payload


def _unsealed(tag: bytes, block: bytes) -> bytes:
    if block[:1] != tag or len(block) < _HEAD_BYTES:
        raise RowError(0, f"no block of the kind {tag.decode()!r}", block)
    payload = block[_HEAD_BYTES:]
    if _CHECKSUM.unpack_from(block, 1)[0] != zlib.crc32(payload):
        raise RowError(0, "the checksum of the block does not fit", block)
    return payload


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """What a block belongs to, and what its channel promises after it.

    Attributes:
        node: The aggregation whose partial results it holds, or the shuffle whose rows; empty without rows.
        channel: Id of the task that wrote it.
        watermark_ms: The channel's watermark after the block's rows; None while it has none.
        end_run: The bounded run whose input ended with this block; None if it goes on.
        kind: How the payload is encoded; "none" is a block without rows.
        reached: No later row of the channel comes before this place in the order of the log; None if nobody asks.
        reached_run: The bounded run that `reached` is said of, as inputs that had ended in it were left aside; None if
            it holds in every run.
    """

    node: str
    channel: str
    watermark_ms: int | None
    end_run: int | None = None
    kind: BlockKind
    reached: Turn | None = None
    reached_run: int | None = None

    def to_headers(self) -> list[Header]:
        """Return the record's headers."""
        headers: list[Header] = [
            ("node", self.node.encode()),
            ("channel", self.channel.encode()),
            ("kind", self.kind.encode()),
        ]
        if self.watermark_ms is not None:
            headers.append(("watermark_ms", b"%d" % self.watermark_ms))
        if self.end_run is not None:
            headers.append(("end_run", b"%d" % self.end_run))
        if self.reached is not None:
            headers.append(("reached", msgspec.json.encode(self.reached)))
        if self.reached_run is not None:
            headers.append(("reached_run", b"%d" % self.reached_run))
        return headers

    @classmethod
    def from_headers(cls, headers: Sequence[Header]) -> "BlockHeader":
        """Read a record's headers; unknown ones are left aside.

        Raises:
            RowError: One is missing, or is not what it should be.
        """
        found = {name: data for name, data in headers if data is not None}
        try:
            return cls(
                node=found["node"].decode(),
                channel=found["channel"].decode(),
                watermark_ms=int(found["watermark_ms"]) if "watermark_ms" in found else None,
                end_run=int(found["end_run"]) if "end_run" in found else None,
                kind=_KINDS[found["kind"]],
                reached=_decode_turn(found["reached"]) if "reached" in found else None,
                reached_run=int(found["reached_run"]) if "reached_run" in found else None,
            )
        except (KeyError, ValueError, msgspec.MsgspecError) as cause:
            raise RowError(0, f"no headers of a block: {cause}", repr(list(headers)).encode()) from cause
