"""What runs owe each other: nothing is published twice, nothing is left out, nobody is overtaken."""

import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, cast

import orjson
import pytest
from machine import Crashed, Machine

from streamkit import Job, Tumbling, agg
from streamkit.broker import Broker, CommittedOffset, Group
from streamkit.errors import ProducerFencedError
from streamkit.records import TopicPartition
from streamkit.runtime.options import RunOptions
from streamkit.runtime.setup import prepare
from streamkit.runtime.task_plan import unchecked
from streamkit.testing import TestDriver
from streamkit.topology import compile_graph


def ms(count: int) -> timedelta:
    return timedelta(milliseconds=count)


def row(ts: int, n: int = 1) -> bytes:
    return orjson.dumps({"n": n, "ts": ts})


def starts(machine: Machine, topic: str = "out") -> list[tuple[bytes | None, int]]:
    return sorted((key, orjson.loads(value or b"")["window_start"]) for key, value, _ in machine.read(topic))


def keyed_windows(name: str = "keyed") -> Job:
    job = Job(name)
    rows = job.stream("rows", key=str, timestamp="ts")
    windows = rows.group_by_key().window(Tumbling(ms(10), grace=ms(0)))
    windows.agg({"n": agg.sum("n")}, name="sums").to("out")
    windows.late.to("late")
    return job


def test_an_ordered_fold_goes_on_from_the_store_in_the_commit_that_closes_its_window() -> None:
    job = Job("listing")
    rows = job.stream("rows", key=str, timestamp="ts")
    windows = rows.group_by_key().window(Tumbling(ms(10), grace=ms(0)))

    def listed(values: list[int], value: dict[str, int]) -> list[int]:
        return [*values, value["n"]]

    windows.aggregate(listed, initial=list[int]).to("out")
    with TestDriver(job) as driver:
        driver.send("rows", {"ts": 1, "n": 1}, key="a")
        driver.send("rows", {"ts": 1, "n": 7}, key="b")
        driver.commit()
        driver.send("rows", {"ts": 2, "n": 2}, key="a")
        driver.send("rows", {"ts": 30, "n": 3}, key="a")
        driver.commit()
        made = {key: value["value"] for key, value in driver.sent("out")}
        assert made == {"a": [1, 2], "b": [7]}


def test_a_result_of_a_window_that_an_earlier_run_published_at_the_next_level_is_late_there() -> None:
    """The fine window [20, 30) is new in the second run; the coarse one [0, 30) was published by the first."""
    job = Job("levels")
    rows = job.stream("rows", key=str, timestamp="ts")
    fine = rows.group_by_key().window(Tumbling(ms(10), grace=ms(0))).agg({"n": agg.sum("n")}, name="fine")
    fine.to("fine")
    coarse = fine.to_stream().group_by_key().window(Tumbling(ms(30), grace=ms(0)))
    coarse.agg({"n": agg.sum("n")}, name="coarse").to("out")
    coarse.late.to("late")
    machine = Machine(job, {"rows": 1})
    machine.send("rows", 0, [(b"a", row(15), 0)])
    rng = random.Random(1)
    machine.run_bounded(rng)
    machine.send("rows", 0, [(b"a", row(25), 0), (b"a", row(35), 0)])
    machine.run_bounded(rng, go_on=True)
    assert starts(machine, "fine") == [(b"a", 10), (b"a", 20), (b"a", 30)]
    assert starts(machine) == [(b"a", 0), (b"a", 30)]
    assert [stamp for _, _, stamp in machine.read("late")] == [29]


def test_an_unbounded_run_after_a_bounded_one_that_was_cut_short_takes_the_rest_on_time() -> None:
    """Partition 0 was read to its end, and its windows closed; partition 1 was not: its windows are open."""
    machine = Machine(keyed_windows(), {"rows": 2})
    machine.send("rows", 0, [(b"a", row(100), 0)])
    machine.send("rows", 1, [(b"b", row(1), 0), (b"b", row(12), 0)])
    machine.open(bounded=True)
    first = next(runner for runner in machine.runners if runner.plan.partition == 0)
    for part in machine.fetcher.fetch(first.task.positions(), wait_ms=0, bytes_max=10_000):
        first.feed(part)
    first.finish(first.seal())
    machine.close()
    machine.send("rows", 1, [(b"b", row(40), 0)])
    machine.send("rows", 0, [(b"a", row(105), 0), (b"a", row(120), 0), (b"a", row(140), 0)])
    machine.open(bounded=False)
    rng = random.Random(2)
    for _ in range(60):
        machine.step(rng)
    assert starts(machine) == [(b"a", 100), (b"a", 120), (b"b", 0), (b"b", 10)]
    assert machine.read("late") == [(b"a", row(105), 105)], "its window was published by the end of the bounded run"


def test_an_unbounded_run_writes_what_a_bounded_one_left_unwritten() -> None:
    """A table without windows is written at the end of a bounded run, which did not come."""
    job = Job("table")
    job.stream("rows", key=str).group_by_key().count(name="counts").to("out")
    machine = Machine(job, {"rows": 1})
    machine.send("rows", 0, [(b"a", b"1", 0), (b"b", b"1", 0)])
    machine.open(bounded=True)
    (runner,) = machine.runners
    for part in machine.fetcher.fetch(runner.task.positions(), wait_ms=0, bytes_max=1):
        runner.feed(part)
    runner.finish(runner.seal())
    assert machine.read("out") == []
    machine.close()
    rng = random.Random(3)
    machine.open(bounded=False)
    for _ in range(30):
        machine.step(rng)
    machine.close()
    assert {key: value for key, value, _ in machine.read("out")} == {b"a": b"1", b"b": b"1"}
    count = len(machine.read("out"))
    machine.open(bounded=False)
    for _ in range(10):
        machine.step(rng)
    assert len(machine.read("out")) == count, "it is written once"


def counting(*, more: bool = False) -> Job:
    job = Job("table")
    job.stream("rows", key=str).group_by_key().count(name="counts").to("out")
    if more:
        job.stream("more", key=str).to("copied")
    return job


def leave(machine: Machine, *, bounded: bool = True) -> None:
    """Commit one record batch of a run, and leave the run."""
    machine.open(bounded=bounded)
    runner = machine.runners[0]
    for part in machine.fetcher.fetch(runner.task.positions(), wait_ms=0, bytes_max=1):
        runner.feed(part)
    sealed = runner.seal()
    assert sealed is not None
    runner.finish(sealed)
    assert not runner.task.finished
    machine.close()


def begin_only(machine: Machine, *, bounded: bool = False) -> None:
    """Fix a run, and die before a task is opened."""
    prepare(machine.topology, machine.broker, RunOptions(bounded=bounded), unchecked)


@pytest.mark.parametrize("runs", [[], [begin_only], [begin_only, leave, begin_only], [leave, begin_only]])
@pytest.mark.parametrize("bounded", [False, True])
def test_what_a_bounded_run_left_is_written_once_however_many_runs_were_left_since(
    runs: list[Callable[[Machine], None]], bounded: bool
) -> None:
    machine = Machine(counting(), {"rows": 1})
    keys = [b"%d" % number for number in range(6)]
    machine.send("rows", 0, [(key, b"1", 0) for key in keys])
    leave(machine)
    for run in runs:
        run(machine)
    assert machine.read("out") == []
    machine.run(random.Random(0), bounded=bounded)
    assert sorted(machine.read("out")) == [(key, b"1", 0) for key in keys]


def test_a_task_that_wrote_what_was_left_does_not_write_it_again_in_the_runs_after() -> None:
    machine = Machine(counting(), {"rows": 1})
    keys = [b"%d" % number for number in range(6)]
    machine.send("rows", 0, [(key, b"1", 0) for key in keys])
    for bounded in (True, False, True, False):
        leave(machine, bounded=bounded)
    machine.run_bounded(random.Random(0))
    assert sorted(machine.read("out")) == [(key, b"1", 0) for key in keys]


def test_what_a_bounded_run_left_is_written_though_the_unbounded_one_after_it_is_begun_anew_for_a_new_source() -> None:
    machine = Machine(counting(), {"rows": 1, "more": 1})
    machine.send("rows", 0, [(b"a", b"1", 0), (b"b", b"1", 0)])
    leave(machine)
    begin_only(machine)
    machine.topology = compile_graph(counting(more=True).build())
    machine.run(random.Random(0), bounded=False)
    assert sorted(machine.read("out")) == [(b"a", b"1", 0), (b"b", b"1", 0)]


def test_a_table_is_written_once_though_its_task_is_opened_again_before_its_other_input_ends() -> None:
    job = Job("uneven")
    one, two = job.stream("one", key=str), job.stream("two", key=str)
    one.group_by_key().count(name="counts").to("counted")
    one.merge(two).to("both")
    machine = Machine(job, {"one": 1, "two": 1})
    machine.send("one", 0, [(b"a", b"1", 0)])
    machine.send("two", 0, [(b"b", b"1", 0), (b"b", b"2", 0), (b"b", b"3", 0)])
    machine.open(bounded=True)
    (runner,) = machine.runners
    place = TopicPartition("one", 0)
    for part in machine.fetcher.fetch({place: 0}, wait_ms=0, bytes_max=10_000):
        runner.feed(part)
    runner.finish(runner.seal())
    machine.crash()
    machine.run_bounded(random.Random(4))
    assert machine.read("counted") == [(b"a", b"1", 0)]


def test_results_that_become_facts_have_an_order_that_commits_do_not_change() -> None:
    """`last` of results with one timestamp: whichever came first into the window, the larger key wins."""
    for keys in (["a", "b"], ["b", "a"]):
        job = Job("facts")
        rows = job.stream("rows", key=str, timestamp="ts")
        fine = rows.group_by_key().window(Tumbling(ms(10), grace=ms(0))).agg({"n": agg.sum("n")}, name="fine")

        def all_rows(value: dict[str, int]) -> str:
            return "all"

        coarse = fine.to_stream().group_by(all_rows, shards=1).window(Tumbling(ms(10), grace=ms(0)))
        coarse.agg({"first": agg.first("n"), "last": agg.last("n")}, name="coarse").to("out")
        with TestDriver(job) as driver:
            for key in keys:
                driver.send("rows", {"ts": 1, "n": ord(key)}, key=key)
            driver.send("rows", {"ts": 30, "n": 0}, key="z")
            driver.end()
            result = {"window_start": 0, "window_end": 10, "first": ord("a"), "last": ord("b")}
            assert driver.sent("out")[0] == ("all", result)


def test_the_timestamp_of_a_table_written_at_the_end_does_not_depend_on_a_crash() -> None:
    """One channel has ended and is committed; after a crash its watermark still counts."""
    job = Job("stamps")

    def itself(value: dict[str, int]) -> str:
        return "k"

    job.stream("rows", timestamp="ts").group_by(itself, shards=1).count(name="counts").to("out")
    machine = Machine(job, {"rows": 2})
    machine.send("rows", 0, [(None, row(500), 0)])
    machine.send("rows", 1, [(None, row(5), 0)])
    machine.open(bounded=True)
    by_id = {runner.plan.task_id: runner for runner in machine.runners}
    for task_id in ("0_0", "1_0"):
        runner = by_id[task_id]
        for part in machine.fetcher.fetch(runner.task.positions(), wait_ms=0, bytes_max=100_000):
            runner.feed(part)
        runner.finish(runner.seal())
    machine.crash()
    machine.run_bounded(random.Random(5))
    assert machine.read("out") == [(b"k", b"2", 500)]


class Interrupted:
    """A broker where something happens right after the committed offsets were read for the first time."""

    def __init__(self, broker: Broker, interrupt: Callable[[], object]) -> None:
        self._broker, self._interrupts = broker, [interrupt]

    def group(self, name: str) -> "Interrupted.Offsets":
        return Interrupted.Offsets(self._broker.group(name), self._interrupts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    class Offsets:
        def __init__(self, group: Group, interrupts: list[Callable[[], object]]) -> None:
            self.commit, self._group, self._interrupts = group.commit, group, interrupts

        def committed(self) -> Mapping[TopicPartition, CommittedOffset]:
            committed = self._group.committed()
            while self._interrupts:
                self._interrupts.pop()()
            return committed


def test_whoever_fixes_the_next_run_first_takes_the_tasks_from_those_who_still_run_them() -> None:
    """It writes the offsets anew: had a predecessor moved them since they were read, records would be read twice."""
    job = Job("taken")
    job.stream("rows", key=str).to("out")
    machine = Machine(job, {"rows": 1})
    machine.send("rows", 0, [(b"a", b"1", 0)])
    machine.open(bounded=False)
    (older,) = machine.runners
    for part in machine.fetcher.fetch(older.task.positions(), wait_ms=0, bytes_max=1):
        older.feed(part)
    sealed = older.seal()
    machine.broker = cast(Broker, Interrupted(machine.broker, lambda: older.finish(sealed)))
    machine.open(bounded=True)
    machine.send("rows", 0, [(b"a", b"2", 0)])
    for part in machine.fetcher.fetch({TopicPartition("rows", 0): 1}, wait_ms=0, bytes_max=1):
        older.feed(part)
    with pytest.raises(ProducerFencedError, match="a newer producer"):
        older.finish(older.seal())
    older.close()
    rng = random.Random(6)
    while not machine.finished:
        machine.step(rng)
    assert machine.read("out") == [(b"a", b"1", 0)]


def test_a_crash_while_a_bounded_run_is_continued_continues_the_same_run() -> None:
    machine = Machine(keyed_windows("continued"), {"rows": 1})
    machine.send("rows", 0, [(b"a", row(1), 0)])
    rng = random.Random(7)
    machine.run_bounded(rng)
    machine.send("rows", 0, [(b"a", row(2), 0), (b"a", row(25), 0)])
    seen = [0]

    def crash_at(step: str) -> None:
        seen[0] += 1
        if seen[0] in (8, 14, 19):
            machine.send("rows", 0, [(b"a", row(26, n=50), 0)])
            raise Crashed

    machine.crash_at = crash_at
    assert machine.run_bounded(rng, go_on=True) == 3
    made = {
        orjson.loads(value or b"")["window_start"]: orjson.loads(value or b"")["n"]
        for _, value, _ in machine.read("out")
    }
    assert made == {0: 1, 20: 1}
    assert machine.read("late") == [(b"a", row(2), 2)]


def shop(value: dict[str, Any]) -> str:
    return str(value["shop"])


def counted(count: int) -> dict[str, Any]:
    return {"n": count}


@pytest.mark.parametrize("keys", [[], [b"a"]])
def test_a_bounded_run_ends_though_a_task_waits_for_a_shuffle_of_its_own_and_an_input_is_empty(
    keys: list[bytes],
) -> None:
    job = Job("back")
    rows = job.stream("rows", key=str, timestamp="ts")
    windows = rows.key_by(shop, shards=2).group_by_key().window(Tumbling(ms(10), grace=ms(0)))
    windows.count(name="counts").to_stream().map(counted).merge(rows).to("out")
    machine = Machine(job, {"rows": 2})
    machine.send("rows", 0, [(key, orjson.dumps({"shop": "x", "ts": 3}), 0) for key in keys])
    machine.run_bounded(random.Random(0))
    assert len(machine.read("out")) == 2 * len(keys)


def merged(job: Job) -> None:
    one, two = job.stream("two_parts", key=str, timestamp="ts"), job.stream("one_part", key=str, timestamp="ts")
    windows = one.merge(two).key_by(shop, shards=2).group_by_key().window(Tumbling(ms(10), grace=ms(0)))
    windows.count(name="counts").to("out")


def beside(job: Job) -> None:
    one, two = job.stream("two_parts", key=str, timestamp="ts"), job.stream("one_part", key=str, timestamp="ts")
    one.merge(two).to("all")
    windows = two.key_by(shop, shards=2).group_by_key().window(Tumbling(ms(10), grace=ms(0)))
    windows.count(name="counts").to("out")


@pytest.mark.parametrize(("define", "count"), [(merged, 3), (beside, 1)])
@pytest.mark.parametrize("bounded", [True, False])
def test_nobody_waits_for_a_task_that_has_no_partition_of_a_topic(
    define: Callable[[Job], None], count: int, bounded: bool
) -> None:
    job = Job("uneven")
    define(job)
    machine = Machine(job, {"two_parts": 2, "one_part": 1})
    for topic, partition in [("two_parts", 0), ("two_parts", 1), ("one_part", 0)]:
        rows = [(b"a", orjson.dumps({"shop": "x", "ts": ts}), 0) for ts in (3, 30)]
        machine.send(topic, partition, rows)
    machine.run(random.Random(0), bounded=bounded)
    closed = [orjson.loads(value or b"") for _, value, _ in machine.read("out")]
    assert [(row["window_start"], row["value"]) for row in closed] == [(0, count), (30, count)][: 1 + bounded]
