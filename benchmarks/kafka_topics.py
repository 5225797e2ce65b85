"""The topics of the Kafka benchmarks: loaded, read back and dropped by aiokafka alone.

What checks streamkit's results here is not streamkit's own client.
"""

import asyncio
import itertools
import re
import sys
from collections.abc import Coroutine, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from data import BATCH_ROWS, PARTITIONS, START_MS

from streamkit.broker import partitioner

AUCTION = re.compile(rb'"auction":(\d+)')
BATCH_BYTES = 900_000
READ_SECONDS_MAX = 60
KEPT = {"retention.ms": "-1"}
"""The bids are years old by their timestamps: a broker with its usual week deletes them while they are read."""

Rows = list[tuple[bytes | None, bytes | None]]


class Topics:
    """Makes, loads, reads and drops topics of one broker."""

    def __init__(self, bootstrap: str) -> None:
        """Remember where the broker is; every call opens a connection of its own."""
        self._bootstrap = bootstrap

    def create(self, *names: str) -> None:
        """Make topics of four partitions."""
        _run(self._create(names))

    def load(self, topic: str, path: Path, *, keyed: bool = False) -> None:
        """Append the lines of a file to a new topic: by auction, or without keys and round robin by batch.

        Either way each partition is in the order of the file.
        """
        self.create(topic)
        _run(self._load(topic, _keyed_batches(path) if keyed else _plain_batches(path)))

    def send(self, topic: str, keys: list[bytes]) -> None:
        """Append a record of each key where the key belongs."""
        groups: dict[int, list[bytes | None]] = {}
        for key in keys:
            groups.setdefault(partition_of(key), []).append(key)
        _run(self._load(topic, iter([(place, some, [b"1"] * len(some)) for place, some in groups.items()])))

    def await_counts(self, topic: str, wanted: dict[bytes, int], *, seconds_max: float) -> None:
        """Read committed records of a topic until each key has had its count; fail when that takes too long."""
        _run(self._await_counts(topic, dict(wanted), seconds_max))

    def read(self, topic: str) -> Rows:
        """Return key and value of every committed record of a topic, each partition in order."""
        rows: Rows = _run(self._read(topic))
        return rows

    def drop(self, prefix: str) -> None:
        """Delete every topic whose name begins so."""
        _run(self._drop(prefix))

    async def _create(self, names: tuple[str, ...]) -> None:
        async with _Admin(self._bootstrap) as admin:
            await admin.create_topics([NewTopic(name, PARTITIONS, 1, topic_configs=KEPT) for name in names])

    async def _drop(self, prefix: str) -> None:
        async with _Admin(self._bootstrap) as admin:
            names = [name for name in await admin.list_topics() if name.startswith(prefix)]
            if names:
                await admin.delete_topics(names)

    async def _load(self, topic: str, batches: Iterator[tuple[int, list[bytes | None], list[bytes]]]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", max_batch_size=2 * BATCH_BYTES)
        await producer.start()
        try:
            for partition, keys, values in batches:
                batch = producer.create_batch()
                for key, value in zip(keys, values, strict=True):
                    assert batch.append(key=key, value=value, timestamp=START_MS) is not None, "it fits"
                await producer.send_batch(batch, topic, partition=partition)
            await producer.flush()
        finally:
            await producer.stop()

    async def _await_counts(self, topic: str, wanted: dict[bytes, int], seconds_max: float) -> None:
        consumer = self._consumer()
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
            async with asyncio.timeout(seconds_max):
                while wanted:
                    found = await consumer.getmany(timeout_ms=100)
                    for record in itertools.chain.from_iterable(found.values()):
                        key, count = record.key or b"", int(record.value or b"0")
                        if count >= wanted.get(key, sys.maxsize):
                            del wanted[key]
        finally:
            await consumer.stop()

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 << 20,
            fetch_max_wait_ms=50,
        )

    async def _read(self, topic: str) -> Rows:
        consumer = self._consumer()
        await consumer.start()
        try:
            places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            rows: Rows = []
            async with asyncio.timeout(READ_SECONDS_MAX):
                while [place for place in places if await consumer.position(place) < ends[place]]:
                    found = await consumer.getmany(timeout_ms=200)
                    rows.extend((record.key, record.value) for records in found.values() for record in records)
            return rows
        finally:
            await consumer.stop()


class _Admin:
    """An admin client that is closed again."""

    def __init__(self, bootstrap: str) -> None:
        self._client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> AIOKafkaAdminClient:
        await self._client.start()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


@cache
def partition_of(key: bytes) -> int:
    """Return the partition where Kafka's own producer would put the key."""
    return partitioner.partition_of(key, PARTITIONS)


def _plain_batches(path: Path) -> Iterator[tuple[int, list[bytes | None], list[bytes]]]:
    with path.open("rb") as file:
        for number in itertools.count():
            values = [line.rstrip(b"\n") for line in itertools.islice(file, BATCH_ROWS)]
            if not values:
                return
            yield number % PARTITIONS, [None] * len(values), values


def _keyed_batches(path: Path) -> Iterator[tuple[int, list[bytes | None], list[bytes]]]:
    keys: list[list[bytes | None]] = [[] for _ in range(PARTITIONS)]
    values: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    with path.open("rb") as file:
        for line in file:
            found = AUCTION.search(line)
            assert found is not None, "every bid names its auction"
            partition = partition_of(found[1])
            keys[partition].append(found[1])
            values[partition].append(line.rstrip(b"\n"))
            if len(values[partition]) == BATCH_ROWS:
                yield partition, keys[partition], values[partition]
                keys[partition], values[partition] = [], []
    yield from ((partition, keys[partition], values[partition]) for partition in range(PARTITIONS) if values[partition])


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)
