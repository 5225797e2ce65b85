"""What catching up costs: windows that live inside one commit touch nothing, and combining saves shuffle rows."""

import random

import orjson
import pytest
from faults import WatchedStores
from machine import Machine
from scenarios import SCENARIOS, Reading, Rows, Scenario, ms

from jobs import word_count
from streamkit import Job, Tumbling, agg
from streamkit.broker import EARLIEST
from streamkit.records import TopicPartition
from streamkit.runtime import Guarantee
from streamkit.runtime.reading import read_to
from streamkit.state import POSITION_KEY
from streamkit.testing import TestDriver

WIDE: list[Rows] = [[(sensor, 1, ts) for ts in range(0, 2000, 5) for sensor in "abc"]]
"""One hundred windows of three keys."""


def changelog_keys(machine: Machine, topic: str) -> list[bytes | None]:
    keys: list[bytes | None] = []
    for partition in range(machine.broker.admin.describe_topics()[topic].partition_count):
        place = TopicPartition(topic, partition)
        start = machine.broker.admin.list_offsets({place: EARLIEST})[place]
        for records in read_to(machine.broker, machine.broker.fetcher(), place, start):
            keys.extend(records.keys)
    return keys


def catch_up(machine: Machine, rng: random.Random) -> None:
    """Read everything in one go, task by task, one commit each."""
    while not machine.finished:
        for runner in sorted(machine.runners, key=lambda runner: runner.plan.task_id):
            for part in machine.fetcher.fetch(runner.task.positions(), wait_ms=0, bytes_max=10_000_000):
                runner.feed(part)
            if runner.task.dirty:
                runner.finish(runner.seal())


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize(("name", "store"), [("columns", "stats"), ("python", "count"), ("ordered", "listed")])
def test_windows_that_live_inside_one_commit_touch_neither_store_nor_changelog(
    name: str, store: str, guarantee: Guarantee
) -> None:
    scenario = SCENARIOS[name]
    machine = scenario.machine(1, guarantee)
    machine.stores = stores = WatchedStores()
    scenario.fill(machine, WIDE)
    machine.open(bounded=True)
    scans_to_open = sum(opened.scan_count for opened in stores.opened)
    catch_up(machine, random.Random(1))
    assert len(machine.read("out")) == 300
    assert set(changelog_keys(machine, f"{name}-{store}-changelog")) == {POSITION_KEY}
    asked = {key for opened in stores.opened for key in opened.asked}
    written = {key for opened in stores.opened for key in opened.written}
    if name == "ordered":
        # Its other aggregation, which has no windows, keeps its keys; the windows' keys are longer.
        asked = {key for key in asked if len(key) > 10 or key == POSITION_KEY}
        written = {key for key in written if len(key) > 10 or key == POSITION_KEY}
    else:
        assert sum(opened.scan_count for opened in stores.opened) == scans_to_open
    assert asked == written == {POSITION_KEY}
    assert sum(opened.range_count for opened in stores.opened) == 0


def test_many_open_windows_do_not_make_the_position_larger() -> None:
    """A position is one record of the changelog, and records have a limit. A quiet partition holds windows open."""
    scenario = SCENARIOS["columns"]
    machine = scenario.machine(2)
    scenario.fill(machine, [[("a", 1, 20 * window) for window in range(500)], [("a", 1, 0)]])
    machine.open(bounded=False)
    largest_bytes = pair_count = 0
    for runner in machine.runners * 2:
        for part in machine.fetcher.fetch(runner.task.positions(), wait_ms=0, bytes_max=10_000_000):
            runner.feed(part)
        if runner.task.dirty:
            sealed = runner.seal()
            largest_bytes = max(largest_bytes, len(orjson.dumps(sealed.position.to_json())))
            runner.finish(sealed)
        pair_count += sum(aggregate.digest.pair_count for aggregate in runner.task.aggregates)
    assert pair_count >= 500, "the windows are open, and stored"
    assert largest_bytes < 1000


def test_only_windows_that_are_open_at_a_commit_are_stored_and_read() -> None:
    scenario = SCENARIOS["columns"]
    machine = scenario.machine(1)
    machine.stores = stores = WatchedStores()
    scenario.fill(machine, [WIDE[0][:600]])
    machine.open(bounded=False)
    rng = random.Random(2)
    machine.drain(rng)
    scenario.fill(machine, [WIDE[0][600:]])
    before = len(machine.read("out"))
    machine.drain(rng)
    made = len(machine.read("out")) - before
    assert made > 100
    read_count = sum(key != POSITION_KEY for opened in stores.opened for key in opened.asked)
    assert read_count < made


def test_the_combiner_leaves_one_shuffle_row_a_key_and_one_record_a_shard() -> None:
    """Sixty words of three kinds in one commit; a shuffle of rows would have written sixty records."""
    with TestDriver(word_count.job) as driver:
        for _ in range(10):
            driver.send("lines", "a b c a b c")
        driver.process()
        driver.commit()
        assert driver.shuffle_rows() == (60, 3)
        in_record_batches = driver.record_count("word_count-by_word-repartition")
        # A block for each shard: those that got no row get one that says how far the channel is.
        assert 0 < in_record_batches <= 8
        assert driver.table("counts") == {"a": 20, "b": 20, "c": 20}


def no_grace() -> Job:
    """Two levels of windows, both with grace 0, each behind a shuffle."""
    job = Job("no_grace")
    readings = job.stream("readings", value=Reading, timestamp="ts")
    grace = ms(0)
    fine = readings.group_by("sensor", type=str, name="by_sensor", shards=2).window(Tumbling(ms(10), grace=grace))
    fine.late.to("late")

    def everything(row: dict[str, int]) -> str:
        return "all"

    results = fine.agg({"n": agg.count()}, name="fine").to_stream()
    coarse = results.group_by(everything, shards=1).window(Tumbling(ms(30), grace=grace))
    coarse.late.to("late")
    coarse.agg({"n": agg.sum("n")}, name="coarse").to("out")
    return job


@pytest.mark.slow
def test_tasks_that_run_far_apart_in_event_time_lose_nothing_with_grace_zero() -> None:
    """Where Kafka Streams drops: one upstream task is done before the others begin, and the readers keep pace."""
    scenario = Scenario(build=no_grace)
    expected = None
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        machine = scenario.machine(3)
        scenario.fill(machine, [[("k", 1, ts) for ts in range(partition, 600, 3)] for partition in range(3)])
        machine.open(bounded=True)
        upstream = [runner for runner in machine.runners if runner.plan.sub.source_topics]
        for partition in order:
            runner = upstream[partition]
            while not runner.task.finished:
                for part in machine.fetcher.fetch(runner.task.positions(), wait_ms=0, bytes_max=1000):
                    runner.feed(part)
                runner.finish(runner.seal())
                for reader in machine.runners:
                    if reader not in upstream:
                        for part in machine.fetcher.fetch(reader.task.positions(), wait_ms=0, bytes_max=100_000):
                            reader.feed(part)
                        if reader.task.dirty:
                            reader.finish(reader.seal())
        catch_up(machine, random.Random(3))
        assert machine.read("late") == []
        made = scenario.facts(machine)
        assert expected is None or made == expected
        expected = made
    assert expected is not None
    assert sum(expected["out"].values()) == 20
    values = [orjson.loads(value or b"")["n"] for _, value, _ in expected["out"]]
    assert values == [30] * 20
