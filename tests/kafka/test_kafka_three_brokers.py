"""Several leaders: requests that wait at some while another has news, and a leader that is killed. Three brokers."""

import threading
import time
from collections.abc import Iterator

import pytest
from broker_subject import offset_of, read, records
from kafka_cluster import KafkaCluster, kafka_cluster
from kafka_subject import until

from streamkit import Job
from streamkit.broker import LATEST, CommittedOffset, open_broker
from streamkit.broker.connection import KafkaConnection
from streamkit.broker.kafka import KafkaBroker, KafkaSettings
from streamkit.errors import CommitFailedError
from streamkit.log.codec import decode
from streamkit.records import TopicPartition
from streamkit.runtime import RunOptions
from streamkit.runtime.setup import prepare
from streamkit.runtime.task_plan import unchecked
from streamkit.topology import compile_graph

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

BYTES_MAX = 1 << 20
PATIENCE_MS = 60_000
PARTITIONS = [TopicPartition("spread", index) for index in range(3)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with kafka_cluster(broker_count=3) as started:
        broker = KafkaBroker(KafkaSettings(bootstrap=started.bootstrap))
        broker.admin.create_topic("spread", 3)
        broker.close()
        yield started


@pytest.fixture
def broker(cluster: KafkaCluster) -> Iterator[KafkaBroker]:
    opened = KafkaBroker(KafkaSettings(bootstrap=cluster.bootstrap))
    yield opened
    opened.close()


def leader_of(broker: KafkaBroker, tp: TopicPartition) -> int:
    broker._cluster.forget([tp.topic])
    broker._thread.run(broker._cluster.learn([tp]), PATIENCE_MS)
    known = broker._cluster.known(tp)
    assert known is not None
    return known.leaders[tp.partition]


def append(broker: KafkaBroker, tp: TopicPartition, value: bytes) -> None:
    producer = broker.producer()
    producer.send(tp, records(value))
    producer.close()


def test_a_fetch_from_several_leaders_returns_with_the_first_news_and_keeps_the_others_waiting(
    broker: KafkaBroker,
) -> None:
    assert len({leader_of(broker, tp) for tp in PARTITIONS}) >= 2
    fetcher = broker.fetcher("read_uncommitted")
    positions = {tp: offset_of(broker, tp, LATEST) for tp in PARTITIONS}
    for index, tp in enumerate([*PARTITIONS, *PARTITIONS]):
        value = b"%d" % index
        sender = threading.Timer(0.05, append, (broker, tp, value))
        sender.start()
        began = time.monotonic()
        (fetched,) = fetcher.fetch(positions, wait_ms=120_000, bytes_max=BYTES_MAX)
        assert time.monotonic() - began < 60
        sender.join()
        assert fetched.topic_partition == tp
        assert decode(fetched.record_batches, from_offset=positions[tp]).values == [value]
        positions[tp] = fetched.next_offset
    took_seconds = []
    for _ in range(5):
        append(broker, PARTITIONS[0], b"more")
        (fetched,) = fetcher.fetch(positions, wait_ms=120_000, bytes_max=BYTES_MAX)
        positions[PARTITIONS[0]] = fetched.next_offset
        began = time.monotonic()
        assert fetcher.fetch(positions, wait_ms=0, bytes_max=BYTES_MAX) == []
        took_seconds.append(time.monotonic() - began)
    # Those wait for half a second. A busy machine may delay one call or another, not all.
    assert min(took_seconds) < 0.4, "it did not wait for the requests of the last call"
    fetcher.close()


def test_positions_that_changed_are_not_answered_with_what_was_asked_before(broker: KafkaBroker) -> None:
    fetcher = broker.fetcher("read_uncommitted")
    ends = {}
    for tp in PARTITIONS:
        append(broker, tp, b"before")
        ends[tp] = offset_of(broker, tp, LATEST)
    append(broker, PARTITIONS[0], b"news")
    fetcher.fetch(ends, wait_ms=60_000, bytes_max=BYTES_MAX)
    earlier = {tp: end - 1 for tp, end in ends.items()}
    seen: dict[TopicPartition, list[bytes | None]] = {}
    while len(seen) < 3:
        for one in fetcher.fetch(earlier, wait_ms=60_000, bytes_max=BYTES_MAX):
            found = decode(one.record_batches, from_offset=earlier[one.topic_partition]).values
            seen[one.topic_partition] = found
            earlier[one.topic_partition] = one.next_offset
    assert [found[0] for found in seen.values()] == [b"before"] * 3
    fetcher.close()


def test_what_was_sent_is_there_once_although_its_leader_was_killed(cluster: KafkaCluster, broker: KafkaBroker) -> None:
    broker.admin.create_topic("killed", 1)
    tp = TopicPartition("killed", 0)
    producer = broker.producer()
    leader = leader_of(broker, tp)
    index = next(index for index in range(3) if cluster.node_id(index) == leader)
    sent = [b"%d" % number for number in range(400)]
    for number, value in enumerate(sent):
        producer.send(tp, records(value))
        if number == 100:
            killing = threading.Thread(target=cluster.kill, args=(index,))
            killing.start()
        if number % 50 == 0:
            producer.flush()
    producer.flush()
    killing.join()
    producer.close()
    assert read(broker, tp) == sent
    cluster.start(index)


def test_transactions_and_offsets_agree_although_the_leader_was_killed(
    cluster: KafkaCluster, broker: KafkaBroker
) -> None:
    broker.admin.create_topic("moved", 2)
    out = TopicPartition("moved", 0)
    source = TopicPartition("moved", 1)
    leader = leader_of(broker, out)
    index = next(index for index in range(3) if cluster.node_id(index) == leader)
    producer, number, killed = broker.producer("mover"), 0, None
    while number < 60:
        if number == 20 and killed is None:
            killed = threading.Thread(target=cluster.kill, args=(index,))
            killed.start()
        try:
            producer.begin()
            producer.send(out, records(b"%d" % number))
            producer.send_offsets("movers", {source: CommittedOffset(offset=number + 1)})
            producer.commit()
            number += 1
        except CommitFailedError:
            producer.close()
            producer = broker.producer("mover")
            committed = broker.group("movers").committed().get(source)
            number = 0 if committed is None else committed.offset
    producer.close()
    assert killed is not None
    killed.join()
    until(lambda: len(read(broker, out)) >= 60)
    assert read(broker, out) == [b"%d" % number for number in range(60)]
    cluster.start(index)


def test_internal_topics_and_sinks_have_the_replicas_that_were_asked_for(cluster: KafkaCluster) -> None:
    """The cluster's own would be three and two."""
    connection = KafkaConnection(replication_factor=2, min_insync_replicas=1)
    asking = open_broker(cluster.url, connection=connection)
    assert isinstance(asking, KafkaBroker)
    job = Job("replicated")
    job.stream("spread", key=str, value=str).group_by_key().count(name="counts").to("replicated-out")
    prepare(compile_graph(job.build()), asking, RunOptions(), unchecked)
    made = ["replicated-counts-changelog", "replicated-out"]
    for topic in made:
        assert asking.admin.describe_topics()[topic].config["min.insync.replicas"] == "1"
    response = asking._thread.run(asking._cluster.metadata([*made, "spread"]), PATIENCE_MS)
    replicas = {name: {len(partition[3]) for partition in partitions} for _, name, _, partitions in response.topics}
    assert replicas == {"replicated-counts-changelog": {2}, "replicated-out": {2}, "spread": {3}}
    asking.close()


def test_a_topic_that_was_created_is_known_to_every_broker(cluster: KafkaCluster, broker: KafkaBroker) -> None:
    """Whoever is asked next, by whatever worker, must not say that it does not exist."""
    for number in range(30):
        broker.admin.create_topic(f"heard-{number}", 2)
        heard = broker._thread.run(broker._cluster.everywhere(f"heard-{number}"), PATIENCE_MS)
        assert heard == {cluster.node_id(index): 2 for index in range(3)}
