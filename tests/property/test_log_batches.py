"""Record batches: what goes in comes out, and no bytes whatever raise anything but `CorruptBatchError`."""

import contextlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from log_files import compressed, labelled, resealed

from streamkit.errors import CorruptBatchError
from streamkit.log import (
    NO_PRODUCER,
    Compression,
    ProducerStamp,
    check,
    control_kind,
    decode,
    encode,
    parse_header,
    place,
)
from streamkit.log.header import COMPRESSIONS
from streamkit.records import EncodedRecords, Header

INT64 = st.integers(-(2**63), 2**63 - 1)
TIMESTAMPS_MS = st.one_of(st.sampled_from([-1, 0, -2, 1_700_000_000_000, -(2**63), 2**63 - 1]), INT64)
BYTES = st.one_of(st.none(), st.binary(max_size=5), st.binary(min_size=60, max_size=200))
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.one_of(st.none(), st.binary(max_size=5))), max_size=3)
STAMPS = st.one_of(
    st.just(NO_PRODUCER),
    st.builds(
        ProducerStamp,
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**15 - 1),
        st.one_of(st.integers(0, 2**31 - 1), st.integers(2**31 - 20, 2**31 - 1)),
        st.booleans(),
    ),
)

Row = tuple[int, bytes | None, bytes | None, list[Header]]
ROWS = st.lists(st.tuples(TIMESTAMPS_MS, BYTES, BYTES, HEADERS), max_size=30)


def columns(rows: list[Row]) -> EncodedRecords:
    return EncodedRecords.to_append(
        timestamps_ms=[row[0] for row in rows],
        keys=[row[1] for row in rows],
        values=[row[2] for row in rows],
        headers=[row[3] for row in rows],
    )


def rows_of(records: EncodedRecords) -> list[Row]:
    headers = records.headers if records.headers is not None else [[]] * len(records)
    columns = (records.timestamps_ms.tolist(), records.keys, records.values, map(list, headers))
    return list(zip(*columns, strict=True))


@given(ROWS, STAMPS, st.integers(600, 3_000), st.integers(0, 2**62), st.sampled_from(COMPRESSIONS))
def test_records_come_back_from_their_batches(
    rows: list[Row], stamp: ProducerStamp, batch_bytes_max: int, base_offset: int, compression: Compression
) -> None:
    batches = encode(columns(rows), stamp=stamp, batch_bytes_max=batch_bytes_max, compression=compression)
    stored, offset, sequence = [], base_offset, stamp.base_sequence
    for encoded in batches:
        place(encoded, offset, 3)
        assert len(encoded) <= batch_bytes_max
        check(encoded)
        header = parse_header(encoded)
        assert header.compression in {compression, "none"}
        inside = rows[offset - base_offset : offset - base_offset + header.record_count]
        assert (header.producer_id, header.producer_epoch) == (stamp.producer_id, stamp.producer_epoch)
        assert (header.transactional, header.control, header.leader_epoch) == (stamp.transactional, False, 3)
        assert (header.base_offset, header.last_offset) == (offset, offset + len(inside) - 1)
        assert header.base_sequence == sequence
        assert (header.first_timestamp_ms, header.max_timestamp_ms) == (inside[0][0], max(row[0] for row in inside))
        offset += header.record_count
        sequence = sequence if sequence == -1 else (sequence + header.record_count) % 2**31
        stored.append(bytes(encoded))
    decoded = decode(stored)
    assert rows_of(decoded) == rows
    assert decoded.offsets.tolist() == list(range(base_offset, base_offset + len(rows)))
    assert decoded.headers is None or any(decoded.headers)


@given(ROWS, st.integers(0, 40))
def test_records_from_an_offset_on_are_the_last_ones_of_all(rows: list[Row], from_offset: int) -> None:
    batches, offset = encode(columns(rows), batch_bytes_max=600), 0
    for encoded in batches:
        place(encoded, offset)
        offset += parse_header(encoded).record_count
    decoded = decode(batches, from_offset=from_offset)
    assert rows_of(decoded) == rows[from_offset:]


@given(st.binary(max_size=200), st.integers(0, 20))
@example(b"", 0)
@example(b"\0" * 61, 5)
def test_parsing_any_bytes_as_a_header_raises_nothing_else(data: bytes, position: int) -> None:
    try:
        header = parse_header(data, position)
    except CorruptBatchError as error:
        assert error.position == position
    else:
        assert header.size_bytes >= 61
        assert 0 <= header.base_offset <= header.last_offset < 2**63


def mutated(data: bytes, changes: list[tuple[int, int]], start: int) -> bytes:
    changed = bytearray(data)
    for position, octet in changes:
        changed[start + position % (len(changed) - start)] = octet
    return bytes(changed)


CHANGES = st.lists(
    st.tuples(st.integers(0, 2**16), st.one_of(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]), st.integers(0, 255))),
    min_size=1,
    max_size=6,
)
SOME_ROWS = st.lists(st.tuples(TIMESTAMPS_MS, BYTES, BYTES, HEADERS), min_size=1, max_size=5)


@given(SOME_ROWS, CHANGES, st.sampled_from(["anywhere", "records", "inside gzip", "gzip stream"]), st.booleans())
def test_decoding_a_batch_with_changed_bytes_raises_nothing_else(
    rows: list[Row], changes: list[tuple[int, int]], where: str, truncated: bool
) -> None:
    """A changed batch decodes to whole columns, whatever they are, or is refused."""
    (good,) = encode(columns(rows), batch_bytes_max=10_000)
    plain = bytes(good)
    bad = {
        "anywhere": lambda: mutated(plain, changes, 0),
        "records": lambda: resealed(mutated(plain, changes, 57)),
        "inside gzip": lambda: compressed(mutated(plain, changes, 61)),
        "gzip stream": lambda: resealed(mutated(compressed(plain), changes, 61)),
    }[where]()
    if truncated:
        bad = resealed(bad[: max(61, len(bad) - changes[0][0] % 40)])
    for read in (decode, lambda batches: control_kind(batches[0])):
        with contextlib.suppress(CorruptBatchError):
            read([bad])
    with contextlib.suppress(CorruptBatchError):
        decoded = decode([bad])
        lengths = {len(decoded.keys), len(decoded.values), len(decoded.timestamps_ms), len(decoded.offsets)}
        assert lengths == {len(decoded)}
        header = parse_header(bad)
        assert all(header.base_offset <= offset <= header.last_offset for offset in decoded.offsets.tolist())


MAGICS = st.sampled_from([b"", b"\x82SNAPPY\0", b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08\0"])
CODECS = st.sampled_from([codec for codec in COMPRESSIONS if codec != "none"])


@given(st.lists(BYTES, min_size=1, max_size=10), CODECS, CHANGES, st.one_of(st.none(), st.integers(0, 2**16)))
def test_a_changed_or_truncated_compressed_stream_raises_nothing_else(
    values: list[bytes | None], codec: Compression, changes: list[tuple[int, int]], cut: int | None
) -> None:
    rows: list[Row] = [(0, b"a key that comes again", value, []) for value in values]
    (good,) = encode(columns(rows * 10), compression=codec)
    assert parse_header(good).compression == codec
    bad = mutated(bytes(good), changes, 61)
    with contextlib.suppress(CorruptBatchError):
        decoded = decode([resealed(bad)])
        assert len(decoded.keys) == len(decoded.values) == len(decoded.offsets)
    if cut is not None:
        with pytest.raises(CorruptBatchError):
            decode([resealed(good[: 61 + cut % (len(good) - 61)])])


@given(
    CODECS, st.sampled_from([b"", b"\x82SNAPPY\0", b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=200)
)
def test_inflating_any_bytes_raises_nothing_else(codec: Compression, magic: bytes, body: bytes) -> None:
    (good,) = encode(columns([(0, None, b"", [])]))
    with contextlib.suppress(CorruptBatchError):
        decode([labelled(good, magic + body, COMPRESSIONS.index(codec))])


@given(st.lists(st.binary(max_size=120), max_size=3), st.integers(0, 2**31 - 1))
def test_decoding_any_bytes_raises_nothing_else(records: list[bytes], record_count: int) -> None:
    (good,) = encode(columns([(0, None, b"", [])]))
    struct.pack_into(">i", good, 57, record_count)
    for data in (b"".join(records), resealed(bytes(good[:61]) + b"".join(records))):
        with contextlib.suppress(CorruptBatchError):
            decode([data])
        with contextlib.suppress(CorruptBatchError):
            check(data)


@given(SOME_ROWS, st.data())
def test_one_flipped_bit_behind_the_leader_epoch_is_always_noticed(rows: list[Row], data: st.DataObject) -> None:
    (good,) = encode(columns(rows), batch_bytes_max=10_000)
    bit = data.draw(st.integers(16 * 8, len(good) * 8 - 1))
    good[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptBatchError):
        check(good)
