"""A broker under test that can be closed and opened again, and the short ways to send to it and read it."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from kafka_subject import Names, PromptKafka

from streamkit.broker import Broker, Isolation, Producer
from streamkit.broker.kafka import KafkaBroker, KafkaSettings
from streamkit.broker.open import open_broker
from streamkit.log.codec import decode
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.seams import MemoryFileSystem

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
BYTES_MAX = 1 << 20
REAL = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]
SUBJECTS = ["log://DIR", "log://DIR?durability=os", "memory://", pytest.param("kafka", marks=REAL)]
FETCHED_EITHER_WAY = pytest.mark.parametrize(
    "subject", [*SUBJECTS, pytest.param("kafka by record", marks=REAL)], indirect=True
)
"""For what a fetcher returns: Kafka has two of them."""


class Subject:
    """A broker that can be closed and opened again on what it kept.

    `fences_at_once` and the other two are what the embedded log promises and Kafka does not.
    """

    def __init__(self, url: str, names: Names | None = None, *, by_record: bool = False) -> None:
        self._url, self._names, self._by_record = url, names, by_record
        self._fs = MemoryFileSystem() if url.startswith("memory") else None
        self.broker = self._opened()
        self.fences_at_once = self.hides_until_flushed = self.ends_lost_transactions = names is None

    def reopen(self) -> Broker:
        self.broker.close()
        self.broker = self._opened()
        if isinstance(self.broker, PromptKafka):
            self.broker.settle()
        return self.broker

    def now_and_reopened(self) -> Iterator[Broker]:
        yield self.broker
        yield self.reopen()

    def fenced(self, call: Callable[[], object], later: Callable[[], object]) -> None:
        """Make a call that a fence refuses, and where it may go unnoticed the one that cannot be unaware of it."""
        call()
        assert not self.fences_at_once
        later()

    def _opened(self) -> Broker:
        if self._names is None:
            return open_broker(self._url, fs=self._fs)
        if self._by_record:
            settings = KafkaSettings(bootstrap=self._url.removeprefix("kafka://"))
            return PromptKafka(KafkaBroker(settings, by_record=True), self._names)
        return PromptKafka(open_broker(self._url), self._names)


def records(*values: bytes, timestamp_ms: int = 1000) -> EncodedRecords:
    return EncodedRecords.to_append(
        timestamps_ms=[timestamp_ms + index for index in range(len(values))],
        keys=[None] * len(values),
        values=list(values),
    )


def read(broker: Broker, tp: TopicPartition, isolation: Isolation = "read_committed", at: int = 0) -> list[bytes]:
    """Return the values from `at` to what the isolation level may see now."""
    fetcher, values = broker.fetcher(isolation), []
    while fetched := fetcher.fetch({tp: at}, wait_ms=0, bytes_max=BYTES_MAX):
        (one,) = fetched
        if one.record_batches:
            values += [value for value in decode(one.record_batches, from_offset=at).values if value is not None]
        at = one.next_offset
    fetcher.close()
    return values


def send_committed(broker: Broker, tp: TopicPartition, *values: bytes, transactional_id: str = "setup") -> None:
    producer = broker.producer(transactional_id)
    producer.begin()
    producer.send(tp, records(*values))
    producer.commit()
    producer.close()


def begun(broker: Broker, transactional_id: str, sent: Sequence[tuple[TopicPartition, bytes]]) -> Producer:
    """Return a producer with an open transaction that holds these records."""
    producer = broker.producer(transactional_id)
    producer.begin()
    for tp, value in sent:
        producer.send(tp, records(value))
    return producer


def offset_of(broker: Broker, tp: TopicPartition, spec: int) -> int:
    return broker.admin.list_offsets({tp: spec})[tp]
