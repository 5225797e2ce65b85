"""Topics go from a directory into a real Kafka and back, and a copying killed on the way goes on."""

import contextlib
import itertools
import random
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from command_line import COMMAND, done, environment
from copying import Row, append, encoded, rows_of, source_log, target_log
from kafka_clients import keyed_lines
from kafka_subject import end_of, stable, until

from streamkit.broker import Broker, open_broker
from streamkit.broker.copy import CopyLimits, copy_topic
from streamkit.errors import ConfigError, ProducerFencedError, SerializationError
from streamkit.records import TopicPartition
from streamkit.seams import ManualClock

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 20_261_125
KILLS = 4
ATTEMPTS_MAX = 20
names = (f"copied-{number}" for number in itertools.count())


@pytest.fixture
def cluster(kafka: str) -> Iterator[Broker]:
    opened = open_broker(f"kafka://{kafka}")
    yield opened
    opened.close()


@pytest.fixture
def topic(cluster: Broker) -> Iterator[str]:
    """A name that no other test has; gone afterwards."""
    name = next(names)
    yield name
    if name in cluster.admin.describe_topics():
        cluster.admin.delete_topic(name)


def copied(source: Broker, target: Broker, topic: str, limits: CopyLimits | None = None) -> int:
    return copy_topic(source, target, topic, clock=ManualClock(), limits=limits or CopyLimits()).record_count


def settled(cluster: Broker, topic: str) -> list[list[Row]]:
    """Return what is committed once the markers, which Kafka writes a moment after it answered, are there."""
    count = cluster.admin.describe_topics()[topic].partition_count
    until(lambda: stable(cluster, [TopicPartition(topic, index) for index in range(count)]))
    return rows_of(cluster, topic)


def test_a_topic_goes_into_kafka_and_comes_back_as_it_was(cluster: Broker, topic: str) -> None:
    source = source_log()
    source.admin.create_topic(topic, 2, {"segment.bytes": "2000000"})
    rows = [Row(5, b"a", b"1", (("h", b"x"), ("h", None))), Row(-1, None, b""), Row(3, b"", None)]
    append(source, TopicPartition(topic, 0), rows)
    aborted = source.producer("aborted")
    aborted.begin()
    aborted.send(TopicPartition(topic, 1), encoded(rows))
    aborted.abort()
    append(source, TopicPartition(topic, 1), rows[::-1] * 50)
    expected = rows_of(source, topic)
    assert copied(source, cluster, topic, CopyLimits(fetch_bytes=1, commit_bytes=1_000)) == 153
    assert settled(cluster, topic) == expected
    assert cluster.admin.describe_topics()[topic].config == {"segment.bytes": "2000000", "retention.ms": "-1"}
    back = target_log()
    assert copied(cluster, back, topic) == 153
    assert rows_of(back, topic) == expected
    assert copied(source, cluster, topic) == copied(cluster, back, topic) == 0


def test_what_java_wrote_in_kafka_and_what_was_aborted_there_comes_out_right(
    cluster: Broker, topic: str, kafka: str
) -> None:
    cluster.admin.create_topic(topic, 1)
    place = TopicPartition(topic, 0)
    keyed_lines(kafka, topic, ["a:b\tk|1", "a:b\tNULL|2"], "--compression-codec", "gzip")
    task = cluster.producer(f"{topic}-task")
    task.begin()
    task.send(place, encoded([Row(1, b"k", b"aborted")]))
    until(lambda: end_of(cluster, place) == 3)
    task.abort()
    task.close()
    keyed_lines(kafka, topic, ["c:d\tk|NULL"])
    log = target_log()
    assert copied(cluster, log, topic) == 3
    found = [(row.key, row.value, row.headers) for row in rows_of(log, topic)[0]]
    assert found == [(b"k", b"1", (("a", b"b"),)), (None, b"2", (("a", b"b"),)), (b"k", None, (("c", b"d"),))]


def test_a_record_over_kafkas_limit_is_named(cluster: Broker, topic: str) -> None:
    source = source_log()
    source.admin.create_topic(topic, 1)
    append(source, TopicPartition(topic, 0), [Row(1, None, b"small"), Row(2, None, b"x" * 2_000)])
    cluster.admin.create_topic(topic, 1, {"max.message.bytes": "1000"})
    with pytest.raises(SerializationError, match=r"max\.message\.bytes of 1000") as raised:
        copied(source, cluster, topic, CopyLimits(fetch_bytes=1, commit_bytes=1))
    assert (raised.value.topic, raised.value.partition, raised.value.offset) == (topic, 0, 1)
    assert [row.value for row in settled(cluster, topic)[0]] == [b"small"]


def test_a_partition_count_that_differs_in_kafka_is_refused(cluster: Broker, topic: str) -> None:
    source = source_log()
    source.admin.create_topic(topic, 2)
    cluster.admin.create_topic(topic, 3)
    with pytest.raises(ConfigError, match="2 partitions in the source and 3 in the target"):
        copied(source, cluster, topic)


def test_a_config_that_kafka_does_not_take_names_the_way_out(cluster: Broker, topic: str) -> None:
    source = source_log()
    source.admin.create_topic(topic, 2, {"segment.bytes": "1000"})
    with pytest.raises(ConfigError, match="could not be created") as raised:
        copied(source, cluster, topic)
    assert "Value must be at least" in raised.value.detail
    assert f"create {topic} in the target with 2 partitions" in raised.value.hint
    cluster.admin.create_topic(topic, 2)
    assert copied(source, cluster, topic) == 0


def test_a_second_copying_into_kafka_fences_the_first(cluster: Broker, topic: str) -> None:
    source = source_log()
    source.admin.create_topic(topic, 1)
    rows = [Row(number, None, str(number).encode()) for number in range(4)]
    append(source, TopicPartition(topic, 0), rows)
    begun: list[int] = []

    def tell(_: object) -> None:
        if not begun:
            begun.append(copied(source, cluster, topic))

    limits = CopyLimits(fetch_bytes=1, commit_bytes=1)
    with pytest.raises(ProducerFencedError):
        copy_topic(source, cluster, topic, clock=ManualClock(), told=tell, limits=limits)
    assert begun == [3]
    assert settled(cluster, topic) == [rows]


def fill(directory: Path, topic: str) -> None:
    """Append 36,000 records to a topic of a log, which is made if need be."""
    with contextlib.closing(open_broker(f"log://{directory / 'here'}")) as source:
        source.admin.create_topic(topic, 3)
        for number in range(36):
            ids = range(number * 1_000, (number + 1) * 1_000)
            producer = source.producer()
            rows = [Row(index, b"%d" % index, b"%d %s" % (index, b"x" * 2_500)) for index in ids]
            producer.send(TopicPartition(topic, number % 3), encoded(rows))
            producer.flush()
            producer.close()


@pytest.mark.process
def test_a_copy_into_kafka_that_is_killed_again_and_again_ends_equal(
    cluster: Broker, topic: str, kafka: str, tmp_path: Path
) -> None:
    fill(tmp_path, topic)
    arguments = ("topics", "copy", topic, "--from", "log://here", "--to", f"kafka://{kafka}", "--json")
    rng, killed_midway = random.Random(SEED), 0
    for _ in range(ATTEMPTS_MAX):
        process = subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        select.select([process.stdout], [], [], rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL and orjson.loads(line)["remaining"] > 0:
            killed_midway += 1
        else:  # it came to its end before it was killed, and has nothing left to copy
            fill(tmp_path, topic)
        if killed_midway == KILLS:
            break
    assert killed_midway == KILLS, f"of {ATTEMPTS_MAX} attempts"
    printed = done(*arguments, cwd=tmp_path)
    assert orjson.loads(printed.splitlines()[-1])["remaining"] == 0
    with contextlib.closing(open_broker(f"log://{tmp_path / 'here'}")) as source:
        expected = rows_of(source, topic)
    assert settled(cluster, topic) == expected
