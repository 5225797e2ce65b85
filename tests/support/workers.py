"""Workers on threads of this process, what they are given to read, and what they have written."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from scenarios import Rows, Scenario

from streamkit import Job
from streamkit.broker import Broker
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions, Summary, Worker
from streamkit.runtime.reading import read_to
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

WAIT_SECONDS = 180.0

Read = list[tuple[bytes | None, bytes | None, int]]


def many(partition_count: int, count: int) -> list[Rows]:
    """Return rows that are not in order, by a fixed seed."""
    rng = random.Random(11)
    return [
        [(rng.choice("abcdef"), rng.randrange(100), max(0, number + rng.randrange(-30, 30))) for number in range(count)]
        for _ in range(partition_count)
    ]


def fill(broker: Broker, scenario: Scenario, partitions: list[Rows]) -> None:
    """Send what `Scenario.fill` would."""
    for source in scenario.sources:
        broker.admin.create_topic(source, len(partitions))
    producer = broker.producer()
    for partition, rows in enumerate(partitions):
        for number, (sensor, value, ts) in enumerate(rows):
            source = scenario.sources[number % len(scenario.sources)]
            encoded = orjson.dumps({"sensor": sensor, "value": value, "ts": ts})
            send(producer, TopicPartition(source, partition), f"{sensor}{partition}".encode(), encoded)
    producer.flush()
    producer.close()


def send(producer: Any, to: TopicPartition, key: bytes | None, value: bytes) -> None:
    producer.send(to, EncodedRecords.to_append(timestamps_ms=[0], keys=[key], values=[value]))


def read(broker: Broker, topic: str) -> Read:
    rows: Read = []
    fetcher = broker.fetcher()
    for partition in range(broker.admin.describe_topics()[topic].partition_count):
        for records in read_to(broker, fetcher, TopicPartition(topic, partition), None):
            rows.extend(zip(records.keys, records.values, records.timestamps_ms.tolist(), strict=True))
    fetcher.close()
    return rows


def worker(job: Job, broker: Broker, *, observe: Callable[[str], None] = lambda step: None, **options: Any) -> Worker:
    made = RunOptions(**{"commit_interval_ms": 20, "fetch_bytes_max": 2000, **options})
    return Worker(
        compile_graph(job.build()), broker, options=made, fs=SystemFileSystem(), clock=SystemClock(), observe=observe
    )


@contextlib.contextmanager
def running(one: Worker) -> Iterator[tuple[threading.Event, list[Summary | Exception]]]:
    """Run a worker on a thread; give its stop event, and the list that its end will be put into."""
    stop, ended = threading.Event(), list[Summary | Exception]()

    def run() -> None:
        try:
            ended.append(one.run(stop))
        except Exception as error:  # noqa: BLE001  # the test looks at whatever it was
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop, ended
    finally:
        stop.set()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true; the log is asked again and again, as a user would."""
    deadline = time.monotonic() + WAIT_SECONDS
    event = threading.Event()
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        event.wait(0.01)
