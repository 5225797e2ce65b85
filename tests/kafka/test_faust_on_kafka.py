"""A Faust app on a real Kafka through streamkit's broker: it reads, writes, goes on where it committed, runs a job."""

import asyncio
import uuid
from pathlib import Path

import faust
import pytest
from faust_programs import committed, faust_app, raw_topic, read, running, until, write

from streamkit import Job
from streamkit.broker import Broker
from streamkit.broker.state_root import state_root
from streamkit.hosts import lease
from streamkit.hosts.faust import mount

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_an_agent_on_kafka_reads_writes_and_goes_on_where_it_committed(kafka: str, tmp_path: Path) -> None:
    name = f"shouting-{uuid.uuid4().hex[:8]}"
    words, shouts, seen = f"{name}-words", f"{name}-shouts", list[bytes]()

    async def run(broker: Broker, count: int) -> None:
        app = faust_app(name, f"streamkit+kafka://{kafka}", tmp_path)
        heard, loud = raw_topic(app, words), raw_topic(app, shouts)

        @app.agent(heard)
        async def shout(stream: faust.StreamT[bytes]) -> None:
            async for key, value in stream.items():
                seen.append(value)
                await loud.send(key=key, value=value.upper())

        async with running(app):
            await until(app, lambda: sum(committed(broker, name).values()) == count)

    with lease(f"kafka://{kafka}") as held:
        write(held.broker, words, [(b"a", b"one"), (b"b", b"two")])
        asyncio.run(run(held.broker, 2))
        write(held.broker, words, [(b"c", b"three")])
        asyncio.run(run(held.broker, 3))
        said = sorted(value for rows in read(held.broker, shouts).values() for _, value in rows)
        for topic in (words, shouts):
            held.broker.admin.delete_topic(topic)
    assert sorted(seen) == [b"one", b"three", b"two"]
    assert said == [b"ONE", b"THREE", b"TWO"]


def test_a_mounted_job_keeps_its_state_where_streamkit_run_does(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"counting-{uuid.uuid4().hex[:8]}"
    words, url = f"{name}-words", f"kafka://{kafka}"
    monkeypatch.chdir(tmp_path)
    job = Job(name)
    job.stream(words, value=bytes).group_by(bytes, name="by_word").count(name="counts").to(f"{name}-counts")

    async def run(broker: Broker) -> None:
        app = faust_app(f"around-{name}", f"streamkit+{url}", tmp_path)
        mount(app, job)
        async with running(app):
            await until(app, lambda: sum(committed(broker, name).values()) >= 1)

    with lease(url) as held:
        write(held.broker, words, [(None, b"one")], partition_count=1)
        asyncio.run(run(held.broker))
        root, topics = state_root(url, held.broker), held.broker.admin.describe_topics()
        for topic in topics:
            if name in topic:
                held.broker.admin.delete_topic(topic)
    assert root is not None
    assert (tmp_path / root / name).is_dir()
