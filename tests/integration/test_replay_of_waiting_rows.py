"""A replay of a job in which rows wait for other inputs ends, and says why nothing can be compared."""

import functools
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import orjson
import pytest
from sales_job import Row, priced, sales_job, shop_of
from workers import read, running, send, until, worker

from streamkit import Job
from streamkit.broker import Broker, open_broker
from streamkit.records import TopicPartition
from streamkit.runtime import RunOptions
from streamkit.runtime.comparing import Comparison
from streamkit.runtime.position import Note
from streamkit.runtime.replay import Replay, ReplayEnvironment
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

pytestmark = [pytest.mark.slow, pytest.mark.timeout(40)]


class Visit(TypedDict):
    ts: int
    text: str


def stamped(visit: Visit, price: Row) -> Row:
    return {"ts": visit["ts"], "price": price["price"]}


def visits_job() -> Job:
    """Visits are joined in the task that sales come to through a shuffle."""
    job = Job("visits")
    sales = job.stream("sales", key=str, value=Row, timestamp="ts")
    visits = job.stream("visits", key=str, value=Visit, timestamp="ts")
    prices = job.table("prices", key=str, value=Row, timestamp="ts")
    sales.key_by(shop_of, shards=1, name="by_shop").join(prices, priced, name="priced").to("out")
    visits.join(prices, stamped, name="stamped").to("seen")
    return job


class Directory:
    """A log and a state directory of one job."""

    def __init__(self, path: Path, job: Job) -> None:
        self.job, self.state_dir = job, str(path / "state")
        self.broker: Broker = open_broker(f"log://{path}/log")

    def fill(self, stamps_ms: Mapping[str, list[int]], text: str = "") -> None:
        producer = self.broker.producer()
        for topic, stamps in stamps_ms.items():
            if topic not in self.broker.admin.describe_topics():
                self.broker.admin.create_topic(topic, 1)
            for ts in stamps:
                send(producer, TopicPartition(topic, 0), b"1", _row(topic, ts, text))
        producer.flush()
        producer.close()

    def run_bounded(self) -> None:
        worker(self.job, self.broker, state_dir=self.state_dir, bounded=True).run(threading.Event())

    def running(self) -> Any:
        return running(worker(self.job, self.broker, state_dir=self.state_dir))

    def committed(self) -> dict[str, tuple[int, int]]:
        """Return how far each topic's partition 0 was handed on, and read."""
        found = {}
        for place, committed in self.broker.group(self.job.name).committed().items():
            further = Note.from_text(committed.metadata).read_offset
            found[place.topic] = (committed.offset, max(committed.offset, further))
        return found

    def has_read(self, counts: Mapping[str, int]) -> bool:
        committed = self.committed()
        return all(topic in committed and committed[topic][1] == count for topic, count in counts.items())

    def stamps_ms(self, topic: str) -> list[int]:
        return [orjson.loads(value or b"")["ts"] for _, value, _ in read(self.broker, topic)]

    def replay(self) -> list[Comparison]:
        environment = ReplayEnvironment(
            broker=self.broker,
            state_dir=self.state_dir,
            options=RunOptions(),
            fs=SystemFileSystem(),
            clock=SystemClock(),
        )
        return Replay(compile_graph(self.job.build()), environment).run()


def _row(topic: str, ts: int, text: str) -> bytes:
    return orjson.dumps({"ts": ts, "text": text} if topic == "visits" else {"shop": 1, "price": 5, "ts": ts})


@pytest.fixture
def sales(tmp_path: Path) -> Iterator[Directory]:
    directory = Directory(tmp_path, sales_job())
    yield directory
    directory.broker.close()


def test_after_a_run_in_which_rows_of_several_blocks_wait_a_replay_ends(sales: Directory) -> None:
    sales.fill({"prices": [1, 2], "sales": []})
    with sales.running():
        for count in (1, 2, 3):
            sales.fill({"sales": [9 + count]})
            until(functools.partial(sales.has_read, {"sales": count}))
    comparisons = sales.replay()
    assert {one.equal for one in comparisons} == {None}
    assert {one.reason for one in comparisons} == {
        "rows wait in sales-by_shop-repartition-0 for rows of other inputs that come before them"
    }


def test_rows_that_wait_do_so_after_a_replay_too(sales: Directory) -> None:
    sales.fill({"prices": [1, 2], "sales": [10, 11, 12]})
    with sales.running():
        until(functools.partial(sales.has_read, {"sales": 3, "prices": 2}))
    sales.replay()
    assert sales.stamps_ms("out") == []
    sales.fill({"prices": [20]})
    with sales.running():
        until(lambda: sales.stamps_ms("out") == [10, 11, 12])


@pytest.mark.parametrize("count", [1, 90])
def test_rows_that_the_end_of_an_earlier_run_let_go_wait_in_a_replay_that_ends(tmp_path: Path, count: int) -> None:
    """Of 90 visits more would wait than a source holds: the last of them are not even read."""
    later = Directory(tmp_path, visits_job())
    later.fill({"prices": [1, 40], "sales": [20]})
    later.fill({"visits": [30] * count}, "v" * 500_000)
    later.run_bounded()
    assert later.stamps_ms("seen") == [30] * count
    with later.running():
        until(lambda: later.broker.group("visits").members() != [])
    comparisons = later.replay()
    assert {one.equal for one in comparisons} == {None}
    assert {one.reason for one in comparisons} == {
        "the job has made 2 runs, and what one leaves in the store prices is not known"
    }
    assert later.stamps_ms("seen") == []
    assert later.committed()["visits"][0] == 0
    assert (later.committed()["visits"][1] == count) == (count == 1)
    later.fill({"sales": [31], "prices": [41]})
    with later.running():
        until(lambda: later.stamps_ms("seen") == [30] * count)
    later.broker.close()
