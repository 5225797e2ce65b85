"""Faust's own names and habits that the host relies on. A new Faust that breaks one breaks it here, by name."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faust.app.base import App
from faust.tables.manager import TableManager
from faust.transport import base, drivers
from faust.transport.conductor import Conductor
from faust.transport.consumer import Consumer
from faust.transport.producer import Producer
from faust.types.tuples import TP
from faust_programs import faust_app
from intervaltree import IntervalTree

from streamkit.hosts.faust.consumer import BrokerConsumer
from streamkit.hosts.faust.transport import BrokerTransport

PLACE = TP("words", 0)


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator[BrokerConsumer]:
    """The consumer of an app that has not started, with acknowledgements on for `words`."""

    async def made() -> BrokerConsumer:
        app = faust_app("names", "streamkit+memory://", tmp_path)
        app.topics.acking_topics.add("words")
        assert isinstance(app.consumer, BrokerConsumer)
        return app.consumer

    with asyncio.Runner() as runner:
        yield runner.run(made())


@pytest.mark.parametrize("scheme", ["streamkit+kafka", "streamkit+log", "streamkit+memory"])
def test_faust_finds_the_driver_by_its_entry_point(scheme: str) -> None:
    assert drivers.by_url(f"{scheme}://anything") is BrokerTransport


def test_the_options_of_an_app_are_kept_as_they_were_given() -> None:
    """`_default_options`: `urls` takes a directory's capital letters from it."""
    identity, options = App("names", broker="streamkit+log://Data")._default_options
    assert (identity, options["broker"]) == ("names", "streamkit+log://Data")


def test_the_conductor_waits_as_long_as_its_class_says_before_it_subscribes_anew() -> None:
    assert Conductor._resubscribe_sleep_lock_seconds == 45.0
    assert "self._resubscribe_sleep_lock_seconds" in inspect.getsource(Conductor)


@pytest.mark.parametrize(
    "name", ["_getmany", "_commit", "_seek", "_to_message", "_new_topicpartition", "_add_gap", "_new_offset"]
)
def test_the_consumer_calls_what_the_driver_overrides(name: str) -> None:
    ours, fausts = getattr(BrokerConsumer, name), getattr(Consumer, name)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(fausts).parameters)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(fausts)
    source = inspect.getsource(sys.modules[Consumer.__module__])
    assert name == "_new_topicpartition" or f"self.{name}" in source


def test_services_call_post_init_before_anything_starts_and_restarts_may_call_it_again(
    consumer: BrokerConsumer,
) -> None:
    assert consumer.assignment() == set()
    assert consumer.app.producer.error is None


def test_gaps_that_are_noted_are_committed_with_the_record_behind_them(consumer: BrokerConsumer) -> None:
    """`_gap`, `_acked`, `_committed_offset`: 1 to 4 have no records, and 7 waits for 5."""
    assert isinstance(consumer._gap[PLACE], IntervalTree)
    rows = [(offset, 0, None, b"", []) for offset in (0, 5, 7)]
    consumer._note_gaps(PLACE, 0, rows)
    messages = [consumer._to_message(PLACE, row) for row in rows]
    consumer.ack(messages[0])
    consumer.ack(messages[2])
    assert consumer._new_offset(PLACE) == 5
    consumer._committed_offset[PLACE] = 5  # as a commit does
    assert consumer._new_offset(PLACE) is None
    consumer.ack(messages[1])
    assert consumer._new_offset(PLACE) == 8


def test_nothing_is_committed_while_the_first_record_is_not_acknowledged(consumer: BrokerConsumer) -> None:
    first, second = (consumer._to_message(PLACE, (offset, 0, None, b"", [])) for offset in (0, 1))
    consumer.ack(second)
    assert consumer._new_offset(PLACE) is None
    assert Consumer._new_offset(consumer, PLACE) == 2, "Faust has mended this: _new_offset need not be overridden"
    consumer.ack(first)
    consumer._acked[PLACE] = [0, 1]
    assert consumer._new_offset(PLACE) == 2


def test_faust_takes_the_record_behind_a_gap_for_a_part_of_it(consumer: BrokerConsumer) -> None:
    """Why `_add_gap` is overridden: when this fails, Faust has mended it."""
    asyncio.run(Consumer._add_gap(consumer, PLACE, 5, 7))  # what Faust calls when 7 follows 4
    assert 7 in {offset for gap in consumer._gap[PLACE] for offset in range(gap.begin, gap.end)}


def test_a_gap_that_was_read_twice_is_noted_once(consumer: BrokerConsumer) -> None:
    rows: list[Any] = [(offset, 0, None, b"", []) for offset in (3, 6)]
    for position in (0, 2):
        consumer._note_gaps(PLACE, position, rows)
    assert sorted((gap.begin, gap.end) for gap in consumer._gap[PLACE]) == [(0, 3), (4, 6)]


def test_an_app_has_what_a_rebalance_of_the_driver_uses() -> None:
    for name in ("on_rebalance_start", "on_rebalance_end", "consumer_generation_id", "client_only"):
        assert hasattr(App, name), name
    assert "consumer.perform_seek()" in inspect.getsource(sys.modules["faust.tables.recovery"])
    assert issubclass(TableManager, dict) or hasattr(TableManager, "values")


def test_the_classes_of_a_transport_are_those_that_faust_asks_for() -> None:
    for name in ("Consumer", "Producer", "Conductor"):
        assert issubclass(getattr(BrokerTransport, name), getattr(base, name))


def test_faust_commits_only_after_it_flushed_the_producer() -> None:
    source = inspect.getsource(Consumer._commit_offsets)
    assert 0 < source.index("self.app.producer.flush()") < source.index("self._commit(")
    assert {"send", "send_and_wait", "send_soon", "flush", "create_topic", "key_partition"} <= set(dir(Producer))


@pytest.mark.slow
@pytest.mark.process
def test_importing_streamkit_does_not_import_faust() -> None:
    code = "import sys, streamkit, streamkit.cli; sys.exit(any(name.split('.')[0] == 'faust' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
