"""Compressed record batches: what other clients write is read, and what cannot be read back is not written."""

import gzip
import struct
import zlib
from typing import get_args

import cramjam
import pytest
from log_files import batch, compressed, labelled, resealed

from streamkit.errors import CorruptBatchError, RecordTooLargeError
from streamkit.log import Compression, check, compression, decode, encode, parse_header
from streamkit.records import EncodedRecords

CODECS: list[Compression] = [codec for codec in get_args(Compression) if codec != "none"]
VALUES = [b"the quick brown fox %d" % number for number in range(200)]


def records(*values: bytes | None) -> EncodedRecords:
    return EncodedRecords.to_append(timestamps_ms=range(len(values)), keys=[b"k"] * len(values), values=values)


@pytest.mark.parametrize("codec", CODECS)
def test_a_compressed_batch_says_how_and_is_smaller(codec: Compression) -> None:
    (plain,) = encode(records(*VALUES))
    (smaller,) = encode(records(*VALUES), compression=codec)
    check(smaller)
    assert len(smaller) < len(plain) / 2
    assert parse_header(smaller).compression == codec
    read, expected = decode([smaller]), decode([plain])
    assert (read.values, read.keys) == (expected.values, expected.keys)
    assert read.timestamps_ms.tolist() == expected.timestamps_ms.tolist()
    assert read.offsets.tolist() == expected.offsets.tolist()


@pytest.mark.parametrize("codec", CODECS)
def test_batches_are_cut_on_what_they_take_uncompressed(codec: Compression) -> None:
    plain = encode(records(*VALUES), batch_bytes_max=1_000)
    smaller = encode(records(*VALUES), batch_bytes_max=1_000, compression=codec)
    counts = [[parse_header(data).record_count for data in batches] for batches in (plain, smaller)]
    assert counts[0] == counts[1]
    assert len(plain) > 3
    assert sum(map(len, smaller)) < sum(map(len, plain))


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_would_not_shrink_stays_as_it_is(codec: Compression) -> None:
    one = records(b"\x93\x1f\xc2")
    assert encode(one, compression=codec) == encode(one)


@pytest.mark.parametrize("codec", CODECS)
def test_a_record_over_the_limit_is_judged_by_what_it_takes_compressed(codec: Compression) -> None:
    """It has a batch of its own; those around it are cut as ever."""
    large, noise = b"compressible" * 1_000, zlib.compress(b"".join(VALUES), 9)
    batches = encode(records(b"a", large, b"b"), batch_bytes_max=2_000, compression=codec)
    assert [parse_header(data).record_count for data in batches] == [1, 1, 1]
    assert max(map(len, batches)) <= 2_000
    assert [decode([data]).values for data in batches] == [[b"a"], [large], [b"b"]]
    with pytest.raises(RecordTooLargeError) as caught:
        encode(records(b"a", noise * 4), batch_bytes_max=len(noise), compression=codec)
    assert caught.value.index == 1
    assert caught.value.limit_bytes == len(noise) < caught.value.size_bytes


def test_a_batch_that_no_reader_would_inflate_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "SMALL_BYTES_MAX", 10_000)
    for size_bytes, expected in ((9_000, "zstd"), (11_000, "none")):
        (written,) = encode(records(b"\0" * size_bytes), compression="zstd")
        assert parse_header(written).compression == expected
        assert decode([written]).values == [b"\0" * size_bytes]
    with pytest.raises(RecordTooLargeError):
        encode(records(b"\0" * 11_000), batch_bytes_max=10_500, compression="zstd")


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_may_inflate_as_far_as_its_size_allows_and_no_further(
    codec: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(records(*VALUES), compression=codec)
    inflated_bytes = len(encode(records(*VALUES))[0]) - 61
    for small_bytes, ratio, bytes_max, allowed in (
        (inflated_bytes, 0, 10**6, True),
        (inflated_bytes - 1, 0, 10**6, False),
        (0, 200, 10**6, True),
        (0, 1, 10**6, False),
        (inflated_bytes, 200, inflated_bytes, True),
        (inflated_bytes, 200, inflated_bytes - 1, False),
    ):
        monkeypatch.setattr(compression, "SMALL_BYTES_MAX", small_bytes)
        monkeypatch.setattr(compression, "INFLATED_RATIO_MAX", ratio)
        monkeypatch.setattr(compression, "INFLATED_BYTES_MAX", bytes_max)
        if allowed:
            assert decode(data).values == VALUES
        else:
            with pytest.raises(CorruptBatchError, match=f"does not inflate.*{codec}"):
                decode(data)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_no_whole_stream_is_refused(codec: Compression) -> None:
    (whole,) = encode(records(*VALUES), compression=codec)
    for cut in range(61, len(whole)):
        with pytest.raises(CorruptBatchError):
            decode([resealed(whole[:cut])])


def test_what_is_no_single_whole_gzip_stream_is_refused() -> None:
    zipped = compressed(batch(b"a" * 100))
    flipped = zipped[:-8] + bytes([zipped[-8] ^ 0xFF]) + zipped[-7:]
    for data, reason in (
        (zipped[:-1], "no whole gzip stream"),
        (zipped + b"x", "bytes behind the gzip stream"),
        (zipped + gzip.compress(b""), "bytes behind the gzip stream"),
        (zipped + bytes(200_000), "bytes behind the gzip stream"),
        (zipped[:61] + zlib.compress(b"x"), "does not inflate"),
        (flipped, "does not inflate"),
    ):
        with pytest.raises(CorruptBatchError, match=reason):
            decode([resealed(data)])


@pytest.mark.parametrize(("number", "codec"), [(2, "snappy"), (3, "lz4"), (4, "zstd")])
def test_a_stream_of_another_codec_is_refused(number: int, codec: str) -> None:
    with pytest.raises(CorruptBatchError, match=f"does not inflate.*{codec}"):
        decode([compressed(batch(b"a"), number)])


def test_raw_snappy_is_read() -> None:
    plain = batch(*VALUES)
    assert decode([labelled(plain, bytes(cramjam.snappy.compress_raw(bytes(plain[61:]))), 2)]).values == VALUES


@pytest.mark.parametrize("block_bytes", [100, 32 * 1024, 10**6])
def test_framed_snappy_is_read_whatever_the_size_of_its_blocks(block_bytes: int) -> None:
    plain = batch(*VALUES)
    stream = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    for start in range(61, len(plain), block_bytes):
        block = bytes(cramjam.snappy.compress_raw(bytes(plain[start : start + block_bytes])))
        stream += struct.pack(">i", len(block)) + block
    assert decode([labelled(plain, stream, 2)]).values == VALUES


@pytest.mark.parametrize(
    "tail",
    [b"\0", struct.pack(">i", -1), struct.pack(">i", 2**31 - 1), struct.pack(">i", -(2**31)), b"\0\0\0\x05\x01"],
)
def test_a_snappy_block_that_is_not_there_is_refused(tail: bytes) -> None:
    plain = batch(b"a")
    block = bytes(cramjam.snappy.compress_raw(bytes(plain[61:])))
    stream = b"\x82SNAPPY\0" + struct.pack(">iii", 1, 1, len(block)) + block
    assert decode([labelled(plain, stream, 2)]).values == [b"a"]
    with pytest.raises(CorruptBatchError, match="no whole snappy block"):
        decode([labelled(plain, stream + tail, 2)])


def test_streams_of_other_writers_settings_are_read() -> None:
    """Linked lz4 blocks, content checksums, other levels, and zstd frames that do not say their size."""
    plain = batch(*VALUES)
    body = bytes(plain[61:])
    for level, checksum, linked in ((0, True, False), (9, True, True), (4, False, True)):
        frame = cramjam.lz4.Compressor(level=level, content_checksum=checksum, block_linked=linked)
        frame.compress(body)
        assert decode([labelled(plain, bytes(frame.finish()), 3)]).values == VALUES
    for level in (1, 19):
        stream = cramjam.zstd.Compressor(level=level)
        stream.compress(body)
        assert decode([labelled(plain, bytes(stream.finish()), 4)]).values == VALUES


def test_a_gzip_stream_of_many_pieces_is_read() -> None:
    """It is inflated piece by piece: noise fills the pieces of its input, zeros those of its output."""
    noise = b"".join(zlib.crc32(number.to_bytes(4, "big")).to_bytes(4, "big") for number in range(60_000))
    values = [noise, bytes(500_000), noise, bytes(64 * 1024)]
    plain = batch(*values)
    assert decode([compressed(plain)]).values == values
