"""What a producer makes of refusals and of silence. One broker of its own, which is paused and resumed."""

import time
from collections.abc import Iterator

import pytest
from aiokafka.protocol.admin import AlterConfigsRequest
from broker_subject import offset_of, read, records
from kafka_cluster import KafkaCluster, kafka_cluster
from kafka_subject import until

from streamkit.broker import EARLIEST, LATEST, Appended, CommittedOffset
from streamkit.broker.kafka import KafkaBroker, KafkaSettings
from streamkit.errors import (
    BrokerError,
    BrokerUnavailableError,
    CommitFailedError,
    RecordTooLargeError,
    StreamkitError,
    UnknownTopicError,
)
from streamkit.records import TopicPartition

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

TIMEOUT_MS = 3000
"""How long `hurried` waits for a broker; others are patient, since one that answers may be slow."""
PATIENCE_MS = 60_000
ENDS_SECONDS = 25.0
"""Within which a hurried call has ended; a patient one would not have."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with kafka_cluster(settings={"auto.create.topics.enable": "true"}) as started:
        # The topics that Kafka keeps for itself are made when they are first needed, which takes seconds.
        broker = KafkaBroker(KafkaSettings(bootstrap=started.bootstrap))
        broker.admin.create_topic("first", 1)
        producer = broker.producer("first")
        producer.begin()
        producer.send(TopicPartition("first", 0), records(b"1"))
        producer.send_offsets("first", {TopicPartition("first", 0): CommittedOffset(offset=0)})
        producer.commit()
        broker.close()
        yield started


@pytest.fixture
def broker(cluster: KafkaCluster) -> Iterator[KafkaBroker]:
    opened = KafkaBroker(KafkaSettings(bootstrap=cluster.bootstrap))
    yield opened
    opened.close()


@pytest.fixture
def hurried(cluster: KafkaCluster) -> Iterator[KafkaBroker]:
    """A broker that gives up soon."""
    opened = KafkaBroker(KafkaSettings(bootstrap=cluster.bootstrap, request_timeout_ms=TIMEOUT_MS))
    yield opened
    opened.close()


@pytest.fixture
def tp(request: pytest.FixtureRequest, broker: KafkaBroker) -> TopicPartition:
    """A partition of a topic that no other test has."""
    name = request.node.name[:200]
    broker.admin.create_topic(name, 2)
    return TopicPartition(name, 0)


def refuse_from_now_on(broker: KafkaBroker, tp: TopicPartition) -> None:
    """Lower the topic's limit behind the back of a producer that has looked it up; return when it is in force."""
    other = KafkaBroker(broker._cluster.settings)
    probe, beside = other.producer(), TopicPartition(tp.topic, 1)
    probe.send(beside, records(b"x" * 5000))
    probe.flush()
    cluster = broker._cluster
    request = AlterConfigsRequest([(2, tp.topic, [("max.message.bytes", "1000")])], False)
    response = broker._thread.run(cluster.send(cluster.any_node(), request), PATIENCE_MS)
    assert response.resources[0][0] == 0

    def refused() -> bool:
        try:
            probe.send(beside, records(b"x" * 5000))
            probe.flush()
        except (BrokerError, RecordTooLargeError):
            return True
        return False

    until(refused)
    other.close()


def test_d3_a_transaction_with_a_refused_record_commits_neither_records_nor_offsets(
    broker: KafkaBroker, tp: TopicPartition
) -> None:
    producer = broker.producer(tp.topic)
    producer.begin()
    producer.send(tp, records(b"first"))
    until(lambda: offset_of(broker, tp, LATEST) == 1)
    refuse_from_now_on(broker, tp)
    producer.send(tp, records(b"x" * 5000))
    producer.send_offsets(tp.topic, {tp: CommittedOffset(offset=1)})
    with pytest.raises(CommitFailedError, match="a send of this transaction failed"):
        producer.commit()
    producer.abort()
    assert broker.group(tp.topic).committed() == {}
    assert read(broker, tp) == []
    producer.close()


def test_after_a_refused_record_the_next_transaction_goes_on_without_a_gap(
    broker: KafkaBroker, tp: TopicPartition
) -> None:
    producer = broker.producer(tp.topic)
    producer.begin()
    producer.send(tp, records(b"gone"))
    until(lambda: offset_of(broker, tp, LATEST) == 1)
    refuse_from_now_on(broker, tp)
    for value in (b"x" * 5000, b"behind it"):
        producer.send(tp, records(value))
    with pytest.raises(CommitFailedError):
        producer.commit()
    producer.abort()
    for value in (b"1", b"2"):
        producer.begin()
        producer.send(tp, records(value))
        producer.commit()
    producer.close()
    until(lambda: read(broker, tp) == [b"1", b"2"])


def test_a_limit_that_is_known_is_kept_before_anything_is_sent(broker: KafkaBroker, tp: TopicPartition) -> None:
    refuse_from_now_on(broker, tp)
    broker._thread.run(broker._cluster.refresh([tp.topic]), PATIENCE_MS)
    producer = broker.producer()
    with pytest.raises(RecordTooLargeError):
        producer.send(tp, records(b"x" * 5000))
    producer.send(tp, records(b"next"))
    producer.close()
    assert read(broker, tp) == [b"next"]


def test_d4_a_commit_without_an_answer_ends_the_producer_and_its_successor_learns_the_outcome(
    cluster: KafkaCluster, broker: KafkaBroker, hurried: KafkaBroker, tp: TopicPartition
) -> None:
    producer = hurried.producer(tp.topic)
    producer.begin()
    producer.send(tp, records(b"1"))
    until(lambda: offset_of(broker, tp, LATEST) == 1)
    cluster.pause(0)
    try:
        with pytest.raises(CommitFailedError, match="outcome"):
            producer.commit()
    finally:
        cluster.resume(0)
    for call in (producer.commit, producer.abort, producer.begin):
        with pytest.raises(CommitFailedError):
            call()
    producer.close()
    successor = broker.producer(tp.topic)
    assert read(broker, tp) in ([b"1"], [])
    before = read(broker, tp)
    successor.begin()
    successor.send(tp, records(b"2"))
    successor.commit()
    until(lambda: read(broker, tp) == [*before, b"2"])
    successor.close()


def test_d5_every_call_ends_while_the_broker_is_silent(
    cluster: KafkaCluster, hurried: KafkaBroker, tp: TopicPartition
) -> None:
    producer, plain, fetcher = hurried.producer(tp.topic), hurried.producer(), hurried.fetcher()
    producer.begin()
    producer.send(tp, records(b"1"))
    until(lambda: offset_of(hurried, tp, LATEST) == 1)
    cluster.pause(0)
    try:
        plain.send(tp, records(b"2"))
        calls = [
            plain.flush,
            lambda: fetcher.fetch({tp: 0}, wait_ms=0, bytes_max=1000),
            lambda: hurried.admin.list_offsets({tp: EARLIEST}),
            hurried.group(tp.topic).committed,
            hurried.admin.describe_topics,
            lambda: hurried.producer("another"),
        ]
        for call in calls:
            began = time.monotonic()
            with pytest.raises(BrokerUnavailableError):
                call()
            assert time.monotonic() - began < ENDS_SECONDS
        began = time.monotonic()
        producer.close()
        hurried.close()
        assert time.monotonic() - began < ENDS_SECONDS
    finally:
        cluster.resume(0)


def test_a_plain_producer_outlives_a_silence_and_its_records_are_there_once(
    cluster: KafkaCluster, broker: KafkaBroker, hurried: KafkaBroker, tp: TopicPartition
) -> None:
    producer = hurried.producer()
    producer.send(tp, records(b"1"))
    producer.flush()
    cluster.pause(0)
    try:
        producer.send(tp, records(b"2"))
        for value in (b"3", b"4"):
            with pytest.raises(BrokerUnavailableError):
                producer.flush()
            producer.send(tp, records(value))
    finally:
        cluster.resume(0)
    appended: dict[TopicPartition, Appended] = {}

    def flushed() -> bool:
        try:
            appended.update(producer.flush())
        except BrokerUnavailableError:  # not yet awake
            return False
        return True

    until(flushed)
    assert (appended[tp].base_offset, appended[tp].last_offset) == (1, 3)
    producer.close()
    assert read(broker, tp) == [b"1", b"2", b"3", b"4"]


def test_looking_for_a_topic_does_not_make_it(broker: KafkaBroker) -> None:
    missing = TopicPartition("never-made", 0)
    producer = broker.producer()
    for call in (
        lambda: producer.send(missing, records(b"1")),
        lambda: broker.fetcher().fetch({missing: 0}, wait_ms=0, bytes_max=1000),
        lambda: broker.admin.list_offsets({missing: LATEST}),
        lambda: broker.group("g").commit({missing: CommittedOffset(offset=0)}),
    ):
        with pytest.raises(UnknownTopicError):
            call()
    producer.close()
    assert "never-made" not in broker.admin.describe_topics()


def test_an_address_where_nobody_answers_is_said_to_be_one(cluster: KafkaCluster) -> None:
    with pytest.raises(BrokerUnavailableError, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        KafkaBroker(KafkaSettings(bootstrap="127.0.0.1:1", request_timeout_ms=TIMEOUT_MS))


def test_a_closed_broker_refuses_calls(broker: KafkaBroker, tp: TopicPartition) -> None:
    producer = broker.producer(tp.topic)
    broker.close()
    broker.close()
    for call in (producer.begin, broker.admin.describe_topics, broker.group("g").committed, broker.producer):
        with pytest.raises(StreamkitError, match="closed"):
            call()
