"""What every broker promises about offsets: those that groups commit, and those that its logs have."""

import pytest
from broker_subject import (
    A0,
    A1,
    B0,
    Subject,
    begun,
    offset_of,
    read,
    records,
    send_committed,
)

from streamkit.broker import EARLIEST, LAST_STABLE, LATEST, Broker, CommittedOffset
from streamkit.errors import BrokerError, ConfigError, OffsetOutOfRangeError, ProducerFencedError

# Group offsets


def test_offsets_in_a_transaction_are_committed_with_it(subject: Subject) -> None:
    producer = begun(subject.broker, "t", [(A0, b"1")])
    note = "é" * 2048
    producer.send_offsets("g", {B0: CommittedOffset(offset=3)})
    producer.send_offsets("g", {B0: CommittedOffset(offset=4, metadata=note), A1: CommittedOffset(offset=0)})
    producer.send_offsets("h", {B0: CommittedOffset(offset=1)})
    assert subject.broker.group("g").committed() == {}
    producer.commit()
    producer.close()
    for broker in subject.now_and_reopened():
        assert broker.group("g").committed() == {
            B0: CommittedOffset(offset=4, metadata=note),
            A1: CommittedOffset(offset=0),
        }
        assert broker.group("h").committed() == {B0: CommittedOffset(offset=1)}


def test_a_producer_reads_what_its_group_has_committed(subject: Subject) -> None:
    """And leaves it as it was: what it writes on the way, where it has to, is taken back."""
    broker = subject.broker
    before = begun(broker, "t", [])
    before.send_offsets("g", {B0: CommittedOffset(offset=7, metadata="note")})
    before.commit()
    before.close()
    producer = broker.producer("t")
    for place in (A0, B0):
        assert producer.committed("g", place) == {B0: CommittedOffset(offset=7, metadata="note")}
    assert producer.committed("nobody", A0) == {}
    producer.begin()
    producer.send(A0, records(b"then"))
    producer.send_offsets("g", {B0: CommittedOffset(offset=8)})
    with pytest.raises(BrokerError, match="a transaction is open"):
        producer.committed("g", A0)
    producer.commit()
    assert producer.committed("g", A0) == {B0: CommittedOffset(offset=8)}
    producer.close()
    for now in subject.now_and_reopened():
        assert now.group("g").committed() == {B0: CommittedOffset(offset=8)}
        assert now.group("nobody").committed() == {}
        assert read(now, A0) == [b"then"]


def test_d9_a_producer_of_an_older_epoch_reads_no_offsets(broker: Broker) -> None:
    older = broker.producer("t")
    newer = broker.producer("t")
    with pytest.raises(ProducerFencedError):
        older.committed("g", A0)
    newer.close()
    older.close()


def test_offsets_in_an_aborted_transaction_are_not_committed(broker: Broker) -> None:
    producer = begun(broker, "t", [])
    producer.send_offsets("g", {B0: CommittedOffset(offset=3)})
    producer.abort()
    producer.begin()
    producer.commit()
    assert broker.group("g").committed() == {}
    producer.close()


def test_offsets_committed_alone_are_durable_and_per_group(subject: Subject) -> None:
    subject.broker.group("g").commit({A0: CommittedOffset(offset=1), A1: CommittedOffset(offset=2, metadata="m")})
    subject.broker.group("g").commit({A0: CommittedOffset(offset=5)})
    for broker in subject.now_and_reopened():
        assert broker.group("g").committed() == {
            A0: CommittedOffset(offset=5),
            A1: CommittedOffset(offset=2, metadata="m"),
        }
        assert broker.group("other").committed() == {}


@pytest.mark.parametrize(
    "bad", [CommittedOffset(offset=-1), CommittedOffset(offset=0, metadata="x" * 4097)], ids=["negative", "long"]
)
def test_offsets_that_cannot_be_committed_are_refused_all_together(broker: Broker, bad: CommittedOffset) -> None:
    with pytest.raises(ConfigError):
        broker.group("g").commit({A0: CommittedOffset(offset=1), A1: bad})
    producer = begun(broker, "t", [])
    with pytest.raises(ConfigError):
        producer.send_offsets("g", {A0: CommittedOffset(offset=1), A1: bad})
    producer.commit()
    assert broker.group("g").committed() == {}
    producer.close()


# Offsets and deletion


def test_offsets_are_listed_by_spec(broker: Broker) -> None:
    assert [offset_of(broker, A0, spec) for spec in (EARLIEST, LATEST, LAST_STABLE)] == [0, 0, 0]
    producer = broker.producer()
    producer.send(A0, records(b"1", b"2", b"3"))
    producer.flush()
    assert [offset_of(broker, A0, spec) for spec in (EARLIEST, LATEST, LAST_STABLE)] == [0, 3, 3]
    producer.close()


def test_a_timestamp_gives_the_first_offset_that_is_not_earlier(broker: Broker) -> None:
    producer = broker.producer()
    for start_ms in (1000, 2000, 3000):
        producer.send(A0, records(b"1", b"2", timestamp_ms=start_ms))
    producer.flush()
    wanted = {0: 0, 1000: 0, 1001: 1, 1002: 2, 2000: 2, 2001: 3, 2500: 4, 3001: 5, 3002: 6, 10**15: 6}
    assert {timestamp_ms: offset_of(broker, A0, timestamp_ms) for timestamp_ms in wanted} == wanted
    producer.close()


def test_an_unknown_offset_spec_is_refused(broker: Broker) -> None:
    with pytest.raises(ConfigError):
        broker.admin.list_offsets({A0: -4})


def test_deleted_records_are_gone_for_good(subject: Subject) -> None:
    send_committed(subject.broker, A0, b"1", b"2", b"3", b"4")
    subject.broker.admin.delete_records({A0: 2, A1: 0})
    subject.broker.admin.delete_records({A0: 1})
    for broker in subject.now_and_reopened():
        assert offset_of(broker, A0, EARLIEST) == 2
        assert read(broker, A0, at=2) == [b"3", b"4"]
    with pytest.raises(OffsetOutOfRangeError):
        subject.broker.admin.delete_records({A0: 100})


def test_records_of_an_open_transaction_are_not_deleted(broker: Broker) -> None:
    producer = begun(broker, "t", [(A0, b"1"), (A0, b"2")])
    with pytest.raises(OffsetOutOfRangeError):
        broker.admin.delete_records({A0: 1})
    producer.commit()
    assert read(broker, A0) == [b"1", b"2"]
    producer.close()
