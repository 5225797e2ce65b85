"""Faust apps on streamkit's brokers, run in the test's own process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import faust

from streamkit.broker import EARLIEST, Broker
from streamkit.broker.partitioner import Placement
from streamkit.log import decode
from streamkit.records import EncodedRecords, TopicPartition

DEADLINE_S = 120


def faust_app(name: str, broker: str, directory: Path, **options: Any) -> faust.App:
    """Return an app with everything off that a test does not look at."""
    quiet: dict[str, Any] = {
        "web_enabled": False,
        "topic_disable_leader": True,
        "topic_partitions": 2,
        "broker_commit_interval": 0.05,
        "datadir": str(directory / "faust"),
    }
    return faust.App(name, broker=broker, **{**quiet, **options})


def raw_topic(app: faust.App, name: str, **options: Any) -> faust.TopicT[Any]:
    """Return a topic of bytes."""
    return app.topic(name, key_serializer="raw", value_serializer="raw", **options)


@contextlib.asynccontextmanager
async def running(app: faust.App) -> AsyncIterator[None]:
    """Run an app until the block ends."""
    await app.start()
    try:
        yield
    finally:
        await app.stop()


async def until(app: faust.App, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds while the app runs; what crashed the app is raised."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            if app.crashed:
                assert app.crash_reason is not None
                raise app.crash_reason
            await asyncio.sleep(0.01)


async def crash_of(app: faust.App) -> BaseException:
    """Wait until the app has crashed; return why."""
    async with asyncio.timeout(DEADLINE_S):
        while not app.crashed:
            await asyncio.sleep(0.01)
    assert app.crash_reason is not None
    return app.crash_reason


async def crash_at_start(app: faust.App) -> BaseException:
    """Start an app that cannot run, and stop it; return why it crashed."""
    starting = asyncio.ensure_future(app.start())
    try:
        return await crash_of(app)
    finally:
        await app.stop()
        await starting


def write(broker: Broker, topic: str, rows: Iterable[tuple[bytes | None, bytes]], partition_count: int = 2) -> None:
    """Append records where Kafka's partitioner puts them."""
    broker.admin.create_topic(topic, partition_count)
    placement, producer = Placement(partition_count), broker.producer()
    for key, value in rows:
        place = TopicPartition(topic, int(placement.place([key])[0]))
        producer.send(place, EncodedRecords.to_append(timestamps_ms=[1000], keys=[key], values=[value]))
    producer.close()


def read(broker: Broker, topic: str) -> dict[int, list[tuple[bytes | None, bytes | None]]]:
    """Return the committed records of each partition that has some; of a topic that is not there, none."""
    description = broker.admin.describe_topics().get(topic)
    places = [TopicPartition(topic, index) for index in range(description.partition_count if description else 0)]
    starts = broker.admin.list_offsets(dict.fromkeys(places, EARLIEST))
    fetcher = broker.fetcher()
    found = {}
    for place in places:
        for part in fetcher.fetch({place: starts[place]}, wait_ms=0, bytes_max=2**24):
            records = decode(list(part.record_batches), from_offset=starts[place])
            found[place.partition] = list(zip(records.keys, records.values, strict=True))
    return found


def committed(broker: Broker, group: str) -> dict[tuple[str, int], int]:
    """Return a group's committed offsets."""
    offsets = broker.group(group).committed()
    return {(place.topic, place.partition): one.offset for place, one in offsets.items()}
