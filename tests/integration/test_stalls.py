"""A fetcher that goes silent without an error is noticed, and another one takes its place."""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from streamkit import Job
from streamkit.broker import Broker, Fetched, Fetcher, Isolation, open_broker
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions, Worker
from streamkit.runtime.stalls import StallWatch
from streamkit.seams import ManualClock, MemoryFileSystem, SeededRng, SystemFileSystem
from streamkit.topology import compile_graph

ONE, TWO = TopicPartition("rows", 0), TopicPartition("rows", 1)


class SilentAfter:
    """A broker whose first fetcher gives nothing more of one partition after some fetches."""

    def __init__(self, broker: Broker, silent: TopicPartition, fetch_count: int) -> None:
        self._broker, self._silent, self._left = broker, silent, fetch_count
        self.fetcher_count = self.closed_count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        self.fetcher_count += 1
        real = self._broker.fetcher(isolation)
        return cast(Fetcher, self.Silent(self, real)) if self.fetcher_count == 1 else real

    class Silent:
        def __init__(self, outer: "SilentAfter", real: Fetcher) -> None:
            self._outer, self._real = outer, real

        def fetch(
            self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int
        ) -> Sequence[Fetched]:
            self._outer._left -= 1
            if self._outer._left < 0:
                positions = {place: at for place, at in positions.items() if place != self._outer._silent}
            return self._real.fetch(positions, wait_ms=wait_ms, bytes_max=bytes_max)

        def close(self) -> None:
            self._outer.closed_count += 1
            self._real.close()


def filled(clock: ManualClock) -> Broker:
    broker = open_broker("memory://", fs=MemoryFileSystem(), clock=clock, rng=SeededRng(0))
    broker.admin.create_topic("rows", 2)
    producer = broker.producer()
    for place in (ONE, TWO):
        for number in range(20):
            value = f"{place}/{number}".encode()
            producer.send(place, EncodedRecords.to_append(timestamps_ms=[0], keys=[None], values=[value]))
    producer.flush()
    return broker


def test_a_worker_replaces_a_fetcher_that_has_stalled_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Without that a bounded run would never end."""
    clock = ManualClock()
    # The stores' fetchers come later: the loop's is the first.
    broker = SilentAfter(filled(clock), TWO, 3)
    job = Job("copying")
    job.stream("rows", value=str).to("out")
    options = RunOptions(bounded=True, fetch_bytes_max=1)
    topology = compile_graph(job.build())
    one = Worker(topology, cast(Broker, broker), options=options, fs=SystemFileSystem(), clock=clock)
    with caplog.at_level(logging.WARNING):
        summary = one.run(threading.Event())
    assert summary.finished
    assert summary.records_in == 40
    assert broker.closed_count == 1
    assert "fetching of rows-1 has stalled; beginning anew" in caplog.text


def given(place: TopicPartition, next_offset: int) -> Fetched:
    return Fetched(topic_partition=place, record_batches=[], next_offset=next_offset, end_offset=20)


def test_a_partition_that_is_read_to_its_end_has_not_stalled() -> None:
    clock = ManualClock()
    watch = StallWatch(filled(clock).admin, clock)
    for _ in range(100):
        clock.advance(1000)
        assert watch.stalled({ONE: 20, TWO: 20}, []) == []


def test_a_partition_that_is_paused_now_and_then_or_gives_something_has_not_stalled() -> None:
    clock = ManualClock()
    watch = StallWatch(filled(clock).admin, clock)
    for turn in range(100):
        clock.advance(1000)
        asked = {ONE: 3, TWO: 4} if turn % 25 else {ONE: 3}
        assert watch.stalled(asked, [given(ONE, 4)] if turn % 20 == 0 else []) == []


def test_a_partition_silent_for_half_a_minute_has_stalled_and_then_gets_another_half() -> None:
    clock = ManualClock()
    watch = StallWatch(filled(clock).admin, clock)
    found = []
    for turn in range(100):
        clock.advance(1000)
        if watch.stalled({ONE: 20, TWO: 4}, []):
            found.append(turn)
    assert found == [30, 61, 92]
