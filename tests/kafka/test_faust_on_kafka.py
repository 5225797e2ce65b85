"""A Faust app on a real Kafka through streamkit's broker: it reads, writes, and goes on where it committed."""

import asyncio
import uuid
from pathlib import Path

import faust
import pytest
from faust_programs import committed, faust_app, raw_topic, read, running, until, write

from streamkit.broker import Broker
from streamkit.hosts import lease

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
