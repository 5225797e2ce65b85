"""A replay of a job in which rows wait for other inputs ends, and says why nothing can be compared."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from workers import running, send, until, worker

from streamkit import Job
from streamkit.broker import Broker, open_broker
from streamkit.records import TopicPartition
from streamkit.runtime import RunOptions
from streamkit.runtime.comparing import Comparison
from streamkit.runtime.position import Note
from streamkit.runtime.replay import Replay, ReplayEnvironment
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

Row = dict[str, int]


def shop_of(row: Row) -> str:
    return str(row["shop"])


def priced(row: Row, price: Row) -> Row:
    return {**row, "price": price["price"]}


def sales_job() -> Job:
    """Sales wait, behind their shuffle, for prices."""
    job = Job("sales")
    sales = job.stream("sales", key=str, value=Row, timestamp="ts")
    prices = job.table("prices", key=str, value=Row, timestamp="ts")
    sales.key_by(shop_of, shards=1, name="by_shop").join(prices, priced, name="priced").to("out")
    return job


class Directory:
    """A log and a state directory of one job."""

    def __init__(self, path: Path, job: Job) -> None:
        self.job, self.state_dir = job, str(path / "state")
        self.broker: Broker = open_broker(f"log://{path}/log")

    def fill(self, stamps_ms: Mapping[str, list[int]]) -> None:
        producer = self.broker.producer()
        for topic, stamps in stamps_ms.items():
            if topic not in self.broker.admin.describe_topics():
                self.broker.admin.create_topic(topic, 1)
            for ts in stamps:
                send(producer, TopicPartition(topic, 0), b"1", orjson.dumps({"shop": 1, "price": 5, "ts": ts}))
        producer.flush()
        producer.close()

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

    def replay(self) -> list[Comparison]:
        environment = ReplayEnvironment(
            broker=self.broker,
            state_dir=self.state_dir,
            options=RunOptions(),
            fs=SystemFileSystem(),
            clock=SystemClock(),
        )
        return Replay(compile_graph(self.job.build()), environment).run()


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
