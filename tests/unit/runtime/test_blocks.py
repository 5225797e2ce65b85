"""Shuffle blocks: whole, cut and damaged."""

import itertools
import struct
import zlib
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from streamkit.records import RowError
from streamkit.runtime.blocks import (
    BLOCK_BYTES_MAX,
    BlockHeader,
    decode_frame_block,
    decode_row_block,
    encode_frame_block,
    encode_row_block,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(st.none() | INT64, st.binary(max_size=20), st.binary(max_size=20)), max_size=10)
FRAMES = st.lists(
    st.tuples(INT64, st.text(max_size=5), st.none() | st.floats(), st.binary(max_size=5)), max_size=10
).map(
    lambda rows: pl.DataFrame(
        rows, schema={"window_end": pl.Int64, "key": pl.String, "x": pl.Float64, "y": pl.Binary}, orient="row"
    )
)


def sealed(tag: bytes, payload: bytes) -> bytes:
    """Write a block as docs/formats/block.md says."""
    return tag + struct.pack(">I", zlib.crc32(payload)) + payload


@given(ROWS)
def test_rows_survive_their_block(rows: list[tuple[int | None, bytes, bytes]]) -> None:
    blocks = encode_row_block(rows)
    assert len(blocks) == (1 if rows else 0)
    assert [row for block in blocks for row in decode_row_block(block)] == rows


@given(FRAMES)
def test_a_frame_survives_its_block(frame: pl.DataFrame) -> None:
    blocks = encode_frame_block(frame)
    assert len(blocks) == (1 if frame.height else 0)
    for block in blocks:
        assert_frame_equal(decode_frame_block(block), frame, check_exact=True)


@given(st.lists(st.integers(0, 200_000), max_size=30))
def test_blocks_of_rows_are_cut_in_order_at_512_kib(sizes: list[int]) -> None:
    rows = [(None, b"%d" % index, bytes(size)) for index, size in enumerate(sizes)]
    blocks = encode_row_block(rows)
    assert [row for block in blocks for row in decode_row_block(block)] == rows
    assert all(len(block) <= BLOCK_BYTES_MAX for block in blocks)
    # No cut without need: a block and the first row of the next one would not fit, but for the bytes around rows.
    for block, following in itertools.pairwise(blocks):
        first = len(decode_row_block(following)[0][2])
        assert len(block) + first + 60 + 25 * len(decode_row_block(block)) > BLOCK_BYTES_MAX


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=30))
def test_blocks_of_a_frame_are_cut_in_order_at_512_kib(sizes: list[int]) -> None:
    frame = pl.DataFrame({"key": range(len(sizes)), "text": ["x" * size for size in sizes]})
    blocks = encode_frame_block(frame)
    assert_frame_equal(pl.concat(map(decode_frame_block, blocks)), frame)
    assert all(len(block) <= BLOCK_BYTES_MAX + 5 for block in blocks)


def test_a_row_larger_than_a_block_has_one_of_its_own() -> None:
    large = bytes(BLOCK_BYTES_MAX + 1)
    rows = [(1, b"small", b""), (2, b"large", large), (3, b"small", b""), (4, b"large", large)]
    assert [[row[0] for row in decode_row_block(block)] for block in encode_row_block(rows)] == [[1], [2], [3], [4]]
    frame = pl.DataFrame({"key": [1, 2, 3], "data": [b"", large, b""]})
    assert [decode_frame_block(block)["key"].to_list() for block in encode_frame_block(frame)] == [[1], [2], [3]]


def test_a_cut_frame_leaves_the_rows_of_other_blocks_behind() -> None:
    """Text of one block is not carried by another, though both are slices of one frame."""
    frame = pl.DataFrame({"text": ["x" * 1000] * 5000})
    assert sum(map(len, encode_frame_block(frame))) < 1.1 * 5000 * 1000


@pytest.mark.parametrize(
    ("block", "decode"),
    [
        (encode_row_block([(10, b"key", b"accumulator"), (None, b"other", b"x")])[0], decode_row_block),
        (encode_frame_block(pl.DataFrame({"key": ["a", "b"], "x$0": [1, 2]}))[0], decode_frame_block),
    ],
    ids=["rows", "frame"],
)
def test_a_block_with_any_byte_changed_or_cut_is_a_bad_row(block: bytes, decode: Any) -> None:
    for index in range(len(block)):
        changed = bytearray(block)
        changed[index] ^= 0x41
        for damaged in (bytes(changed), block[:index]):
            with pytest.raises(RowError) as caught:
                decode(damaged)
            assert (caught.value.index, caught.value.data) == (0, damaged)


@given(st.sampled_from([b"F", b"R", b"N", b""]), st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_row_error(tag: bytes, payload: bytes) -> None:
    """The checksum may fit by chance, or by malice."""
    for block in (tag + payload, sealed(tag, payload)):
        for decode in (decode_row_block, decode_frame_block):
            try:
                decode(block)
            except RowError as error:
                assert error.data == block


@pytest.mark.parametrize(
    ("decode", "block", "reason"),
    [
        (decode_row_block, sealed(b"F", msgspec.msgpack.encode([])), "no block of the kind 'R'"),
        (decode_frame_block, sealed(b"R", b""), "no block of the kind 'F'"),
        (decode_row_block, b"R\0\0", "no block of the kind 'R'"),
        (decode_row_block, b"R\0\0\0\1payload", "the checksum of the block does not fit"),
        (decode_row_block, sealed(b"R", msgspec.msgpack.encode([[1, b"key"]])), "cannot be read"),
        (decode_row_block, sealed(b"R", msgspec.msgpack.encode([[2**64 - 1, "text", b""]])), "cannot be read"),
        (decode_row_block, sealed(b"R", msgspec.msgpack.encode([]) + b"more"), "cannot be read"),
        (decode_frame_block, sealed(b"F", b"no stream"), "cannot be read"),
    ],
)
def test_a_block_that_is_none_says_what_is_wrong(decode: Any, block: bytes, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        decode(block)
    assert reason in caught.value.reason


def test_a_row_block_is_what_its_format_says() -> None:
    rows = [(10, b"key", b"acc"), (None, b"", b"")]
    payload = b"\x92" + b"\x93\x0a\xc4\x03key\xc4\x03acc" + b"\x93\xc0\xc4\x00\xc4\x00"
    assert encode_row_block(rows) == [sealed(b"R", payload)]


NAMES = st.text(max_size=5)


@given(
    st.builds(
        BlockHeader,
        node=NAMES,
        channel=NAMES,
        watermark_ms=st.none() | INT64,
        end_run=st.none() | st.integers(0, 2**32),
        kind=st.sampled_from(["frame", "rows", "none"]),
        reached=st.none() | st.tuples(INT64, NAMES, st.integers(0, 9), INT64),
        reached_run=st.none() | st.integers(0, 2**32),
    )
)
def test_what_a_block_belongs_to_survives_its_headers(header: BlockHeader) -> None:
    assert BlockHeader.from_headers([("unknown", None), *header.to_headers(), ("unknown", b"\xff")]) == header


GOOD = dict(BlockHeader(node="n", channel="0_0", watermark_ms=5, kind="rows").to_headers())


@pytest.mark.parametrize(
    "changes",
    [
        {"node": None},
        {"channel": None},
        {"kind": None},
        {"kind": b"other"},
        {"node": b"\xff"},
        {"watermark_ms": b"soon"},
        {"watermark_ms": b"\xff"},
        {"end_run": b""},
    ],
)
def test_headers_that_are_none_of_a_block_are_a_bad_row(changes: dict[str, bytes | None]) -> None:
    with pytest.raises(RowError, match="no headers of a block"):
        BlockHeader.from_headers(list((GOOD | changes).items()))
