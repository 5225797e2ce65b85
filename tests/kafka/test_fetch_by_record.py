"""An aiokafka whose inside is another: it is fetched from the slow way, and that is said."""

import uuid

import pytest
from aiokafka.protocol import fetch

from streamkit.broker.kafka import KafkaBroker, KafkaSettings
from streamkit.log import decode
from streamkit.records import EncodedRecords, TopicPartition

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_a_broker_says_once_that_it_must_fetch_record_by_record(
    kafka: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Names are of no account to aiokafka's own consumer, which goes on with them."""
    schema = fetch.FetchRequest._CLASSES[-1].RESPONSE_TYPE.SCHEMA
    topics = schema.fields[schema.names.index("topics")].array_of
    partitions = topics.fields[topics.names.index("partitions")].array_of
    monkeypatch.setattr(partitions, "names", ("number", *partitions.names[1:]))
    topic = f"slow-{uuid.uuid4().hex[:8]}"
    place = TopicPartition(topic, 0)
    broker = KafkaBroker(KafkaSettings(bootstrap=kafka))
    try:
        broker.admin.create_topic(topic, 1)
        producer = broker.producer()
        producer.send(place, EncodedRecords.to_append(timestamps_ms=[1], keys=[None], values=[b"one"]))
        producer.flush()
        assert caplog.text == ""
        for _ in range(2):
            (fetched,) = broker.fetcher().fetch({place: 0}, wait_ms=5000, bytes_max=1024)
            assert list(decode(fetched.record_batches).values) == [b"one"]
        (warning,) = caplog.messages
        broker.admin.delete_topic(topic)
    finally:
        broker.close()
    assert "one by one" in warning
    assert "has number, error_code" in warning
    assert "install the aiokafka" in warning
