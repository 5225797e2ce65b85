"""Partition counts that do not fit, or that someone changed while a job was stopped: said at start, on a real Kafka."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from workers import send, until, worker

from streamkit import Job
from streamkit.broker import Broker, CommittedOffset, open_broker
from streamkit.errors import TopologyError
from streamkit.records import TopicPartition
from streamkit.runtime.position import Note

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def broker(kafka: str) -> Iterator[Broker]:
    with contextlib.closing(open_broker(f"kafka://{kafka}")) as opened:
        yield opened


@pytest.fixture
def prefix() -> str:
    return f"counts{uuid.uuid4().hex[:8]}_"


def by_key(prefix: str) -> Job:
    job = Job(f"{prefix}job")
    job.stream(f"{prefix}one", key=str, value=str).group_by_key().count(name="counts").to(f"{prefix}out")
    return job


def shuffled(prefix: str) -> Job:
    job = Job(f"{prefix}job")
    words = job.stream(f"{prefix}one", value=str).group_by(str, name="by_word", shards=1)
    words.count(name="counts").to(f"{prefix}out")
    return job


def merged_by_key(prefix: str) -> Job:
    job = Job(f"{prefix}job")
    one, two = (job.stream(f"{prefix}{name}", key=str, value=str) for name in ("one", "two"))
    one.merge(two).group_by_key().count(name="counts").to(f"{prefix}out")
    return job


def make(broker: Broker, topic: str, partition_count: int) -> None:
    broker.admin.create_topic(topic, partition_count)
    producer = broker.producer()
    for number in range(10):
        send(producer, TopicPartition(topic, number % partition_count), b"%d" % number, b"a")
    producer.flush()
    producer.close()


def run(broker: Broker, job: Job) -> None:
    worker(job, broker, bounded=True).run(threading.Event())


def settled_offsets(broker: Broker, prefix: str) -> object:
    """Return the committed offsets once the last commits of the run are among them, a little after it has ended."""
    group = broker.group(f"{prefix}job")
    seen: dict[TopicPartition, CommittedOffset] = {}

    def ended() -> bool:
        seen.update(group.committed())
        return bool(seen) and all(Note.from_text(one.metadata).ended_run == 1 for one in seen.values())

    until(ended)
    return seen


def set_partition_count(kafka: str, broker: Broker, topic: str, count: int) -> None:
    """Add partitions as an administrator does."""

    async def add() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            await admin.create_partitions({topic: NewPartitions(count)})
        finally:
            await admin.close()

    asyncio.run(add())
    until(lambda: broker.admin.describe_topics()[topic].partition_count == count)


@pytest.mark.parametrize("build", [by_key, shuffled])
def test_a_source_that_got_partitions_is_refused_and_named(
    build: object, kafka: str, broker: Broker, prefix: str
) -> None:
    make(broker, f"{prefix}one", 2)
    run(broker, build(prefix))
    before = settled_offsets(broker, prefix)
    set_partition_count(kafka, broker, f"{prefix}one", 3)
    with pytest.raises(
        TopologyError, match=f"'{prefix}one' had 2 partitions when the job first ran, now it has 3"
    ) as caught:
        run(broker, build(prefix))
    assert "give the job a new name" in str(caught.value)
    assert broker.group(f"{prefix}job").committed() == before


def test_an_internal_topic_that_got_partitions_is_refused_and_named(kafka: str, broker: Broker, prefix: str) -> None:
    make(broker, f"{prefix}one", 2)
    run(broker, by_key(prefix))
    set_partition_count(kafka, broker, f"{prefix}job-counts-changelog", 4)
    with pytest.raises(TopologyError, match="has 4 partitions, the job now needs 2") as caught:
        run(broker, by_key(prefix))
    assert f"'{prefix}one' has 2 partitions" in str(caught.value)


def test_sources_that_were_co_partitioned_and_no_longer_are_name_both_topics_and_counts(
    kafka: str, broker: Broker, prefix: str
) -> None:
    make(broker, f"{prefix}one", 2)
    make(broker, f"{prefix}two", 2)
    run(broker, merged_by_key(prefix))
    set_partition_count(kafka, broker, f"{prefix}two", 3)
    said = f"'{prefix}one' has 2 partitions and '{prefix}two' has 3, but one store is fed by both"
    with pytest.raises(TopologyError, match=said) as caught:
        run(broker, merged_by_key(prefix))
    assert "give both topics the same partition count" in str(caught.value)
