"""Jobs as services of Faust apps, in the test's own process."""

import asyncio
import threading
from pathlib import Path

import faust
import pytest
from faust_programs import DEADLINE_S, committed, crash_of, faust_app, raw_topic, read, running, until, write

from streamkit import Job
from streamkit.broker import open_broker
from streamkit.errors import ConfigError, DeserializationError, UnknownTopicError
from streamkit.hosts import lease
from streamkit.hosts.faust import mount
from streamkit.runtime import RunOptions

slow = pytest.mark.slow  # Faust sleeps a second before it starts services


def doubling(name: str = "doubling") -> Job:
    job = Job(name)
    doubled = job.stream("numbers", value=int).map(lambda number: 2 * number)
    doubled.to("doubles")
    return job


@slow
def test_an_agent_writes_what_a_job_reads(tmp_path: Path) -> None:
    url = f"log://{tmp_path}/log"

    async def run() -> None:
        app = faust_app("writing", f"streamkit+{url}", tmp_path)
        words, numbers = raw_topic(app, "words"), raw_topic(app, "numbers")

        @app.agent(words)
        async def measure(stream: faust.StreamT[bytes]) -> None:
            async for word in stream:
                await numbers.send(value=b"%d" % len(word))

        mount(app, doubling())
        async with running(app):
            with lease(url) as held:
                await until(app, lambda: sum(map(len, read(held.broker, "doubles").values())) == 2)

    with lease(url) as held:
        write(held.broker, "words", [(b"a", b"to"), (b"b", b"be, or")])
    asyncio.run(run())
    with lease(url) as held:
        rows = read(held.broker, "doubles")
    assert sorted(value for one in rows.values() for _, value in one) == [b"12", b"4"]


@slow
def test_a_job_writes_what_an_agent_reads(tmp_path: Path) -> None:
    url = f"log://{tmp_path}/log"
    seen: list[int] = []

    async def run() -> None:
        app = faust_app("reading", f"streamkit+{url}", tmp_path)

        @app.agent(app.topic("doubles", value_type=int, value_serializer="json"))
        async def take(stream: faust.StreamT[int]) -> None:
            async for number in stream:
                seen.append(number)  # noqa: PERF401  # the stream has no end

        mount(app, doubling())
        async with running(app):
            await until(app, lambda: sorted(seen) == [2, 4, 6])

    with lease(url) as held:
        write(held.broker, "numbers", [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])
    asyncio.run(run())
    with lease(url) as held:
        assert sum(committed(held.broker, "reading").values()) >= 3


@slow
def test_stopping_the_app_commits_what_the_job_has_read_and_gives_the_log_back(tmp_path: Path) -> None:
    """The record is held in the job's function until the app is stopping."""
    url = f"log://{tmp_path}/log"
    reading, stopping = threading.Event(), threading.Event()
    job = Job("counting")

    @job.stream("numbers", value=int).map
    def held_back(number: int) -> int:
        reading.set()
        assert stopping.wait(DEADLINE_S)
        return number

    held_back.group_by(str, name="by_number").count(name="counts").to("counts")

    async def run() -> None:
        app = faust_app("stopping", "streamkit+memory://", tmp_path)
        mount(app, job, broker=url, options=RunOptions(commit_interval_ms=1_000_000))
        await app.start()
        await until(app, reading.is_set)
        ending = asyncio.ensure_future(app.stop())
        await until(app, lambda: app.should_stop)
        stopping.set()
        await ending

    with lease(url) as held:
        write(held.broker, "numbers", [(None, b"1")], partition_count=1)
    asyncio.run(run())
    broker = open_broker(url)
    assert committed(broker, "counting")[("numbers", 0)] == 1
    broker.close()
    assert (tmp_path / "log" / "state" / "counting").is_dir()


@slow
def test_a_job_that_fails_crashes_the_app(tmp_path: Path) -> None:
    async def run() -> BaseException:
        app = faust_app("failing", "streamkit+memory://", tmp_path)
        mount(app, doubling())
        async with running(app):
            return await crash_of(app)

    with lease("memory://") as held:
        write(held.broker, "numbers", [(None, b"many")], partition_count=1)
        reason = asyncio.run(run())
        assert committed(held.broker, "doubling") == {("numbers", 0): 0}
    assert isinstance(reason, DeserializationError)
    assert "many" in str(reason)


@slow
def test_a_job_whose_sources_may_not_be_made_keeps_the_app_from_starting(tmp_path: Path) -> None:
    async def run() -> None:
        app = faust_app("missing", "streamkit+memory://", tmp_path, topic_allow_declare=False)
        mount(app, doubling())
        try:
            await app.start()
        finally:
            await app.stop()

    with pytest.raises(UnknownTopicError, match="'numbers'"):
        asyncio.run(run())


def test_a_job_needs_a_broker_of_its_own_if_the_app_is_on_another_one(tmp_path: Path) -> None:
    app = faust_app("elsewhere", "kafka://127.0.0.1:1", tmp_path)
    with pytest.raises(ConfigError, match="none of streamkit's"):
        mount(app, doubling())
    mount(app, doubling("another"), broker="memory://")


def test_a_job_and_its_app_cannot_share_a_group(tmp_path: Path) -> None:
    app = faust_app("doubling", "streamkit+memory://", tmp_path)
    with pytest.raises(ConfigError, match="both called 'doubling'"):
        mount(app, doubling())
