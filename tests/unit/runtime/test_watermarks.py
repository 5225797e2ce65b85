"""The counter-examples of the design: where other systems lose records, or count them twice."""

import random
from datetime import timedelta

import orjson
from machine import Crashed, Machine

from streamkit import Job, Tumbling, agg
from streamkit.broker import EARLIEST
from streamkit.broker.partitioner import partition_of
from streamkit.records import TopicPartition
from streamkit.testing import TestDriver


def row(sensor: str, ts: int, n: int = 1) -> bytes:
    return orjson.dumps({"sensor": sensor, "n": n, "ts": ts})


def shuffled_job(name: str = "shuffled") -> Job:
    job = Job(name)
    rows = job.stream("rows", timestamp="ts")

    def by_sensor(value: dict[str, object]) -> str:
        return str(value["sensor"])

    window = Tumbling(timedelta(milliseconds=10), grace=timedelta(0))
    windows = rows.group_by(by_sensor, shards=2).window(window, emit="final")
    windows.agg({"n": agg.count()}, name="counts").to("out")
    windows.late.to("late")
    return job


def results(machine: Machine) -> dict[tuple[str, int], int]:
    made: dict[tuple[str, int], int] = {}
    for key, value, _ in machine.read("out"):
        result = orjson.loads(value or b"")
        place = ((key or b"").decode(), result["window_start"])
        assert place not in made, "a window was published twice"
        made[place] = result["n"]
    return made


def test_a_windows_result_is_never_late_for_a_larger_window_with_grace() -> None:
    """At watermark 23 the small window [10, 20) with grace 4 is still open, so nothing larger may close.

    Had the small window passed its incoming watermark on, 23 would have closed [0, 20) with grace 1, and the result
    of [10, 20), stamped 19, would have come too late.
    """
    job = Job("levels")
    rows = job.stream("rows", key=str, timestamp="ts")
    small = Tumbling(timedelta(milliseconds=10), grace=timedelta(milliseconds=4))
    large = Tumbling(timedelta(milliseconds=20), grace=timedelta(milliseconds=1))
    fine = rows.group_by_key().window(small).agg({"n": agg.count()}, name="fine")
    coarse = fine.to_stream().group_by_key().window(large).agg({"n": agg.sum("n"), "parts": agg.count()}, name="coarse")
    coarse.to("out")
    with TestDriver(job) as driver:
        for ts in (1, 12, 23):
            driver.send("rows", {"ts": ts}, key="a")
            driver.commit()
        assert driver.sent("out") == []
        for ts in (40, 80):
            driver.send("rows", {"ts": ts}, key="a")
            driver.commit()
        assert driver.sent("out") == [
            ("a", {"window_start": 0, "window_end": 20, "n": 2, "parts": 2}),
            ("a", {"window_start": 20, "window_end": 40, "n": 1, "parts": 1}),
            ("a", {"window_start": 40, "window_end": 60, "n": 1, "parts": 1}),
        ]


def test_an_upstream_task_that_crashes_between_an_early_and_a_late_record_still_knows_it_is_late() -> None:
    """The source's watermark is in the position of a task that has no store."""
    machine = Machine(shuffled_job(), {"rows": 1})
    machine.send("rows", 0, [(None, row("a", 25), 0)])
    rng = random.Random(1)
    assert machine.open(bounded=False)
    for _ in range(20):
        machine.step(rng)
    assert machine.committed()[TopicPartition("rows", 0)] == 1
    machine.crash()
    machine.send("rows", 0, [(None, row("a", 3), 0), (None, row("a", 26), 0)])
    machine.run_bounded(rng)
    assert results(machine) == {("a", 20): 2}
    assert [value for _, value, _ in machine.read("late")] == [row("a", 3)]


def test_a_lost_directory_after_the_repartition_topic_was_trimmed_is_restored() -> None:
    """The channel watermarks and the open windows come from the changelog, not from the shuffle."""
    machine = Machine(shuffled_job(), {"rows": 2})
    rng = random.Random(2)
    machine.send("rows", 0, [(None, row("a", 1), 0), (None, row("b", 2), 0)])
    machine.send("rows", 1, [(None, row("a", 3), 0)])
    assert machine.open(bounded=False)
    for _ in range(60):
        machine.step(rng)
    for runner in machine.runners:
        if runner.task.dirty:
            runner.finish(runner.seal())
    topic = "shuffled-by_sensor-repartition"
    places = {place: at for place, at in machine.committed().items() if place.topic == topic}
    assert sum(places.values()) > 0
    machine.broker.admin.delete_records(places)
    assert machine.broker.admin.list_offsets(dict.fromkeys(places, EARLIEST)) == places
    machine.close()
    machine.stores.stores.clear()
    machine.send("rows", 0, [(None, row("a", 4), 0)])
    machine.run_bounded(rng)
    assert results(machine) == {("a", 0): 3, ("b", 0): 1}
    assert machine.read("late") == []


def test_a_bounded_run_that_is_resumed_after_new_input_arrived_ends_where_the_first_would_have() -> None:
    machine = Machine(shuffled_job(), {"rows": 2})
    machine.send("rows", 0, [(None, row("a", ts), 0) for ts in (1, 2, 11)])
    machine.send("rows", 1, [(None, row("a", ts), 0) for ts in (3, 12)])
    countdown = [9]

    def crash_at(step: str) -> None:
        countdown[0] -= 1
        if countdown[0] == 0:
            machine.send("rows", 1, [(None, row("a", 13), 0), (None, row("b", 50), 0)])
            raise Crashed

    machine.crash_at = crash_at
    assert machine.run_bounded(random.Random(3)) == 1
    assert results(machine) == {("a", 0): 3, ("a", 10): 2}


def test_records_of_windows_that_a_finished_bounded_run_published_are_late_in_the_next() -> None:
    machine = Machine(shuffled_job(), {"rows": 2})
    machine.send("rows", 0, [(None, row("a", 1), 0)])
    machine.send("rows", 1, [(None, row("a", 12), 0)])
    rng = random.Random(4)
    machine.run_bounded(rng)
    assert results(machine) == {("a", 0): 1, ("a", 10): 1}
    machine.send("rows", 0, [(None, row("a", 15), 0), (None, row("a", 21), 0)])
    assert not machine.open(bounded=True), "a finished bounded run is finished"
    machine.run_bounded(rng, go_on=True)
    assert results(machine) == {("a", 0): 1, ("a", 10): 1, ("a", 20): 1}
    assert [value for _, value, _ in machine.read("late")] == [row("a", 15)]


def test_perfectly_ordered_partitions_behind_a_shuffle_with_grace_zero_lose_nothing() -> None:
    """Whatever a task polls first: lateness is judged by each source partition alone."""
    machine = Machine(shuffled_job(), {"rows": 4})
    for partition in range(4):
        machine.send("rows", partition, [(None, row("k", ts), 0) for ts in range(partition, 200, 4)])
    machine.run_bounded(random.Random(5))
    assert results(machine) == {("k", start): 10 for start in range(0, 200, 10)}
    assert machine.read("late") == []


def placed(shard: int) -> str:
    """Return a sensor that belongs into a shard of two."""
    return next(sensor for sensor in "abcdefgh" if partition_of(sensor.encode(), 2) == shard)


def test_a_shard_without_rows_is_told_when_its_windows_close_however_little_the_watermark_moved() -> None:
    """As if both records had been committed together."""
    with TestDriver(shuffled_job()) as driver:
        driver.send("rows", {"sensor": placed(0), "ts": 8})
        driver.commit()
        driver.send("rows", {"sensor": placed(1), "ts": 10})
        driver.commit()
        assert driver.sent("out") == [(placed(0), {"window_start": 0, "window_end": 10, "n": 1})]


def test_a_shard_without_rows_is_told_when_windows_of_its_results_close() -> None:
    """The small windows close at 10 and at 20, the large one of their results, held back by their grace of 0, at 15."""
    job = Job("levels")
    rows = job.stream("rows", timestamp="ts").group_by(lambda row: row["sensor"], name="by_sensor", shards=2)
    small, large = (Tumbling(timedelta(milliseconds=size), grace=timedelta(0)) for size in (10, 15))
    fine = rows.window(small).count(name="fine").to_stream().map(lambda count: {"n": count})
    coarse = fine.group_by(lambda row: "all", name="by_nothing", shards=1).window(large)
    coarse.agg({"n": agg.sum("n")}, name="coarse").to("out")
    with TestDriver(job) as driver:
        for sensor, ts in ((placed(0), 8), (placed(0), 11), (placed(1), 12), (placed(1), 15)):
            driver.send("rows", {"sensor": sensor, "ts": ts})
            driver.commit()
        assert driver.sent("out") == [("all", {"window_start": 0, "window_end": 15, "n": 1})]
