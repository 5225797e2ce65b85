"""Async functions under the worker: tasks wait side by side, commits go on between, and an error ends the waiting."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from workers import read, send, worker

from streamkit import AsyncCalls, Job, Stream
from streamkit.broker import Broker, open_broker
from streamkit.errors import ProcessingError
from streamkit.records import TopicPartition
from streamkit.seams import MemoryFileSystem, SeededRng, SystemClock

LONG = timedelta(minutes=10)
"""A deadline that no test waits for."""


@pytest.fixture
def broker() -> Iterator[Broker]:
    opened = open_broker("memory://", fs=MemoryFileSystem(), clock=SystemClock(), rng=SeededRng(0))
    yield opened
    opened.close()


def fill(broker: Broker, *partitions: list[str]) -> None:
    broker.admin.create_topic("words", len(partitions))
    producer = broker.producer()
    for partition, words in enumerate(partitions):
        for word in words:
            send(producer, TopicPartition("words", partition), None, word.encode())
    producer.flush()
    producer.close()


def words(job: Job) -> Stream[None, str]:
    return job.stream("words", value=str)


def test_tasks_wait_side_by_side_on_one_loop(broker: Broker) -> None:
    """Each call waits until one of every partition is under way: in turns they would wait for ever."""
    job, under_way, everyone = Job("asking"), set[str](), asyncio.Event()

    @words(job).map(calls=AsyncCalls(deadline=LONG))
    async def together(word: str) -> str:
        under_way.add(word)
        if len(under_way) == 4:
            everyone.set()
        await everyone.wait()
        return word.upper()

    together.to("out")
    fill(broker, ["a"], ["b"], ["c"], ["d"])
    worker(job, broker, bounded=True).run(threading.Event())
    assert sorted(value for _, value, _ in read(broker, "out") if value is not None) == [b"A", b"B", b"C", b"D"]
    assert not [thread for thread in threading.enumerate() if thread.name == "streamkit-coroutines"]


def test_an_error_of_one_task_cancels_what_the_others_wait_for(broker: Broker) -> None:
    job, waiting, cancelled = Job("asking"), asyncio.Event(), list[str]()

    @words(job).map(calls=AsyncCalls(deadline=LONG))
    async def asked(word: str) -> str:
        if word == "bad":
            await waiting.wait()
            raise ConnectionError("refused")
        waiting.set()
        try:
            return str(await asyncio.Event().wait())
        except asyncio.CancelledError:
            cancelled.append(word)
            raise

    asked.to("out")
    fill(broker, ["slow"], ["bad"])
    with pytest.raises(ProcessingError, match="ConnectionError: refused") as raised:
        worker(job, broker, bounded=True).run(threading.Event())
    assert (raised.value.partition, raised.value.offset) == (1, 0)
    assert cancelled == ["slow"]
    assert read(broker, "out") == []


def test_a_record_that_an_async_function_fails_on_is_skipped_where_the_job_says_so(broker: Broker) -> None:
    job = Job("asking", on_error="skip")

    @words(job).map(calls=AsyncCalls(at_once=3, deadline=LONG))
    async def asked(word: str) -> str:
        if word.startswith("bad"):
            raise ConnectionError("refused")
        return word.upper()

    asked.to("out")
    fill(broker, ["a", "bad", "b", "c", "bad too"])
    summary = worker(job, broker, bounded=True).run(threading.Event())
    assert [value for _, value, _ in read(broker, "out")] == [b"A", b"B", b"C"]
    assert summary.skipped == 2


def test_what_was_read_is_finished_and_committed_when_a_worker_is_stopped(broker: Broker) -> None:
    job, stop, began = Job("asking"), threading.Event(), list[str]()

    @words(job).map
    async def slow(word: str) -> str:
        began.append(word)
        stop.set()
        await asyncio.sleep(0.01)
        return word.upper()

    slow.to("out")
    fill(broker, ["a", "b"])
    worker(job, broker).run(stop)
    assert [value for _, value, _ in read(broker, "out")] == [word.upper().encode() for word in began]
    assert began


@pytest.mark.slow
def test_commits_go_on_between_the_parts_of_a_long_input(broker: Broker) -> None:
    """A fetch is not cut for a commit, so where records wait it is a small one."""
    job, steps = Job("asking"), list[str]()

    @words(job).map
    async def same(word: str) -> str:
        return word

    same.to("out")
    fill(broker, [f"{number:01000}" for number in range(2000)])
    one = worker(job, broker, observe=steps.append, bounded=True, commit_interval_ms=0, fetch_bytes_max=4 * 1024 * 1024)
    one.run(threading.Event())
    assert len(read(broker, "out")) == 2000
    assert steps.count("done") >= 5
