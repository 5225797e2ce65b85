"""Kafka's own clients read what we write, we read what they write, and a key has one partition for both."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ROOT, done
from copying import Row, encoded, rows_of
from kafka_clients import console_consumer, console_producer, keyed_lines, verifiable_producer
from kafka_subject import end_of, until

from streamkit.broker import LAST_STABLE, Broker, open_broker
from streamkit.broker.connection import KafkaConnection
from streamkit.broker.partitioner import partition_of
from streamkit.log import Compression, parse_header
from streamkit.records import EncodedRecords, TopicPartition

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.process]

SEED = 20_261_125
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
names = (f"interoperation-{number}" for number in itertools.count())


@pytest.fixture
def broker(kafka: str) -> Iterator[Broker]:
    opened = open_broker(f"kafka://{kafka}")
    yield opened
    opened.close()


@pytest.fixture
def topic(broker: Broker) -> Iterator[str]:
    """A topic of three partitions, gone afterwards."""
    name = next(names)
    broker.admin.create_topic(name, 3)
    yield name
    broker.admin.delete_topic(name)


@pytest.mark.parametrize("codec", CODECS)
def test_what_a_console_producer_wrote_is_read_with_keys_headers_and_nulls(
    codec: str, broker: Broker, kafka: str, topic: str
) -> None:
    lines = ["first:1,second:2\tred|apple", "first:ü\tred|NULL", "only:\tred|", "a:b\tNULL|nobody's"]
    keyed_lines(kafka, topic, lines, "--compression-codec", codec)
    partitions = rows_of(broker, topic)
    red = partitions[partition_of(b"red", 3)]
    found = [(row.key, row.value, row.headers) for row in red if row.key is not None]
    assert found == [
        (b"red", b"apple", (("first", b"1"), ("second", b"2"))),
        (b"red", None, (("first", "ü".encode()),)),
        (b"red", b"", (("only", b""),)),
    ]
    assert [row.value for rows in partitions for row in rows if row.key is None] == [b"nobody's"]
    assert min(row.timestamp_ms for rows in partitions for row in rows) > 1_500_000_000_000


@pytest.mark.parametrize("codec", CODECS)
def test_batches_are_compressed_as_the_connection_says(codec: Compression, kafka: str, topic: str) -> None:
    """By the batches' own attributes, which Kafka keeps as they came, and by what its consumer makes of them."""
    place, values = TopicPartition(topic, 0), [b"%06d" % number * 10 for number in range(2000)]
    broker = open_broker(f"kafka://{kafka}", connection=KafkaConnection(compression_type=codec))
    try:
        producer = broker.producer(topic)
        producer.begin()
        producer.send(place, EncodedRecords.to_append(timestamps_ms=[1] * 2000, keys=[None] * 2000, values=values))
        producer.commit()
        until(lambda: broker.admin.list_offsets({place: LAST_STABLE})[place] >= 2000)
        (fetched,) = broker.fetcher().fetch({place: 0}, wait_ms=5000, bytes_max=2**20)
    finally:
        broker.close()
    assert {parse_header(batch).compression for batch in fetched.record_batches} == {codec}
    smaller = sum(map(len, fetched.record_batches)) < sum(map(len, values)) / 2
    assert smaller == (codec != "none")
    assert console_consumer(kafka, topic) == [value.decode() for value in values]


def test_what_a_verifiable_producer_wrote_is_at_the_offsets_that_it_was_told(
    broker: Broker, kafka: str, topic: str
) -> None:
    told = verifiable_producer(kafka, topic, 2_000)
    partitions = rows_of(broker, topic)
    assert sum(map(len, partitions)) == len(told) == 2_000
    for one in told:
        row = partitions[one["partition"]][one["offset"]]
        assert (row.key, row.value) == (one["key"].encode(), one["value"].encode())


def test_a_console_consumer_reads_what_we_committed_and_nothing_that_we_aborted(
    broker: Broker, kafka: str, topic: str
) -> None:
    place = TopicPartition(topic, 1)
    plain = broker.producer()
    first = [Row(5, b"k1", b"plain", (("h", b"x"), ("i", None))), Row(7, None, b"no key")]
    plain.send(place, encoded(first))
    plain.flush()
    task = broker.producer(f"{topic}-task")
    task.begin()
    task.send(place, encoded([Row(9, b"k2", b"committed"), Row(9, b"k3", None)]))
    task.commit()
    task.begin()
    task.send(place, encoded([Row(10, b"k4", b"aborted")]))
    until(lambda: end_of(broker, place) >= 6)  # else there is nothing to abort
    task.abort()
    task.begin()
    task.send(place, encoded([Row(11, b"k5", b"committed later")]))
    task.commit()
    shown = ("timestamp", "partition", "offset", "headers", "key")
    options = [part for one in shown for part in ("--formatter-property", f"print.{one}=true")]
    lines = console_consumer(kafka, topic, *options, "--formatter-property", "null.literal=NULL")
    fields = [line.replace("Partition:", "").replace("Offset:", "").split("\t") for line in lines]
    assert [(time, where, headers, key, value) for time, where, _, headers, key, value in fields] == [
        ("CreateTime:5", "1", "h:x,i:NULL", "k1", "plain"),
        ("CreateTime:7", "1", "NO_HEADERS", "NULL", "no key"),
        ("CreateTime:9", "1", "NO_HEADERS", "k2", "committed"),
        ("CreateTime:9", "1", "NO_HEADERS", "k3", "NULL"),
        ("CreateTime:11", "1", "NO_HEADERS", "k5", "committed later"),
    ]
    # A marker takes an offset, and so does an aborted record.
    assert [int(offset) for _, _, offset, *_ in fields] == [0, 1, 2, 3, 7]
    task.close()


def test_a_producer_in_java_puts_each_key_into_the_partition_that_we_compute(broker: Broker, kafka: str) -> None:
    rng, name, count = random.Random(SEED), next(names), 17
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789-_äß€中😀"
    keys = sorted({"".join(rng.choices(alphabet, k=rng.randint(1, 40))) for _ in range(3_000)})
    broker.admin.create_topic(name, count)
    separated = ("--reader-property", "parse.key=true", "--reader-property", "key.separator=|")
    console_producer(kafka, name, [f"{key}|{key}" for key in keys], *separated)
    found = {row.key: partition for partition, rows in enumerate(rows_of(broker, name)) for row in rows}
    broker.admin.delete_topic(name)
    assert found == {key.encode(): partition_of(key.encode(), count) for key in keys}
    assert set(found.values()) == set(range(count))


def test_a_job_reads_what_java_wrote_and_java_reads_what_it_made(
    broker: Broker, kafka: str, topic: str, tmp_path: Path
) -> None:
    source = (ROOT / "jobs" / "word_count.py").read_text(encoding="utf-8")
    for name in ("word_counts", "word_count", "lines"):
        source = source.replace(f'"{name}"', f'"{topic}-{name}"')
    (tmp_path / "job.py").write_text(source, encoding="utf-8")
    place = ("--broker", f"kafka://{kafka}")
    done("topics", "create", f"{topic}-lines", "--partitions", "2", *place, cwd=tmp_path)
    console_producer(kafka, f"{topic}-lines", ["to be or", "not to be"])
    done("run", "job.py", "--bounded", *place, "--state-dir", "state", cwd=tmp_path)
    lines = console_consumer(kafka, f"{topic}-word_counts", "--formatter-property", "print.key=true")
    assert sorted(lines) == ["be\t2", "not\t1", "or\t1", "to\t2"]
