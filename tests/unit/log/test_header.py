"""The header of a record batch: what it says, what it cannot say, and what may change in it."""

import runpy
import struct

import google_crc32c
import pytest
from log_files import batch, resealed

from streamkit.errors import ConfigError, CorruptBatchError
from streamkit.log import header
from streamkit.log.codec import ProducerStamp
from streamkit.log.header import HEADER_BYTES, BatchHeader, add_attributes, check, parse_header, place, set_timestamps

# Written out by hand from Kafka's description of the format: an empty batch at offset 258.
EMPTY = bytes.fromhex(
    "0000000000000102"  # base offset 258
    "00000031"  # 49 bytes follow
    "00000005"  # leader epoch 5
    "02"  # magic
    "deadbeef"  # CRC-32C
    "0010"  # transactional
    "00000003"  # last offset delta
    "00000000000003e8"  # first timestamp 1000
    "00000000000007d0"  # largest timestamp 2000
    "0000000000000007"  # producer id
    "0002"  # producer epoch
    "00000009"  # base sequence
    "00000000"  # no records
)


def changed(position: int, layout: str, value: int) -> bytes:
    data = bytearray(EMPTY)
    struct.pack_into(layout, data, position, value)
    return bytes(data)


def test_every_field_is_read_from_its_place() -> None:
    assert parse_header(EMPTY) == BatchHeader(
        base_offset=258,
        last_offset=261,
        size_bytes=61,
        leader_epoch=5,
        producer_id=7,
        producer_epoch=2,
        base_sequence=9,
        first_timestamp_ms=1000,
        max_timestamp_ms=2000,
        record_count=0,
        crc=0xDEADBEEF,
        transactional=True,
        control=False,
        compression="none",
    )


def test_a_header_is_read_at_a_position_of_any_buffer() -> None:
    for data in (b"xyz" + EMPTY, bytearray(b"xyz" + EMPTY), memoryview(b"xyz" + EMPTY)):
        assert parse_header(data, 3) == parse_header(EMPTY)


@pytest.mark.parametrize(
    ("attribute", "compression"), [(0, "none"), (1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd"), (0x70, "none")]
)
def test_the_lowest_three_attributes_are_the_compression(attribute: int, compression: str) -> None:
    assert parse_header(changed(21, ">h", attribute)).compression == compression


def test_transactional_and_control_are_attributes_of_their_own() -> None:
    flags = [parse_header(changed(21, ">h", bits)) for bits in (0, 0x10, 0x20, 0x30)]
    assert [(parsed.transactional, parsed.control) for parsed in flags] == [
        (False, False),
        (True, False),
        (False, True),
        (True, True),
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (EMPTY[:60], "60 of 61 header bytes"),
        (b"", "0 of 61 header bytes"),
        (changed(16, ">b", 1), "magic 1"),
        (changed(8, ">i", 48), "claims 48 bytes"),
        (changed(8, ">i", -1), "claims -1 bytes"),
        (changed(57, ">i", -1), "-1 records"),
        (changed(0, ">q", -1), "offset -1"),
        (changed(23, ">i", -1), "-1 more"),
        (changed(0, ">q", 2**63 - 3), "3 more"),
        (changed(21, ">h", 5), "compression 5"),
    ],
)
def test_what_no_header_can_say_is_refused_with_its_position(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptBatchError, match=reason) as caught:
        parse_header(b"12345" + data, 5)
    assert caught.value.position == 5
    assert "byte 5" in str(caught.value)


def test_the_last_possible_offset_is_accepted() -> None:
    assert parse_header(changed(0, ">q", 2**63 - 4)).last_offset == 2**63 - 1


def test_a_batch_gets_its_place_without_touching_its_crc() -> None:
    placed = batch(b"a", b"b")
    before = bytes(placed)
    place(placed, 2**40, 6)
    check(placed)
    parsed = parse_header(placed)
    assert (parsed.base_offset, parsed.last_offset, parsed.leader_epoch) == (2**40, 2**40 + 1, 6)
    assert placed[16:] == before[16:]
    assert placed[8:12] == before[8:12]


def test_check_tells_any_flipped_bit_behind_the_crc() -> None:
    good = batch(b"value", stamp=ProducerStamp(1, 2, 3, transactional=True))
    check(good)
    for position in range(17, len(good)):
        bad = bytearray(good)
        bad[position] ^= 1
        with pytest.raises(CorruptBatchError):
            check(bad)


def test_check_wants_one_whole_batch() -> None:
    good = batch(b"value")
    for data in (good[:-1], good + b"x", good + good):
        with pytest.raises(CorruptBatchError, match="bytes and has"):
            check(data)


def test_attributes_and_timestamps_are_set_under_a_new_crc() -> None:
    data = batch(b"value", timestamps_ms=[5])
    add_attributes(data, 0x20)
    set_timestamps(data, -7, 2**62)
    check(data)
    parsed = parse_header(data)
    assert (parsed.control, parsed.first_timestamp_ms, parsed.max_timestamp_ms) == (True, -7, 2**62)
    assert bytes(data) == resealed(data)


def test_an_empty_batch_is_a_batch() -> None:
    assert len(EMPTY) == HEADER_BYTES
    check(resealed(EMPTY))


def test_without_the_c_library_for_crcs_the_header_refuses_to_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_crc32c, "implementation", "python")
    with pytest.raises(ConfigError, match="without its C library"):
        runpy.run_path(header.__file__)
