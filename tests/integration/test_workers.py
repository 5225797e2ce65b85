"""Several workers of one job: tasks move between them, and nothing is lost or comes twice."""

import collections
import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenarios import SCENARIOS
from workers import WAIT_SECONDS, fill, many, read, running, send, until, worker

from streamkit import Job
from streamkit.broker import Broker, open_broker
from streamkit.errors import ProcessingError
from streamkit.records import TopicPartition
from streamkit.runtime import Summary
from streamkit.seams import MemoryFileSystem, SeededRng, SystemClock, SystemFileSystem
from streamkit.state import StateDirectory

pytestmark = pytest.mark.slow


@pytest.fixture
def broker() -> Iterator[Broker]:
    opened = open_broker("memory://", fs=MemoryFileSystem(), clock=SystemClock(), rng=SeededRng(0))
    yield opened
    opened.close()


def copying() -> Job:
    job = Job("copying")
    job.stream("rows", value=str).to("out")
    return job


class Feed:
    """Sends numbers to all partitions of a topic in turn, and looks for them in what came out."""

    def __init__(self, broker: Broker, partition_count: int) -> None:
        broker.admin.create_topic("rows", partition_count)
        self._broker, self._count, self._sent = broker, partition_count, 0
        self._producer = broker.producer()

    def more(self, count: int = 40) -> None:
        for _ in range(count):
            place = TopicPartition("rows", self._sent % self._count)
            send(self._producer, place, None, b"%d" % self._sent)
            self._sent += 1
        self._producer.flush()

    def arrived(self) -> bool:
        return "out" in self._broker.admin.describe_topics() and len(self.out()) >= self._sent

    def out(self) -> list[bytes | None]:
        return [value for _, value, _ in read(self._broker, "out")]

    def assert_once(self) -> None:
        assert collections.Counter(self.out()) == collections.Counter(b"%d" % number for number in range(self._sent))


def test_a_second_worker_takes_half_and_gives_it_back_when_it_leaves(broker: Broker) -> None:
    """The tasks that stay are not opened again; what is read meanwhile comes out once."""
    feed, first_steps, second_steps = Feed(broker, 6), list[str](), list[str]()
    with running(worker(copying(), broker, observe=first_steps.append, worker_id="one")) as (_, first_ended):
        feed.more()
        until(feed.arrived)
        assert first_steps.count("opened") == 6
        with running(worker(copying(), broker, observe=second_steps.append, worker_id="two")) as (_, second_ended):
            until(lambda: second_steps.count("opened") == 3)
            feed.more()
            until(feed.arrived)
            assert first_steps.count("opened") == 6, "the three that it keeps go on as they are"
        assert isinstance(second_ended[0], Summary)
        feed.more()
        until(feed.arrived)
        assert first_steps.count("opened") == 9
    assert isinstance(first_ended[0], Summary)
    feed.assert_once()
    assert first_ended[0].records_in + second_ended[0].records_in == 120
    assert second_ended[0].records_in >= 20


def test_workers_that_come_and_go_all_the_time_lose_nothing(broker: Broker) -> None:
    feed = Feed(broker, 5)
    with running(worker(copying(), broker, worker_id="stays")) as (_, ended):
        for turn in range(6):
            with contextlib.ExitStack() as guests:
                for guest in range(1 + turn % 3):
                    guests.enter_context(running(worker(copying(), broker, worker_id=f"guest-{guest}")))
                    feed.more(15)
                if turn % 2:
                    until(feed.arrived)
        until(feed.arrived)
    assert isinstance(ended[0], Summary)
    feed.assert_once()


def test_a_task_that_somebody_takes_over_is_opened_again_if_it_is_still_ours(broker: Broker) -> None:
    """Whoever has opened its producer is gone again; the worker goes on all the same."""
    feed, steps = Feed(broker, 2), list[str]()
    with running(worker(copying(), broker, observe=steps.append)) as (_, ended):
        feed.more()
        until(feed.arrived)
        for taken in range(1, 4):
            broker.producer("copying-0_1").close()
            feed.more()
            until(feed.arrived)
            assert steps.count("opened") == 2 + taken
    assert isinstance(ended[0], Summary)
    assert ended[0].records_in == 160
    feed.assert_once()


@pytest.mark.parametrize("name", ["columns", "table", "ordered", "levels"])
def test_three_workers_finish_a_bounded_run_together(name: str, broker: Broker, tmp_path: Path) -> None:
    """They make what one machine makes, and none ends before all tasks have."""
    scenario, partitions = SCENARIOS[name], many(3, 150)
    machine = scenario.machine(3)
    scenario.fill(machine, partitions)
    machine.run_bounded(random.Random(1))
    fill(broker, scenario, partitions)
    options = {"bounded": True, "state_dir": str(tmp_path / "state")}
    with contextlib.ExitStack() as workers:
        started = [
            workers.enter_context(running(worker(scenario.build(), broker, worker_id=f"host-{number}", **options)))
            for number in range(3)
        ]
        until(lambda: all(ended for _, ended in started))
    summaries = [ended[0] for _, ended in started]
    assert all(isinstance(summary, Summary) and (summary.finished or summary.already_finished) for summary in summaries)
    for topic, expected in scenario.facts(machine).items():
        assert collections.Counter(read(broker, topic)) == expected


def test_a_worker_without_a_task_stays_until_the_run_has_ended(broker: Broker) -> None:
    """It would be given the tasks of one that dies."""
    broker.admin.create_topic("rows", 1)
    feed_producer = broker.producer()
    for number in range(200):
        send(feed_producer, TopicPartition("rows", 0), None, b"%d" % number)
    feed_producer.flush()
    held, release = threading.Event(), threading.Event()

    def hold(step: str) -> None:
        if step == "commit":
            held.set()
            release.wait(WAIT_SECONDS)

    with running(worker(copying(), broker, observe=hold, bounded=True, worker_id="b")) as (_, first_ended):
        until(held.is_set)
        with running(worker(copying(), broker, bounded=True, worker_id="a")) as (_, second_ended):
            assert not threading.Event().wait(0.6)
            assert not second_ended
            release.set()
            until(lambda: bool(first_ended) and bool(second_ended))
    for ended in (first_ended, second_ended):
        assert isinstance(ended[0], Summary)
        assert ended[0].finished
    assert len(read(broker, "out")) == 200


def test_a_directory_that_another_worker_holds_is_waited_for(broker: Broker, tmp_path: Path) -> None:
    scenario = SCENARIOS["table"]
    fill(broker, scenario, many(1, 20))
    held = StateDirectory.open(SystemFileSystem(), str(tmp_path), job="table", task="1_0", log_id=broker.admin.log_id())
    waited = threading.Event()
    steps = list[str]()

    def observe(step: str) -> None:
        steps.append(step)
        if steps.count("open_store") > 3:
            waited.set()

    one = worker(scenario.build(), broker, observe=observe, bounded=True, state_dir=str(tmp_path))
    with running(one) as (_, ended):
        until(waited.is_set)
        assert not ended
        held.close()
        until(lambda: bool(ended))
    assert isinstance(ended[0], Summary)
    assert ended[0].finished
    assert ended[0].records_in == 20


def test_an_error_of_one_worker_leaves_its_tasks_to_the_others(broker: Broker) -> None:
    """They meet the same record, and stop there too: nothing behind it is read."""
    job = Job("failing")

    def checked(value: str) -> str:
        if value == "bad":
            raise ValueError(value)
        return value

    job.stream("rows", value=str).map(checked).to("out")
    broker.admin.create_topic("rows", 2)
    producer = broker.producer()
    with (
        running(worker(job, broker, worker_id="a")) as (_, first),
        running(worker(job, broker, worker_id="b")) as (_, second),
    ):
        for value in (b"good", b"bad", b"after"):
            send(producer, TopicPartition("rows", 1), None, value)
        producer.flush()
        until(lambda: bool(first) and bool(second))
    assert isinstance(first[0], ProcessingError)
    assert isinstance(second[0], ProcessingError)
    assert [value for _, value, _ in read(broker, "out")] in ([b"good"], [])
