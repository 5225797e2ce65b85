"""The worker with its threads, over the embedded log in memory and on disk."""

import collections
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from scenarios import SCENARIOS
from workers import fill, many, read, send, worker

from streamkit import Job
from streamkit.broker import Broker, open_broker
from streamkit.errors import ProcessingError
from streamkit.records import TopicPartition
from streamkit.runtime import Guarantee, Progress, RunOptions, Worker
from streamkit.seams import ManualClock, MemoryFileSystem, SeededRng, SystemClock, SystemFileSystem, SystemRng
from streamkit.topology import compile_graph


@pytest.fixture(params=["memory", "log"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    if request.param == "memory":
        opened = open_broker("memory://", fs=MemoryFileSystem(), clock=SystemClock(), rng=SeededRng(0))
    else:
        opened = open_broker(f"log://{tmp_path}/log", fs=SystemFileSystem(), clock=SystemClock(), rng=SystemRng())
    yield opened
    opened.close()


@pytest.fixture
def memory_broker() -> Iterator[Broker]:
    opened = open_broker("memory://", fs=MemoryFileSystem(), clock=SystemClock(), rng=SeededRng(0))
    yield opened
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_bounded_run_gives_what_the_stepped_machine_gives(
    name: str, guarantee: Guarantee, broker: Broker, tmp_path: Path
) -> None:
    scenario, partitions = SCENARIOS[name], many(3, 150)
    machine = scenario.machine(3)
    scenario.fill(machine, partitions)
    machine.run_bounded(random.Random(1))
    fill(broker, scenario, partitions)
    summary = worker(
        scenario.build(), broker, bounded=True, guarantee=guarantee, state_dir=str(tmp_path / "state")
    ).run(threading.Event())
    assert summary.finished
    assert summary.records_in >= 450
    for topic, expected in scenario.facts(machine).items():
        assert collections.Counter(read(broker, topic)) == expected


@pytest.mark.slow
def test_stopping_finishes_the_commit_and_the_next_run_goes_on(broker: Broker, tmp_path: Path) -> None:
    """However often it is stopped: as if it had never been."""
    scenario, partitions = SCENARIOS["columns"], many(3, 300)
    machine = scenario.machine(3)
    scenario.fill(machine, partitions)
    machine.run_bounded(random.Random(1))
    fill(broker, scenario, partitions)
    stops = 0
    while True:
        stop, commits = threading.Event(), [0]

        def observe(step: str, stop: threading.Event = stop, commits: list[int] = commits) -> None:
            if step == "send_blocks":
                commits[0] += 1
                if commits[0] == 4:
                    stop.set()

        options = {"bounded": True, "state_dir": str(tmp_path / "state"), "commit_bytes_max": 1000}
        summary = worker(scenario.build(), broker, observe=observe, **options).run(stop)
        if summary.finished:
            break
        stops += 1
    assert stops >= 2
    assert {topic: collections.Counter(read(broker, topic)) for topic in ("out", "late")} == scenario.facts(machine)
    again = worker(scenario.build(), broker, bounded=True).run(threading.Event())
    assert again.already_finished
    assert again.records_in == 0


def failing_job() -> Job:
    """A function that cannot take one value."""
    job = Job("failing")
    rows = job.stream("rows", value=str)

    def checked(value: str) -> str:
        if value == "bad":
            message = "this one is bad"
            raise ValueError(message)
        return value

    rows.map(checked).to("out")
    return job


@pytest.mark.slow
def test_an_error_in_one_task_stops_the_worker_and_the_next_run_stops_at_the_same_record(broker: Broker) -> None:
    """What other tasks and this one have committed stays, and nothing stands twice."""
    broker.admin.create_topic("rows", 2)
    producer = broker.producer()
    good = [b"%d" % number for number in range(200)]
    for value in good:
        send(producer, TopicPartition("rows", 0), None, value)
    for value in (b"before", b"bad", b"after"):
        send(producer, TopicPartition("rows", 1), None, value)
    producer.flush()
    places = []
    for _ in range(2):
        with pytest.raises(ProcessingError, match="this one is bad") as caught:
            worker(failing_job(), broker, fetch_bytes_max=1).run(threading.Event())
        places.append((caught.value.topic, caught.value.partition, caught.value.offset, caught.value.node))
        assert isinstance(caught.value.__cause__, ValueError)
    assert places == [("rows", 1, 1, "checked")] * 2
    made = collections.Counter(value for _, value, _ in read(broker, "out"))
    assert made.keys() <= {*good, b"before"}
    assert set(made.values()) <= {1}
    committed = broker.group("failing").committed()
    assert committed[TopicPartition("rows", 1)].offset <= 1
    assert committed[TopicPartition("rows", 0)].offset == sum(value in set(good) for value in made)


@pytest.mark.slow
def test_two_threads_never_run_one_task_at_once(memory_broker: Broker) -> None:
    job, inside, most = Job("alone"), collections.Counter[int](), collections.Counter[int]()
    rows = job.stream("readings", value=dict[str, Any])

    def watched(row: dict[str, Any]) -> dict[str, Any]:
        partition = row["partition"]
        inside[partition] += 1
        most[partition] = max(most[partition], inside[partition])
        sum(range(200))
        inside[partition] -= 1
        return row

    rows.map(watched).to("out")
    memory_broker.admin.create_topic("readings", 4)
    producer = memory_broker.producer()
    for partition in range(4):
        for _ in range(200):
            send(producer, TopicPartition("readings", partition), None, orjson.dumps({"partition": partition}))
    producer.flush()
    worker(job, memory_broker, bounded=True, thread_count=4, fetch_bytes_max=500).run(threading.Event())
    assert most == dict.fromkeys(range(4), 1)
    assert len(read(memory_broker, "out")) == 800


class HurriedClock(ManualClock):
    """Every look at it is a second later, so that progress is told all the time."""

    def monotonic_ms(self) -> float:
        self.advance(1000)
        return super().monotonic_ms()


@pytest.mark.slow
def test_progress_is_told_while_state_in_memory_changes(memory_broker: Broker) -> None:
    """State size and totals are read by the worker's thread while others commit."""
    scenario = SCENARIOS["table"]
    fill(memory_broker, scenario, many(2, 400))
    told: list[Progress] = []
    options = RunOptions(bounded=True, commit_interval_ms=1, fetch_bytes_max=500)
    topology = compile_graph(scenario.build().build())
    one = Worker(topology, memory_broker, options=options, fs=SystemFileSystem(), clock=HurriedClock())
    summary = one.run(threading.Event(), told.append)
    assert summary.records_in == 800
    assert told[-1].lag == 0
    assert told[0].records_in <= told[-1].records_in
    assert max(progress.state_bytes for progress in told) > 0


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".sst", "CURRENT", "MANIFEST"])
def test_a_damaged_state_directory_is_set_aside_and_restored(suffix: str, tmp_path: Path) -> None:
    """Damage between two runs, in each kind of file that RocksDB needs."""
    scenario, partitions = SCENARIOS["table"], many(2, 100)
    broker = open_broker(f"log://{tmp_path}/log", fs=SystemFileSystem(), clock=SystemClock(), rng=SystemRng())
    fill(broker, scenario, partitions)
    state_dir = tmp_path / "state"
    worker(scenario.build(), broker, bounded=True, state_dir=str(state_dir)).run(threading.Event())
    first = collections.Counter(read(broker, "out"))
    damaged = [path for path in state_dir.rglob("*") if path.is_file() and suffix in path.name]
    assert damaged
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-7] + b"nothing" if suffix == ".sst" else b"")
    send_more(broker)
    worker(scenario.build(), broker, bounded=True, go_on=True, state_dir=str(state_dir)).run(threading.Event())
    assert list(state_dir.rglob("*.damaged-1"))
    expected = collections.Counter(sensor for rows in partitions for sensor, _, _ in rows) + collections.Counter("a")
    latest = {key: value for key, value, _ in read(broker, "out")}
    assert latest == {sensor.encode(): b"%d" % count for sensor, count in expected.items()}
    assert sum((collections.Counter(read(broker, "out")) - first).values()) == 1, "only the changed key is written"
    broker.close()


def send_more(broker: Broker) -> None:
    producer = broker.producer()
    send(producer, TopicPartition("readings", 0), b"a0", orjson.dumps({"sensor": "a", "value": 1, "ts": 999}))
    producer.flush()
    producer.close()
