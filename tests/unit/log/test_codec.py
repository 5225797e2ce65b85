"""Records to record batches and back."""

import runpy
import struct
from itertools import pairwise

import numpy as np
import pytest
from aiokafka.record import default_records
from hypothesis import given
from hypothesis import strategies as st
from log_files import batch, resealed

from streamkit.errors import ConfigError, CorruptBatchError, RecordTooLargeError
from streamkit.log import (
    NO_PRODUCER,
    ControlKind,
    ProducerStamp,
    check,
    codec,
    control_batch,
    control_kind,
    decode,
    decode_parts,
    encode,
    parse_header,
    place,
)
from streamkit.records import EncodedRecords


def records(*values: bytes | None) -> EncodedRecords:
    return EncodedRecords.to_append(timestamps_ms=[0] * len(values), keys=[None] * len(values), values=values)


# One record, written out by hand from Kafka's description of the format; its CRC is left to `resealed`.
ONE = bytes.fromhex(
    "0000000000000000 00000040 00000000 02 00000000 0000 00000000"
    "00000000000003e8 00000000000003e8 ffffffffffffffff ffff ffffffff 00000001"
    "1c"  # the record's length, 14 as a zigzag varint
    "00 00 00"  # attributes, timestamp delta, offset delta
    "04 6b31"  # key of 2 bytes
    "04 7631"  # value of 2 bytes
    "02 02 68 02 78"  # one header: "h" is "x"
)


def test_one_record_is_encoded_byte_for_byte_as_kafka_describes() -> None:
    one = EncodedRecords.to_append(timestamps_ms=[1000], keys=[b"k1"], values=[b"v1"], headers=[[("h", b"x")]])
    (encoded,) = encode(one)
    place(encoded, 0)
    assert bytes(encoded) == resealed(ONE)


def test_a_record_written_by_hand_is_decoded() -> None:
    decoded = decode([resealed(ONE)])
    assert (decoded.keys, decoded.values, decoded.headers) == ([b"k1"], [b"v1"], [[("h", b"x")]])
    assert (decoded.offsets.tolist(), decoded.timestamps_ms.tolist()) == ([0], [1000])


def test_no_records_are_no_batches_and_no_batches_no_records() -> None:
    assert encode(records()) == []
    assert len(decode([])) == 0


def test_a_batch_without_records_is_decoded_as_none() -> None:
    empty = bytearray(ONE[:61])
    struct.pack_into(">i", empty, 57, 0)
    assert len(decode([resealed(empty)])) == 0


def test_records_are_cut_into_batches_that_are_at_most_as_large_as_asked_and_hold_as_many_as_fit() -> None:
    values = [b"%04d" % number * (1 + number % 9) for number in range(200)]
    for batch_bytes_max in range(110, 400, 7):
        batches = encode(records(*values), batch_bytes_max=batch_bytes_max)
        sizes = [len(encoded) for encoded in batches]
        assert max(sizes) <= batch_bytes_max
        assert [value for encoded in batches for value in decode([encoded]).values] == values
        for encoded, following in pairwise(batches):
            check(encoded)
            (grown,) = encode(records(*decode([encoded]).values, decode([following]).values[0]))
            assert len(grown) > batch_bytes_max


def test_a_batch_of_exactly_the_limit_fits_and_one_byte_less_does_not() -> None:
    (encoded,) = encode(records(b"x" * 1000))
    assert encode(records(b"x" * 1000), batch_bytes_max=len(encoded)) == [encoded]
    with pytest.raises(RecordTooLargeError) as caught:
        encode(records(b"y", b"x" * 1000), batch_bytes_max=len(encoded) - 1)
    assert f"record 1 takes {len(encoded)} bytes" in caught.value.primary
    assert "x" * 200 + " …" in caught.value.detail
    assert "x" * 201 not in caught.value.detail


def test_a_small_record_with_a_null_value_can_be_too_large() -> None:
    with pytest.raises(RecordTooLargeError, match="record 0 takes 68 bytes") as caught:
        encode(records(None), batch_bytes_max=61)
    assert caught.value.detail == "its value begins "


def test_the_sequence_goes_on_over_the_batches_and_wraps() -> None:
    stamp = ProducerStamp(5, 6, 2**31 - 2)
    batches = encode(records(*[b"x" * 60] * 5), stamp=stamp, batch_bytes_max=200)
    headers = [parse_header(encoded) for encoded in batches]
    assert [header.base_sequence for header in headers] == [2**31 - 2, 0, 2]
    assert {(header.producer_id, header.producer_epoch, header.transactional) for header in headers} == {(5, 6, False)}
    unstamped = encode(records(*[b"x" * 60] * 5), stamp=NO_PRODUCER, batch_bytes_max=200)
    assert {parse_header(encoded).base_sequence for encoded in unstamped} == {-1}


@pytest.mark.parametrize(
    "timestamps_ms",
    [[-1], [-1, -1], [0, -1], [-1, 5, -1], [-1, -2, -3], [2**63 - 1, -1], [-(2**63), -1, 2**63 - 1], [-2]],
)
def test_timestamps_of_minus_one_and_at_the_edges_come_back(timestamps_ms: list[int]) -> None:
    (encoded,) = encode(
        EncodedRecords.to_append(
            timestamps_ms=timestamps_ms, keys=[None] * len(timestamps_ms), values=[b""] * len(timestamps_ms)
        )
    )
    check(encoded)
    header = parse_header(encoded)
    assert (header.first_timestamp_ms, header.max_timestamp_ms) == (timestamps_ms[0], max(timestamps_ms))
    assert decode([encoded]).timestamps_ms.tolist() == timestamps_ms


def test_records_below_the_offset_asked_for_are_left_out() -> None:
    headers = [[("n", b"%d" % number)] for number in range(6)]
    all_records = EncodedRecords.to_append(
        timestamps_ms=range(6), keys=[b"%d" % number for number in range(6)], values=[b""] * 6, headers=headers
    )
    batches = encode(all_records, batch_bytes_max=90)
    assert len(batches) == 3
    for index, encoded in enumerate(batches):
        place(encoded, 10 * index)
    everything = decode(batches)
    assert everything.offsets.tolist() == [0, 1, 10, 11, 20, 21]
    for from_offset in range(-1, 24):
        kept = decode(batches, from_offset=from_offset)
        wanted = [row for row, offset in enumerate(everything.offsets.tolist()) if offset >= from_offset]
        assert kept.offsets.tolist() == [everything.offsets[row] for row in wanted]
        assert kept.keys == [everything.keys[row] for row in wanted]
        assert kept.timestamps_ms.tolist() == wanted
        assert (kept.headers or []) == [headers[row] for row in wanted]


@pytest.mark.parametrize(("from_offset", "end_offset"), [(0, 9), (1, 9), (5, 7)])
def test_one_pass_decodes_what_several_do(from_offset: int, end_offset: int) -> None:
    batches = []
    for base_offset in (0, 4):
        records = EncodedRecords.to_append(
            timestamps_ms=[base_offset, 7, 3, 9], keys=[b"a", None, b"", b"b"], values=[b"1", b"2", None, b"3"]
        )
        (made,) = encode(records)
        place(made, base_offset=base_offset, leader_epoch=0)
        batches.append(made)
    (one,) = decode_parts(batches, from_offset=from_offset)
    (other,) = decode_parts(batches, from_offset=from_offset, whole=True)
    one, other = one.below(end_offset), other.below(end_offset)
    assert (other.keys, other.values) == (one.keys, one.values)
    assert other.timestamps_ms.tolist() == one.timestamps_ms.tolist()
    assert other.offsets.tolist() == one.offsets.tolist()


def test_headers_are_none_when_no_record_has_any() -> None:
    bare = EncodedRecords.to_append(timestamps_ms=[0], keys=[b""], values=[b""], headers=[[]])
    assert decode(encode(bare)).headers is None


def test_batches_out_of_order_are_refused() -> None:
    first, second = batch(b"a", base_offset=5), batch(b"b", base_offset=4)
    with pytest.raises(CorruptBatchError, match="order of their offsets"):
        decode([first, second])
    with pytest.raises(CorruptBatchError, match="order of their offsets"):
        decode([first, first])


@pytest.mark.parametrize(("from_offset", "counts"), [(0, [5, 5, 2]), (3, [2, 5, 2]), (5, [5, 2]), (12, [0])])
def test_what_is_more_than_one_part_may_hold_comes_in_several(
    from_offset: int, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [4, 1, 2, 2, 1, 2]
    begins = [sum(sizes[:index]) for index in range(len(sizes))]
    batches = [batch(*[b"%d" % begin] * size, base_offset=begin) for begin, size in zip(begins, sizes, strict=True)]
    # As much as the first two take, and as the three after them.
    monkeypatch.setattr(codec, "INFLATED_BYTES_MAX", sum(map(len, batches[2:5])))
    parts = list(decode_parts(batches, from_offset=from_offset))
    whole = decode(batches, from_offset=from_offset)
    assert [len(part) for part in parts] == counts
    assert [offset for part in parts for offset in part.offsets] == whole.offsets.tolist()
    assert [value for part in parts for value in part.values] == whole.values
    assert [stamp for part in parts for stamp in part.timestamps_ms] == whole.timestamps_ms.tolist()


def test_parts_out_of_order_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "INFLATED_BYTES_MAX", 1)
    with pytest.raises(CorruptBatchError, match="order of their offsets"):
        list(decode_parts([batch(b"a", base_offset=4), batch(b"b", base_offset=4)]))


def test_records_outside_of_the_offsets_of_their_batch_are_refused() -> None:
    data = batch(b"a", b"b")
    struct.pack_into(">i", data, 23, 0)
    with pytest.raises(CorruptBatchError, match="outside of its offsets"):
        decode([resealed(data)])


def test_a_batch_of_another_length_than_it_claims_is_refused() -> None:
    for data in (batch(b"a") + b"x", batch(b"a")[:-1]):
        with pytest.raises(CorruptBatchError, match="bytes and has"):
            decode([data])


def test_a_length_that_no_memory_could_hold_is_refused() -> None:
    record = b"\x00\x00\x00\x01" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\x01\x00"
    data = bytearray(ONE[:61]) + bytes([2 * len(record)]) + record
    with pytest.raises(CorruptBatchError, match="does not decode"):
        decode([resealed(data)])


@pytest.mark.parametrize(("kind", "number"), [(ControlKind.ABORT, 0), (ControlKind.COMMIT, 1)])
def test_a_marker_is_what_kafkas_coordinator_writes(kind: ControlKind, number: int) -> None:
    marker = control_batch(kind, producer_id=77, producer_epoch=3, timestamp_ms=12)
    check(marker)
    header = parse_header(marker)
    assert (header.control, header.transactional, header.record_count) == (True, True, 1)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (77, 3, -1)
    decoded = decode([marker])
    assert decoded.keys == [struct.pack(">hh", 0, number)]
    assert decoded.values == [struct.pack(">hi", 0, 0)]
    assert decoded.timestamps_ms.tolist() == [12]
    assert control_kind(marker) is kind


def control(*keys: bytes | None) -> bytes:
    data = encode(EncodedRecords.to_append(timestamps_ms=[0] * len(keys), keys=keys, values=[b""] * len(keys)))[0]
    data[22] |= 0x20
    return resealed(data)


@pytest.mark.parametrize("keys", [(None,), (b"\x00\x00\x00",), (b"\x00\x00\x00\x01", b"\x00\x00\x00\x01")])
def test_a_control_batch_of_another_shape_is_no_marker(keys: tuple[bytes | None, ...]) -> None:
    with pytest.raises(CorruptBatchError, match="no transaction marker"):
        control_kind(control(*keys))


def test_a_plain_batch_is_no_marker() -> None:
    plain = encode(EncodedRecords.to_append(timestamps_ms=[0], keys=[b"\x00\x00\x00\x01"], values=[b""]))[0]
    with pytest.raises(CorruptBatchError, match="no transaction marker"):
        control_kind(plain)


@pytest.mark.parametrize("number", [-1, 2])
def test_a_marker_of_an_unknown_type_is_refused(number: int) -> None:
    with pytest.raises(CorruptBatchError, match=f"of type {number}"):
        control_kind(control(struct.pack(">hh", 0, number)))
    assert control_kind(control(struct.pack(">hh", 3, 1) + b"later versions add bytes")) is ControlKind.COMMIT


def test_a_numpy_column_of_timestamps_is_taken_as_it_is() -> None:
    stamps = np.array([5, 4, -1], dtype=np.int64)
    given = EncodedRecords.to_append(timestamps_ms=stamps, keys=[b"k"] * 3, values=[b"v"] * 3)
    assert decode(encode(given)).timestamps_ms.tolist() == [5, 4, -1]
    assert stamps.tolist() == [5, 4, -1]


def test_without_aiokafkas_c_extension_the_codec_refuses_to_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_records, "DefaultRecordBatchBuilder", default_records._DefaultRecordBatchBuilderPy)
    with pytest.raises(ConfigError, match="without its C extension"):
        runpy.run_path(codec.__file__)


@given(st.lists(st.integers(0, 20), unique=True, min_size=1).map(sorted), st.integers(-1, 22), st.integers(-1, 22))
def test_records_of_a_compacted_batch_are_cut_by_their_offsets(offsets: list[int], begin: int, end: int) -> None:
    """Compaction leaves gaps, which only another builder writes; every column is cut alike, whenever it is read."""
    builder = default_records.DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 10_000)
    for offset in offsets:
        builder.append(offset, offset, b"%d" % offset, b"%d" % offset, [("offset", b"%d" % offset)])
    batch = builder.build()
    kept = [offset for offset in offsets if begin <= offset < end]
    records = decode([bytes(batch)], from_offset=begin).below(end)
    assert len(records) == len(kept)
    assert records.offsets.tolist() == records.timestamps_ms.tolist() == kept
    assert records.keys == records.values == [b"%d" % offset for offset in kept]
    assert (records.headers or []) == [[("offset", b"%d" % offset)] for offset in kept]
