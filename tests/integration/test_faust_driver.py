"""Faust apps on streamkit's log: what they read, write, commit and refuse."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import faust
import pytest
from faust_programs import (
    DEADLINE_S,
    committed,
    crash_at_start,
    crash_of,
    faust_app,
    raw_topic,
    read,
    running,
    until,
    write,
)

from streamkit.broker import CommittedOffset
from streamkit.broker.partitioner import partition_of
from streamkit.errors import (
    ConfigError,
    OffsetOutOfRangeError,
    ProducerFencedError,
    RecordTooLargeError,
    UnknownTopicError,
)
from streamkit.hosts import lease
from streamkit.records import EncodedRecords, TopicPartition

pytestmark = pytest.mark.slow  # Faust sleeps a second before it reads

KEYS = [b"k%d" % number for number in range(20)]
URL = "memory://"
BROKER = f"streamkit+{URL}"


def shouting(directory: Path, seen: list[bytes], **options: object) -> faust.App:
    """Return an app whose agent copies `words` to `shouts` in capitals."""
    app = faust_app("shouting", BROKER, directory, **options)
    words, shouts = raw_topic(app, "words"), raw_topic(app, "shouts")

    @app.agent(words)
    async def shout(stream: faust.StreamT[bytes]) -> None:
        async for key, value in stream.items():
            seen.append(value)
            await shouts.send(key=key, value=value.upper())

    return app


def words_done() -> dict[tuple[str, int], int]:
    with lease(URL) as held:
        return committed(held.broker, "shouting")


def test_an_agent_reads_every_partition_and_its_keys_land_where_kafka_puts_them(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def run() -> None:
        app = shouting(tmp_path, seen)
        async with running(app):
            await until(app, lambda: sum(words_done().values()) == len(KEYS))

    with lease(URL) as held:
        write(held.broker, "words", [(key, b"v" + key) for key in KEYS])
        asyncio.run(run())
        assert sorted(seen) == sorted(b"v" + key for key in KEYS)
        shouts = read(held.broker, "shouts")
        assert {key: index for index, rows in shouts.items() for key, _ in rows} == {
            key: partition_of(key, 2) for key in KEYS
        }
        assert sorted(value for rows in shouts.values() for _, value in rows) == sorted(
            (b"v" + key).upper() for key in KEYS
        )


def test_a_worker_goes_on_where_the_last_one_committed(tmp_path: Path) -> None:
    first: list[bytes] = []
    second: list[bytes] = []

    async def run(seen: list[bytes], count: int) -> None:
        app = shouting(tmp_path, seen, broker_commit_interval=1000.0)  # the commit is the one of stopping
        async with running(app):
            await until(app, lambda: len(seen) == count)

    with lease(URL) as held:
        write(held.broker, "words", [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])
        asyncio.run(run(first, 3))
        assert sum(words_done().values()) == 3
        write(held.broker, "words", [(b"a", b"4")])
        asyncio.run(run(second, 1))
    assert (sorted(first), second) == ([b"1", b"2", b"3"], [b"4"])


def test_a_record_that_cannot_be_produced_stops_the_app_and_its_input_is_read_again(tmp_path: Path) -> None:
    """Its offset is not committed, not even when the app stops; the one before it is."""
    seen: list[bytes] = []

    async def run() -> BaseException:
        app = shouting(tmp_path, seen)
        async with running(app):
            return await crash_of(app)

    with lease(URL) as held:
        held.broker.admin.create_topic("shouts", 2, {"max.message.bytes": "200"})
        write(held.broker, "words", [(b"a", b"x" * 500)])
        assert isinstance(asyncio.run(run()), RecordTooLargeError)
        assert words_done() == {}
        assert read(held.broker, "shouts") == {}
        asyncio.run(run())
    assert len(seen) == 2


def test_only_committed_records_are_read_and_offsets_without_records_do_not_hold_commits_up(tmp_path: Path) -> None:
    """A record, an aborted transaction, a committed one: Faust's own bookkeeping would commit offset 1 for ever."""
    seen: list[bytes] = []
    place = TopicPartition("words", 0)

    async def run() -> None:
        app = shouting(tmp_path, seen)
        async with running(app):
            await until(app, lambda: words_done() == {("words", 0): 8})

    with lease(URL) as held:
        write(held.broker, "words", [(b"a", b"first")], partition_count=1)
        producer = held.broker.producer("writer")
        for value, committing in ((b"never", False), (b"last", True)):
            producer.begin()
            count = 5 if not committing else 1
            producer.send(
                place,
                EncodedRecords.to_append(timestamps_ms=[0] * count, keys=[None] * count, values=[value] * count),
            )
            _ = producer.commit() if committing else producer.abort()
        producer.close()
        asyncio.run(run())
    assert seen == [b"first", b"last"]


def test_of_two_workers_of_one_app_the_older_one_stops(tmp_path: Path) -> None:
    first: list[bytes] = []
    second: list[bytes] = []

    async def run() -> BaseException:
        older, newer = shouting(tmp_path, first), shouting(tmp_path, second)
        async with running(older):
            await until(older, lambda: words_done() == {("words", partition_of(b"a", 2)): 1})
            async with running(newer):
                with lease(URL) as held:
                    write(held.broker, "words", [(b"a", b"2")])
                reason = await crash_of(older)
                await until(newer, lambda: words_done() == {("words", partition_of(b"a", 2)): 2})
                return reason

    with lease(URL) as held:
        write(held.broker, "words", [(b"a", b"1")])
        reason = asyncio.run(run())
    assert isinstance(reason, ProducerFencedError)
    assert "another worker of the Faust app 'shouting' took over" in str(reason)
    assert second == [b"2"]


def test_topics_are_made_as_the_app_declares_them(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def run() -> None:
        app = faust_app("declaring", BROKER, tmp_path, topic_partitions=3)
        notes = raw_topic(app, "notes", partitions=5)
        kept = raw_topic(app, "kept", compacting=True, retention=60.0, internal=True)

        @app.agent(notes)
        async def take(stream: faust.StreamT[bytes]) -> None:
            async for value in stream:
                seen.append(value)  # noqa: PERF401  # the stream has no end

        async with running(app):
            await kept.declare()
            await raw_topic(app, "fresh").send(value=b"made")
            await take.send(value=b"noted")
            await until(app, lambda: seen == [b"noted"])

    with lease(URL) as held:
        asyncio.run(run())
        topics = held.broker.admin.describe_topics()
    assert {name: topic.partition_count for name, topic in topics.items()} == {"notes": 5, "kept": 3, "fresh": 3}
    assert topics["kept"].config == {"cleanup.policy": "compact", "retention.ms": "60000"}


def test_an_app_that_may_make_no_topics_says_which_one_is_missing(tmp_path: Path) -> None:
    async def run() -> BaseException:
        app = shouting(tmp_path, [], topic_allow_declare=False)
        return await crash_at_start(app)

    reason = asyncio.run(run())
    assert isinstance(reason, UnknownTopicError)
    assert "'words'" in str(reason)


def test_records_deleted_before_they_were_read_are_passed_over(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def run() -> None:
        app = shouting(tmp_path, seen)
        async with running(app):
            await until(app, lambda: words_done() == {("words", 0): 3})

    with lease(URL) as held:
        write(held.broker, "words", [(None, b"0"), (None, b"1"), (None, b"2")], partition_count=1)
        held.broker.group("shouting").commit({TopicPartition("words", 0): CommittedOffset(offset=1)})
        held.broker.admin.delete_records({TopicPartition("words", 0): 2})
        asyncio.run(run())
    assert seen == [b"2"]


def test_an_offset_beyond_the_end_of_the_log_is_an_error(tmp_path: Path) -> None:
    """The topic is not the one whose offset was committed; to begin anywhere else in it would be a guess."""

    async def run() -> BaseException:
        app = shouting(tmp_path, [])
        async with running(app):
            return await crash_of(app)

    with lease(URL) as held:
        write(held.broker, "words", [(None, b"other")], partition_count=1)
        held.broker.group("shouting").commit({TopicPartition("words", 0): CommittedOffset(offset=3)})
        assert isinstance(asyncio.run(run()), OffsetOutOfRangeError)


def test_a_topic_that_is_read_only_later_is_subscribed_to_and_nothing_is_read_twice(tmp_path: Path) -> None:
    seen: list[bytes] = []
    later: list[bytes] = []

    async def run() -> None:
        app = shouting(tmp_path, seen)

        async def listen() -> None:
            async for value in app.stream(raw_topic(app, "later")):
                later.append(value)  # noqa: PERF401  # the stream has no end

        async with running(app):
            await until(app, lambda: seen == [b"1"])
            app.add_future(listen())
            await raw_topic(app, "later").send(value=b"news")
            await until(app, lambda: later == [b"news"])
            await raw_topic(app, "words").send(key=b"a", value=b"2")
            await until(app, lambda: seen == [b"1", b"2"])

    with lease(URL) as held:
        write(held.broker, "words", [(b"a", b"1")])
        asyncio.run(run())
        assert sum(len(rows) for rows in read(held.broker, "shouts").values()) == 2


def test_an_answer_comes_back_through_a_topic_of_its_own(tmp_path: Path) -> None:
    """Faust hands each reply to a listener that never acknowledges it, so stopping must not wait for that."""

    async def run() -> object:
        app = faust_app("asking", BROKER, tmp_path, stream_wait_empty=False)

        @app.agent(app.topic("numbers", value_type=int))
        async def double(numbers: faust.StreamT[int]) -> AsyncIterator[int]:
            async for number in numbers:
                yield 2 * number

        async with running(app), asyncio.timeout(DEADLINE_S):
            return await double.ask(21)

    with lease(URL):
        assert asyncio.run(run()) == 42


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"processing_guarantee": "exactly_once"}, "processing_guarantee"),
        ({"producer_threaded": True}, "producer_threaded"),
        ({"broker": f"{BROKER};{BROKER}"}, "does not name one log"),
    ],
)
def test_what_cannot_be_done_right_is_refused_at_once(tmp_path: Path, options: dict[str, object], what: str) -> None:
    app = faust_app("refused", options.pop("broker", BROKER), tmp_path, **options)  # type: ignore[arg-type]  # drawn
    with pytest.raises(ConfigError, match=what):
        _ = app.transport


def test_tables_are_refused_by_name(tmp_path: Path) -> None:
    async def run() -> BaseException:
        app = shouting(tmp_path, [])
        app.Table("totals", default=int)
        return await crash_at_start(app)

    reason = asyncio.run(run())
    assert isinstance(reason, ConfigError)
    assert "tables are not supported on streamkit's brokers: totals" in str(reason)


def test_a_client_only_app_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        app = shouting(tmp_path, [])
        try:
            await app.start_client()
        finally:
            await app.stop()

    with pytest.raises(ConfigError, match="client-only"):
        asyncio.run(run())
