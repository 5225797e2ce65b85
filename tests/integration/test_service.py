"""A worker in somebody else's supervision tree."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamkit import Job
from streamkit.broker import Broker, open_broker
from streamkit.errors import UnknownTopicError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import Progress, RunOptions, Summary, Worker
from streamkit.runtime.service import WorkerService
from streamkit.seams import MemoryFileSystem, SeededRng, SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

PLACE = TopicPartition("rows", 0)


def copying() -> Job:
    job = Job("copying")
    job.stream("rows", value=str).to("out")
    return job


def service(broker: Broker, told: Callable[[Progress], None] | None = None, **options: Any) -> WorkerService:
    worker = Worker(
        compile_graph(copying().build()),
        broker,
        options=RunOptions(**options),
        fs=SystemFileSystem(),
        clock=SystemClock(),
    )
    return WorkerService(worker, told)


async def to_its_end(one: WorkerService) -> Summary:
    await one.start()
    try:
        return await one.outcome()
    finally:
        await one.stop()


def broker_with(count: int) -> Broker:
    broker = open_broker("memory://", fs=MemoryFileSystem(), clock=SystemClock(), rng=SeededRng(0))
    broker.admin.create_topic("rows", 1)
    producer = broker.producer()
    producer.send(
        PLACE, EncodedRecords.to_append(timestamps_ms=[0] * count, keys=[None] * count, values=[b"x"] * count)
    )
    producer.close()
    return broker


def test_the_outcome_of_a_bounded_run_is_its_summary() -> None:
    summary = asyncio.run(to_its_end(service(broker_with(5), bounded=True)))
    assert summary.finished
    assert (summary.records_in, summary.records_out) == (5, 5)


def test_stopping_the_service_finishes_the_commit() -> None:
    """What was read by then is committed."""
    broker, told = broker_with(5), threading.Event()

    async def run() -> Summary:
        one = service(broker, lambda progress: told.set() if progress.records_in == 5 else None)
        await one.start()
        await asyncio.to_thread(told.wait, 120)
        await one.stop()
        return await one.outcome()

    summary = asyncio.run(run())
    assert told.is_set()
    assert not summary.finished
    assert summary.records_out == 5
    assert broker.group("copying").committed()[PLACE].offset == 5


def test_what_stops_the_worker_is_raised_to_whoever_waits_for_its_end(tmp_path: Path) -> None:
    broker = broker_with(1)
    broker.admin.delete_topic("rows")

    with pytest.raises(UnknownTopicError, match="'rows'"):
        asyncio.run(to_its_end(service(broker, state_dir=str(tmp_path))))


def test_a_service_that_never_started_stops_in_peace() -> None:
    async def run() -> None:
        await service(broker_with(1)).on_stop()

    asyncio.run(run())
