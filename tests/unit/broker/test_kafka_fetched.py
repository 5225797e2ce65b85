"""What a reader of committed records is shown of one partition's answer."""

from collections.abc import Sequence

import pytest

from streamkit.broker.kafka.fetched import cut, fetched_from
from streamkit.errors import CorruptBatchError
from streamkit.log.codec import ControlKind, ProducerStamp, control_batch, decode, encode, place
from streamkit.records import EncodedRecords, TopicPartition

TP = TopicPartition("t", 0)
PLAIN = ProducerStamp(-1, -1, -1)
ABORT, COMMIT = ControlKind.ABORT, ControlKind.COMMIT


def batch(offset: int, *values: bytes, producer_id: int | None = None) -> bytes:
    stamp = PLAIN if producer_id is None else ProducerStamp(producer_id, 0, 0, transactional=True)
    count = len(values)
    records = EncodedRecords.to_append(timestamps_ms=[0] * count, keys=[None] * count, values=list(values))
    (encoded,) = encode(records, stamp=stamp)
    place(encoded, offset)
    return bytes(encoded)


def marker(offset: int, kind: ControlKind, producer_id: int) -> bytes:
    encoded = control_batch(kind, producer_id=producer_id, producer_epoch=0, timestamp_ms=0)
    place(encoded, offset)
    return bytes(encoded)


def seen(parts: Sequence[bytes], aborted: Sequence[tuple[int, int]], position: int = 0) -> list[bytes | None]:
    fetched = fetched_from(TP, position, b"".join(parts), aborted, 100)
    return decode(fetched.record_batches, from_offset=position).values


def test_a_batch_that_is_cut_off_at_the_end_is_left_for_the_next_fetch() -> None:
    whole, partly = batch(0, b"1", b"2"), batch(2, b"3")
    for kept in (0, 11, 60, len(partly) - 1):
        fetched = fetched_from(TP, 0, whole + partly[:kept], None, 3)
        assert (list(fetched.record_batches), fetched.next_offset) == ([whole], 2)
    assert fetched_from(TP, 0, whole + partly, None, 3).next_offset == 3


def test_nothing_moves_no_position() -> None:
    assert fetched_from(TP, 7, b"", [], 9).next_offset == 7
    assert fetched_from(TP, 7, batch(5, b"1"), [], 9).next_offset == 7


def test_a_damaged_batch_is_refused() -> None:
    damaged = bytearray(batch(0, b"value"))
    damaged[-2] ^= 1
    with pytest.raises(CorruptBatchError, match="CRC"):
        cut(bytes(damaged))


def test_markers_are_stepped_over_and_never_returned() -> None:
    parts = [batch(0, b"1", producer_id=1), marker(1, COMMIT, 1)]
    for aborted in ([], None):
        fetched = fetched_from(TP, 0, b"".join(parts), aborted, 2)
        assert (list(fetched.record_batches), fetched.next_offset) == (parts[:1], 2)


def test_an_aborted_transaction_is_hidden_and_its_producers_next_one_is_not() -> None:
    parts = [
        batch(0, b"gone", producer_id=1),
        batch(1, b"other", producer_id=2),
        batch(2, b"plain"),
        batch(3, b"gone too", producer_id=1),
        marker(4, ABORT, 1),
        batch(5, b"kept", producer_id=1),
    ]
    assert seen(parts, [(1, 0)]) == [b"other", b"plain", b"kept"]


def test_two_aborted_transactions_of_one_producer_end_each_with_its_own_marker() -> None:
    parts = [
        batch(0, b"gone", producer_id=1),
        marker(1, ABORT, 1),
        batch(2, b"kept", producer_id=1),
        marker(3, COMMIT, 1),
        batch(4, b"gone", producer_id=1),
        marker(5, ABORT, 1),
    ]
    assert seen(parts, [(1, 4), (1, 0)]) == [b"kept"]


def test_a_marker_of_a_transaction_without_records_here_ends_no_other() -> None:
    parts = [
        batch(0, b"gone", producer_id=1),
        marker(1, ABORT, 2),
        batch(2, b"gone too", producer_id=1),
        marker(3, ABORT, 1),
        batch(4, b"kept", producer_id=2),
    ]
    assert seen(parts, [(1, 0)]) == [b"kept"]


def test_a_transaction_that_was_aborted_later_hides_nothing_of_an_earlier_one() -> None:
    parts = [batch(0, b"kept", producer_id=1), marker(1, COMMIT, 1), batch(2, b"gone", producer_id=1)]
    assert seen(parts, [(1, 2)]) == [b"kept"]


def test_an_aborted_transaction_that_began_before_the_position_is_hidden_from_there_on() -> None:
    parts = [batch(10, b"gone", producer_id=1), marker(11, ABORT, 1), batch(12, b"kept", producer_id=1)]
    assert seen(parts, [(1, 3)], position=10) == [b"kept"]


def test_a_reader_of_everything_sees_what_was_aborted() -> None:
    parts = [batch(0, b"gone", producer_id=1), marker(1, ABORT, 1)]
    fetched = fetched_from(TP, 0, b"".join(parts), None, 2)
    assert decode(fetched.record_batches).values == [b"gone"]
