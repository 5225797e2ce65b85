"""A topic's `compression.type`, on the embedded broker."""

import pytest

from streamkit.broker import Broker
from streamkit.broker.open import open_broker
from streamkit.errors import RecordTooLargeError
from streamkit.log import decode, parse_header
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.seams import MemoryFileSystem

SMALL = TopicPartition("small", 0)


def send(broker: Broker, *values: bytes) -> None:
    records = EncodedRecords.to_append(timestamps_ms=[0] * len(values), keys=[None] * len(values), values=values)
    producer = broker.producer()
    try:
        producer.send(SMALL, records)
    finally:
        producer.close()


def batches(broker: Broker) -> list[bytes]:
    fetcher = broker.fetcher("read_committed")
    (fetched,) = fetcher.fetch({SMALL: 0}, wait_ms=0, bytes_max=1 << 20)
    fetcher.close()
    return list(fetched.record_batches)


@pytest.mark.parametrize("wanted", ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_a_topic_has_its_own_compression_and_keeps_it(wanted: str) -> None:
    fs, values = MemoryFileSystem(), [b"the same again"] * 50
    for count in (1, 2):
        broker = open_broker("memory://", fs=fs)
        broker.admin.create_topic("small", 1, {"compression.type": wanted})
        send(broker, *values)
        stored = batches(broker)
        assert len(stored) == count
        expected = "none" if wanted in {"producer", "uncompressed"} else wanted
        assert {parse_header(data).compression for data in stored} == {expected}
        assert decode(stored).values == values * count
        broker.close()


def test_the_limit_of_a_compressed_topic_is_that_of_its_compressed_batches() -> None:
    broker = open_broker("memory://", fs=MemoryFileSystem())
    broker.admin.create_topic("small", 1, {"compression.type": "lz4", "max.message.bytes": "2000"})
    large = b"compressible" * 1_000
    send(broker, b"before", large, b"after")
    with pytest.raises(RecordTooLargeError, match="limit of 2000"):
        send(broker, b"".join(number.to_bytes(2, "big") for number in range(2_000)))
    assert decode(batches(broker)).values == [b"before", large, b"after"]
    broker.close()
