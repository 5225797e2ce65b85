"""What every broker promises, run against each of them; the names of the rules are those of the reliability design.

D4: after an unknown outcome the producer is thrown away, and a late commit or abort of it never closes another
transaction. D9: epochs are durable and checked at every append, commit, abort and offset commit.
"""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from broker_subject import (
    A0,
    A1,
    B0,
    BYTES_MAX,
    FETCHED_EITHER_WAY,
    Subject,
    begun,
    offset_of,
    read,
    records,
    send_committed,
)

from streamkit.broker import EARLIEST, LAST_STABLE, LATEST, Broker, CommittedOffset
from streamkit.broker.open import open_broker
from streamkit.errors import (
    BrokerError,
    CommitFailedError,
    ConfigError,
    OffsetOutOfRangeError,
    ProducerFencedError,
    RecordTooLargeError,
    UnknownTopicError,
)
from streamkit.log.codec import decode
from streamkit.records import EncodedRecords, TopicPartition

# Topics


def test_a_created_topic_is_described_with_its_count_and_config(broker: Broker) -> None:
    broker.admin.create_topic("counts", 3, {"cleanup.policy": "compact"})
    described = broker.admin.describe_topics()
    assert sorted(described) == ["a", "b", "counts"]
    assert described["counts"].partition_count == 3
    assert described["counts"].config == {"cleanup.policy": "compact"}


def test_creating_a_topic_again_as_it_is_changes_nothing(broker: Broker) -> None:
    send_committed(broker, A0, b"kept")
    broker.admin.create_topic("a", 2)
    assert read(broker, A0) == [b"kept"]


@pytest.mark.parametrize(("count", "config"), [(3, {}), (2, {"retention.ms": "1"})])
def test_creating_a_topic_again_otherwise_is_refused(broker: Broker, count: int, config: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"topic \S*a "):
        broker.admin.create_topic("a", count, config)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "../x", "ä", "x\0", "x" * 250])
def test_a_name_that_kafka_does_not_allow_is_refused(broker: Broker, name: str) -> None:
    with pytest.raises(ConfigError):
        broker.admin.create_topic(name, 1)
    assert sorted(broker.admin.describe_topics()) == ["a", "b"]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"retention.msx": "1"}, "retention.ms"),
        ({"segment.bytes": "many"}, "segment.bytes"),
        ({"cleanup.policy": "shred"}, "cleanup.policy"),
        ({"min.cleanable.dirty.ratio": "1.5"}, "min.cleanable.dirty.ratio"),
    ],
)
def test_a_config_that_is_unknown_or_out_of_range_is_refused_by_name(
    broker: Broker, config: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        broker.admin.create_topic("c", 1, config)
    assert named in str(caught.value)


def test_a_deleted_topic_is_gone_with_its_records_and_committed_offsets(subject: Subject) -> None:
    broker = subject.broker
    send_committed(broker, A0, b"old")
    broker.group("g").commit({A0: CommittedOffset(offset=1), B0: CommittedOffset(offset=0)})
    broker.admin.delete_topic("a")
    with pytest.raises(UnknownTopicError):
        read(broker, A0)
    with pytest.raises(UnknownTopicError):
        broker.admin.delete_topic("a")
    broker.admin.create_topic("a", 2)
    for now in subject.now_and_reopened():
        assert read(now, A0) == []
        assert now.group("g").committed() == {B0: CommittedOffset(offset=0)}


def test_the_log_id_is_kept_and_is_the_logs_own(subject: Subject) -> None:
    log_id = subject.broker.admin.log_id()
    assert log_id
    assert subject.reopen().admin.log_id() == log_id
    other = open_broker("memory://")
    assert other.admin.log_id() != log_id
    other.close()


# Producing and fetching


def test_what_was_flushed_is_read_back_in_order(broker: Broker) -> None:
    producer = broker.producer()
    producer.send(A0, records(b"1", b"2"))
    producer.send(A0, records(b"3"))
    producer.send(A1, records(b"4"))
    appended = producer.flush()
    assert (appended[A0].base_offset, appended[A0].last_offset) == (0, 2)
    assert (appended[A1].base_offset, appended[A1].last_offset) == (0, 0)
    assert read(broker, A0) == [b"1", b"2", b"3"]
    assert read(broker, A1) == [b"4"]
    producer.close()


def test_a_flush_answers_for_what_was_sent_since_the_last_one(broker: Broker) -> None:
    producer = broker.producer()
    producer.send(A0, records(b"1"))
    producer.flush()
    producer.send(A1, records(b"2"))
    assert list(producer.flush()) == [A1]
    assert producer.flush() == {}
    producer.close()


def test_nothing_is_seen_before_it_is_durable(subject: Subject) -> None:
    broker = subject.broker
    producer = broker.producer()
    producer.send(A0, records(b"1"))
    if subject.hides_until_flushed:
        assert read(broker, A0, "read_uncommitted") == []
        assert offset_of(broker, A0, LATEST) == 0
    producer.flush()
    assert read(broker, A0, "read_uncommitted") == [b"1"]
    producer.close()


@FETCHED_EITHER_WAY
def test_keys_headers_and_timestamps_come_back_as_they_were(broker: Broker) -> None:
    sent = EncodedRecords.to_append(
        timestamps_ms=[5, 3],
        keys=[b"k", None],
        values=[None, b"v"],
        headers=[[("h", b"1"), ("n", None)], []],
    )
    producer = broker.producer()
    producer.send(A0, sent)
    producer.close()
    (fetched,) = broker.fetcher().fetch({A0: 0}, wait_ms=0, bytes_max=BYTES_MAX)
    got = decode(fetched.record_batches)
    assert got.timestamps_ms.tolist() == [5, 3]
    assert (list(got.keys), list(got.values)) == ([b"k", None], [None, b"v"])
    assert got.headers is not None
    assert [list(headers) for headers in got.headers] == [[("h", b"1"), ("n", None)], []]


def test_sending_no_records_appends_nothing(broker: Broker) -> None:
    producer = broker.producer()
    producer.send(A0, records())
    assert producer.flush() == {}
    producer.close()


@FETCHED_EITHER_WAY
def test_a_fetch_answers_for_the_partitions_with_news_only(broker: Broker) -> None:
    send_committed(broker, A0, b"1")
    fetched = broker.fetcher().fetch({A0: 0, A1: 0, B0: 0}, wait_ms=0, bytes_max=BYTES_MAX)
    assert [one.topic_partition for one in fetched] == [A0]


@FETCHED_EITHER_WAY
def test_a_fetch_returns_at_least_one_batch_however_small_the_limit(broker: Broker) -> None:
    send_committed(broker, A0, b"x" * 5000, b"y")
    (fetched,) = broker.fetcher().fetch({A0: 0}, wait_ms=0, bytes_max=1)
    assert decode(fetched.record_batches).values[0] == b"x" * 5000


def test_a_fetch_is_cut_at_about_its_limit(broker: Broker) -> None:
    producer = broker.producer()
    for _ in range(50):
        producer.send(A0, records(b"x" * 1000))
    producer.flush()
    (fetched,) = broker.fetcher().fetch({A0: 0}, wait_ms=0, bytes_max=10_000)
    assert 5 <= len(fetched.record_batches) <= 11
    assert fetched.end_offset == 50
    assert len(read(broker, A0)) == 50
    producer.close()


@FETCHED_EITHER_WAY
def test_a_position_inside_a_batch_gets_the_whole_batch(broker: Broker) -> None:
    send_committed(broker, A0, b"1", b"2", b"3")
    assert read(broker, A0, at=2) == [b"3"]


@FETCHED_EITHER_WAY
def test_a_waiting_fetch_wakes_up_when_records_are_committed(broker: Broker) -> None:
    got: list[bytes | None] = []

    def wait() -> None:
        for one in broker.fetcher().fetch({A1: 0, B0: 0}, wait_ms=120_000, bytes_max=BYTES_MAX):
            got.extend(decode(one.record_batches).values)

    waiting = threading.Thread(target=wait)
    waiting.start()
    send_committed(broker, B0, b"news")
    waiting.join(timeout=60)
    assert got == [b"news"]


@FETCHED_EITHER_WAY
def test_a_position_before_the_start_or_after_the_end_is_refused(broker: Broker) -> None:
    send_committed(broker, A0, b"1", b"2")
    broker.admin.delete_records({A0: 1})
    for position in (0, 50):
        with pytest.raises(OffsetOutOfRangeError, match="a-0"):
            broker.fetcher().fetch({A0: position}, wait_ms=0, bytes_max=BYTES_MAX)


@FETCHED_EITHER_WAY
@pytest.mark.parametrize("tp", [TopicPartition("missing", 0), TopicPartition("a", 2), TopicPartition("a", -1)])
def test_an_unknown_partition_is_refused_everywhere(broker: Broker, tp: TopicPartition) -> None:
    producer = broker.producer()
    with pytest.raises(UnknownTopicError):
        producer.send(tp, records(b"1"))
    with pytest.raises(UnknownTopicError):
        broker.fetcher().fetch({tp: 0}, wait_ms=0, bytes_max=BYTES_MAX)
    with pytest.raises(UnknownTopicError):
        broker.admin.list_offsets({tp: EARLIEST})
    with pytest.raises(UnknownTopicError):
        broker.admin.delete_records({tp: 0})
    with pytest.raises(UnknownTopicError):
        broker.group("g").commit({tp: CommittedOffset(offset=0)})
    producer.close()


def test_a_record_over_the_limit_is_refused_and_nothing_of_the_call_is_appended(broker: Broker) -> None:
    producer = broker.producer()
    with pytest.raises(RecordTooLargeError):
        producer.send(A0, records(b"small", b"x" * 1_048_588))
    producer.send(A0, records(b"next"))
    producer.flush()
    assert read(broker, A0) == [b"next"]
    producer.close()


def test_a_topic_has_its_own_limit(broker: Broker) -> None:
    broker.admin.create_topic("small", 1, {"max.message.bytes": "2000"})
    producer = broker.producer()
    small = TopicPartition("small", 0)
    producer.send(small, records(*[b"x" * 1000] * 5))
    with pytest.raises(RecordTooLargeError):
        producer.send(small, records(b"x" * 2000))
    producer.flush()
    assert len(read(broker, small)) == 5
    producer.close()


def test_what_was_acknowledged_is_there_after_a_restart(subject: Subject) -> None:
    producer = subject.broker.producer()
    producer.send(A0, records(b"1", b"2"))
    producer.flush()
    producer.close()
    send_committed(subject.broker, A0, b"3")
    broker = subject.reopen()
    assert read(broker, A0) == [b"1", b"2", b"3"]
    send_committed(broker, A0, b"4")
    assert read(broker, A0) == [b"1", b"2", b"3", b"4"]


# Transactions


@FETCHED_EITHER_WAY
def test_a_committed_transaction_is_visible_in_all_its_partitions(broker: Broker) -> None:
    producer = begun(broker, "t", [(A0, b"1"), (A1, b"2"), (A0, b"3")])
    assert read(broker, A0) == read(broker, A1) == []
    appended = producer.commit()
    assert (appended[A0].base_offset, appended[A0].last_offset) == (0, 1)
    assert (appended[A1].base_offset, appended[A1].last_offset) == (0, 0)
    assert read(broker, A0) == [b"1", b"3"]
    assert read(broker, A1) == [b"2"]
    producer.close()


@FETCHED_EITHER_WAY
def test_an_aborted_transaction_is_seen_by_read_uncommitted_at_most(broker: Broker) -> None:
    producer = begun(broker, "t", [(A0, b"gone")])
    producer.abort()
    producer.begin()
    producer.send(A0, records(b"kept"))
    producer.commit()
    assert read(broker, A0) == [b"kept"]
    assert read(broker, A0, "read_uncommitted") == [b"gone", b"kept"]
    producer.close()


def test_an_empty_transaction_commits_and_aborts(broker: Broker) -> None:
    producer = broker.producer("t")
    producer.begin()
    assert producer.commit() == {}
    producer.begin()
    producer.abort()
    producer.close()
    assert offset_of(broker, A0, LATEST) == 0


@FETCHED_EITHER_WAY
def test_the_last_stable_offset_holds_readers_before_an_open_transaction(broker: Broker) -> None:
    held = begun(broker, "held", [(A0, b"held")])
    other = begun(broker, "other", [(A0, b"other")])
    other.commit()
    assert read(broker, A0) == []
    assert offset_of(broker, A0, LAST_STABLE) == 0
    assert read(broker, A0, "read_uncommitted") == [b"held", b"other"]
    assert offset_of(broker, A0, LATEST) >= 2
    held.commit()
    assert read(broker, A0) == [b"held", b"other"]
    assert offset_of(broker, A0, LAST_STABLE) == offset_of(broker, A0, LATEST)
    held.close()
    other.close()


@FETCHED_EITHER_WAY
def test_interleaved_transactions_keep_their_own_outcomes(broker: Broker) -> None:
    kept, gone = broker.producer("kept"), broker.producer("gone")
    for round_index in range(3):
        kept.begin()
        gone.begin()
        for index in range(3):
            kept.send(A0, records(b"kept %d.%d" % (round_index, index)))
            gone.send(A0, records(b"gone %d.%d" % (round_index, index)))
        gone.abort()
        kept.commit()
    assert read(broker, A0) == [b"kept %d.%d" % (first, second) for first in range(3) for second in range(3)]
    kept.close()
    gone.close()


@FETCHED_EITHER_WAY
def test_plain_records_between_those_of_a_transaction_wait_for_it(broker: Broker) -> None:
    producer = begun(broker, "t", [(A0, b"in")])
    plain = broker.producer()
    plain.send(A0, records(b"plain"))
    plain.flush()
    assert read(broker, A0) == []
    producer.abort()
    assert read(broker, A0) == [b"plain"]
    producer.close()
    plain.close()


@FETCHED_EITHER_WAY
def test_a_position_moves_past_markers_and_aborted_records(broker: Broker) -> None:
    producer = begun(broker, "t", [(A0, b"gone")])
    producer.abort()
    plain = broker.producer()
    plain.send(A0, records(b"seen"))
    plain.flush()
    fetcher, position, seen = broker.fetcher(), 0, []
    while position < offset_of(broker, A0, LATEST):
        for one in fetcher.fetch({A0: position}, wait_ms=0, bytes_max=1):
            assert one.next_offset > position
            position = one.next_offset
            seen += list(one.record_batches)
    assert decode(seen).values == [b"seen"]
    producer.close()
    plain.close()


def test_closing_a_producer_aborts_its_open_transaction_and_gives_the_id_back(broker: Broker) -> None:
    producer = begun(broker, "t", [(A0, b"gone")])
    producer.close()
    producer.close()
    send_committed(broker, A0, b"kept", transactional_id="t")
    assert read(broker, A0) == [b"kept"]


def test_a_transaction_open_at_a_restart_is_aborted(subject: Subject) -> None:
    begun(subject.broker, "t", [(A0, b"gone"), (A1, b"gone")])
    broker = subject.reopen()
    assert read(broker, A0) == read(broker, A1) == []
    for tp in (A0, A1):
        assert offset_of(broker, tp, LAST_STABLE) == offset_of(broker, tp, LATEST)
    send_committed(broker, A0, b"kept", transactional_id="t")
    assert read(broker, A0) == [b"kept"]


def test_aborted_records_stay_aborted_after_restarts(subject: Subject) -> None:
    for value in (b"gone 1", b"gone 2"):
        producer = begun(subject.broker, "t", [(A0, value)])
        producer.abort()
        producer.close()
        send_committed(subject.broker, A0, b"kept")
        subject.reopen()
    assert read(subject.broker, A0) == [b"kept", b"kept"]
    assert len(read(subject.broker, A0, "read_uncommitted")) == 4


def test_a_transaction_whose_producer_is_gone_is_aborted_by_the_reader_who_meets_it(subject: Subject) -> None:
    if not subject.ends_lost_transactions:
        pytest.skip("its timeout ends it")
    broker = subject.broker
    producer = begun(broker, "lost", [(A0, b"gone")])
    send_committed(broker, A0, b"kept")
    assert read(broker, A0) == []
    del producer
    gc.collect()
    assert read(broker, A0) == [b"kept"]


def test_a_transaction_with_a_failed_send_cannot_commit(broker: Broker) -> None:
    producer = begun(broker, "t", [(A0, b"before")])
    with pytest.raises(RecordTooLargeError):
        producer.send(A0, records(b"x" * 1_048_588))
    with pytest.raises(CommitFailedError):
        producer.commit()
    producer.abort()
    producer.begin()
    producer.send(A0, records(b"after"))
    producer.commit()
    assert read(broker, A0) == [b"after"]
    producer.close()


def test_calls_that_make_no_sense_are_refused(broker: Broker) -> None:
    transactional, plain = broker.producer("t"), broker.producer()
    with pytest.raises(BrokerError):
        transactional.send(A0, records(b"1"))
    with pytest.raises(BrokerError):
        transactional.commit()
    with pytest.raises(BrokerError):
        transactional.flush()
    with pytest.raises(BrokerError):
        plain.begin()
    transactional.begin()
    with pytest.raises(BrokerError):
        transactional.begin()
    plain.close()
    with pytest.raises(BrokerError):
        plain.send(A0, records(b"1"))
    transactional.close()


def test_many_threads_commit_at_once_and_nothing_is_lost(broker: Broker) -> None:

    def work(name: str) -> None:
        producer = broker.producer(name)
        for index in range(10):
            producer.begin()
            for tp in (A0, A1, B0):
                producer.send(tp, records(b"%s %d" % (name.encode(), index)))
            producer.send_offsets(name, {B0: CommittedOffset(offset=index)})
            producer.abort() if index % 3 == 2 else producer.commit()
        producer.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [f"t{index}" for index in range(4)]))
    expected = [[b"t%d %d" % (thread, index) for index in range(10) if index % 3 != 2] for thread in range(4)]
    for tp in (A0, A1, B0):
        values = read(broker, tp)
        assert len(values) == 28
        for thread in range(4):
            assert [value for value in values if value.startswith(b"t%d " % thread)] == expected[thread]
    assert all(broker.group(f"t{thread}").committed()[B0].offset == 9 for thread in range(4))


# Fencing


def test_d9_an_append_of_an_older_epoch_is_fenced(broker: Broker) -> None:
    older = begun(broker, "t", [(A0, b"gone")])
    newer = broker.producer("t")
    with pytest.raises(ProducerFencedError):
        older.send(A0, records(b"late"))
    with pytest.raises(ProducerFencedError):
        older.send(A1, records(b"late"))
    assert read(broker, A0, "read_uncommitted") in ([], [b"gone"])
    assert offset_of(broker, A0, LAST_STABLE) == offset_of(broker, A0, LATEST)
    newer.close()
    older.close()


def test_d9_an_offset_commit_of_an_older_epoch_is_fenced(subject: Subject) -> None:
    broker = subject.broker
    older = begun(broker, "t", [])
    newer = broker.producer("t")
    with pytest.raises(ProducerFencedError):
        subject.fenced(lambda: older.send_offsets("g", {A0: CommittedOffset(offset=5)}), older.commit)
    assert broker.group("g").committed() == {}
    newer.close()
    older.close()


def test_d9_an_offset_commit_sent_before_the_fence_does_not_take_effect(broker: Broker) -> None:
    older = begun(broker, "t", [])
    older.send_offsets("g", {A0: CommittedOffset(offset=5)})
    newer = broker.producer("t")
    with pytest.raises(ProducerFencedError):
        older.commit()
    assert broker.group("g").committed() == {}
    newer.close()
    older.close()


def test_d9_a_fenced_producer_cannot_begin_again(subject: Subject) -> None:
    older = subject.broker.producer("t")
    newer = subject.broker.producer("t")
    with pytest.raises(ProducerFencedError):
        subject.fenced(older.begin, lambda: older.send(A0, records(b"late")))
    newer.close()
    older.close()


def test_d9_closing_a_fenced_producer_leaves_its_successor_alone(broker: Broker) -> None:
    older = begun(broker, "t", [(A0, b"gone")])
    newer = begun(broker, "t", [(A0, b"kept")])
    older.close()
    newer.send(A0, records(b"kept too"))
    newer.commit()
    assert read(broker, A0) == [b"kept", b"kept too"]
    newer.close()


def test_d9_only_the_same_transactional_id_is_fenced(broker: Broker) -> None:
    one, other = begun(broker, "one", [(A0, b"1")]), begun(broker, "other", [(A0, b"2")])
    one.commit()
    other.commit()
    assert read(broker, A0) == [b"1", b"2"]
    one.close()
    other.close()


def test_d9_fencing_ends_the_predecessors_transaction_before_the_successor_starts(broker: Broker) -> None:
    older = begun(broker, "t", [(A0, b"gone"), (A1, b"gone")])
    newer = broker.producer("t")
    send_committed(broker, A0, b"kept")
    assert read(broker, A0) == [b"kept"]
    assert read(broker, A1) == []
    newer.close()
    older.close()


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_d4_a_late_commit_never_closes_the_next_transaction(broker: Broker, end: str) -> None:
    older = begun(broker, "t", [(A0, b"lost")])
    newer = begun(broker, "t", [(A0, b"open")])
    with pytest.raises(ProducerFencedError):
        getattr(older, end)()
    assert read(broker, A0) == []
    assert offset_of(broker, A0, LAST_STABLE) < offset_of(broker, A0, LATEST) or read(
        broker, A0, "read_uncommitted"
    ) in ([], [b"lost"])
    newer.send(A0, records(b"more"))
    newer.commit()
    assert read(broker, A0) == [b"open", b"more"]
    newer.close()
    older.close()


def test_d4_the_committed_offsets_tell_the_successor_whether_a_transaction_won(broker: Broker) -> None:
    won = begun(broker, "t", [(A0, b"won")])
    won.send_offsets("g", {B0: CommittedOffset(offset=7, metadata="won")})
    won.commit()
    lost = begun(broker, "t", [(A0, b"lost")])
    lost.send_offsets("g", {B0: CommittedOffset(offset=9, metadata="lost")})
    successor = broker.producer("t")
    assert broker.group("g").committed() == {B0: CommittedOffset(offset=7, metadata="won")}
    assert read(broker, A0) == [b"won"]
    for producer in (won, lost, successor):
        producer.close()
