"""A producer without transactions of which Kafka has lost count: it is thrown away, and no output is lost with it."""

import collections
import uuid
from collections.abc import Iterator
from typing import cast

import pytest
from broker_subject import read as values_of
from broker_subject import records
from workers import read, running, send, until, worker

from streamkit import Job
from streamkit.broker import Broker, Producer
from streamkit.broker.kafka import KafkaBroker, KafkaSettings
from streamkit.broker.kafka.producer import KafkaProducer
from streamkit.errors import CommitFailedError
from streamkit.records import TopicPartition

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

COUNT = 300


@pytest.fixture
def broker(kafka: str) -> Iterator[KafkaBroker]:
    opened = KafkaBroker(KafkaSettings(bootstrap=kafka))
    yield opened
    opened.close()


@pytest.fixture
def name() -> str:
    return f"lost-{uuid.uuid4().hex[:8]}"


def lose_count(producer: KafkaProducer) -> None:
    """Leave a gap in the sequence numbers, as if the log had lost the records before it."""
    for tp in producer._sequences:
        producer._sequences[tp] += 5


class Kept:
    """A broker that keeps hold of the producers without transactions."""

    def __init__(self, broker: KafkaBroker) -> None:
        self.admin, self.fetcher, self.group, self.join = broker.admin, broker.fetcher, broker.group, broker.join
        self._broker, self.plain = broker, list[KafkaProducer]()

    def producer(self, transactional_id: str | None = None) -> Producer:
        producer = self._broker.producer(transactional_id)
        if transactional_id is None:
            self.plain.append(cast(KafkaProducer, producer))
        return producer


def test_a_producer_of_which_kafka_lost_count_ends_and_another_goes_on(broker: KafkaBroker, name: str) -> None:
    tp = TopicPartition(name, 0)
    broker.admin.create_topic(name, 1)
    producer = cast(KafkaProducer, broker.producer())
    producer.send(tp, records(b"1"))
    producer.flush()
    lose_count(producer)
    producer.send(tp, records(b"2"))
    for _ in range(2):
        with pytest.raises(CommitFailedError, match="were not appended"):
            producer.flush()
    producer.close()
    another = broker.producer()
    another.send(tp, records(b"2"))
    another.close()
    assert values_of(broker, tp) == [b"1", b"2"]


def test_a_job_at_least_once_loses_no_output_with_its_producer(broker: KafkaBroker, name: str) -> None:
    """The task is opened again with another producer; what it had sent and not committed may come twice."""
    job = Job(name)
    job.stream(f"{name}-in", value=str).to(f"{name}-out")
    broker.admin.create_topic(f"{name}-in", 1)
    producer = broker.producer()
    sent = [b"%d" % number for number in range(COUNT)]
    for value in sent:
        send(producer, TopicPartition(f"{name}-in", 0), None, value)
    producer.close()
    kept, steps = Kept(broker), collections.Counter[str]()

    def observe(step: str) -> None:
        steps[step] += 1
        if step == "done" and steps[step] == 2:
            lose_count(kept.plain[-1])

    one = worker(
        job, cast(Broker, kept), observe=observe, guarantee="at-least-once", bounded=True, commit_bytes_max=2000
    )
    with running(one) as (_, ended):
        until(lambda: bool(ended))
    assert not isinstance(ended[0], Exception), ended[0]
    assert steps["opened"] == len(kept.plain) == 2
    got = [value for _, value, _ in read(broker, f"{name}-out")]
    assert set(got) == set(sent)
