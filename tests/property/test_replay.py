"""Results are a function of the log: any interleaving, any batch size, a crash at every step of the commit."""

import operator
import random
from collections.abc import Callable
from datetime import timedelta

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import Crashed, Machine

from streamkit import EventTime, Job, Tumbling, agg
from streamkit.runtime import COMMIT_STEPS

STEPS = [step.__name__ for step in COMMIT_STEPS] + ["done"]


class Reading(msgspec.Struct):
    sensor: str
    value: float
    ts: int


def windowed_columns() -> Job:
    """A shuffle of built-in aggregates, final."""
    job = Job("windowed_columns")
    readings = job.stream(
        "readings", value=Reading, timestamp=EventTime("ts", out_of_orderness=timedelta(milliseconds=5))
    )
    window = Tumbling(timedelta(milliseconds=20), grace=timedelta(milliseconds=10))
    minutes = readings.group_by("sensor", type=str, name="by_sensor", shards=3).window(window, emit="final")
    columns = {"n": agg.count(), "sum": agg.sum("value"), "max": agg.max("value"), "last": agg.last("value")}
    minutes.agg(columns, name="stats").to("out")
    minutes.late.to("late")
    return job


def windowed_python() -> Job:
    """The same count, by Python functions and a merge."""
    job = Job("windowed_python")
    readings = job.stream(
        "readings", value=Reading, timestamp=EventTime("ts", out_of_orderness=timedelta(milliseconds=5))
    )

    def by_sensor(reading: Reading) -> str:
        return reading.sensor

    def count(total: int, reading: Reading) -> int:
        return total + 1

    window = Tumbling(timedelta(milliseconds=20), grace=timedelta(milliseconds=10))
    minutes = readings.group_by(by_sensor, shards=3).window(window, emit="final")
    minutes.aggregate(count, initial=int, merge=operator.add).to("out")
    minutes.late.to("late")
    return job


def two_levels() -> Job:
    """A window's result feeds a larger window with grace."""
    job = Job("two_levels")
    readings = job.stream("readings", value=Reading, timestamp="ts")
    small = Tumbling(timedelta(milliseconds=10), grace=timedelta(milliseconds=4))
    large = Tumbling(timedelta(milliseconds=30), grace=timedelta(milliseconds=3))
    fine = (
        readings.group_by("sensor", type=str, name="by_sensor", shards=2)
        .window(small)
        .agg({"n": agg.count()}, name="fine")
    )
    fine.to_stream().group_by_key().window(large).agg({"n": agg.sum("n"), "parts": agg.count()}, name="coarse").to(
        "out"
    )
    return job


def running_count() -> Job:
    """A table without windows: each changed key once, at the end."""
    job = Job("running_count")
    readings = job.stream("readings", value=Reading, timestamp="ts")
    readings.group_by("sensor", type=str, name="by_sensor", shards=3).count(name="counts").to("out")
    return job


JOBS: list[Callable[[], Job]] = [windowed_columns, windowed_python, two_levels, running_count]

rows_of_partition = st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1e6, 1e6), st.integers(0, 200)), max_size=25)
inputs = st.lists(rows_of_partition, min_size=1, max_size=3)


def fill(machine: Machine, partitions: list[list[tuple[str, float, int]]]) -> None:
    for partition, rows in enumerate(partitions):
        encoded = [orjson.dumps({"sensor": sensor, "value": value, "ts": ts}) for sensor, value, ts in rows]
        machine.send("readings", partition, [(None, value, 0) for value in encoded])


def answers(machine: Machine) -> dict[str, list[tuple[bytes | None, bytes | None, int]]]:
    topics = {topic for sub in machine.topology.sub_topologies for topic in sub.sink_topics}
    return {topic: sorted(machine.read(topic), key=repr) for topic in sorted(topics)}


def expected_windows(
    partitions: list[list[tuple[str, float, int]]], size: int, grace: int, slack: int
) -> tuple[dict[tuple[str, int], list[tuple[float, int]]], int]:
    """Judge and group by the definition: late iff the partition's watermark just before >= end + grace."""
    groups: dict[tuple[str, int], list[tuple[float, int]]] = {}
    late = 0
    for rows in partitions:
        largest: int | None = None
        for sensor, value, ts in rows:
            end = ts // size * size + size
            if largest is not None and largest - slack >= end + grace:
                late += 1
            else:
                groups.setdefault((sensor, end), []).append((value, ts))
            largest = ts if largest is None else max(largest, ts)
    return groups, late


@given(partitions=inputs, seed=st.integers(0, 2**32))
def test_windows_agree_with_their_definition(partitions: list[list[tuple[str, float, int]]], seed: int) -> None:
    machine = Machine(windowed_python(), {"readings": len(partitions)})
    fill(machine, partitions)
    machine.run_bounded(random.Random(seed))
    groups, late = expected_windows(partitions, 20, 10, 5)
    made = {}
    for key, value, stamp in machine.read("out"):
        result = orjson.loads(value or b"")
        assert stamp == result["window_end"] - 1
        assert (key or b"").decode(), result["window_end"]
        assert ((key or b"").decode(), result["window_end"]) not in made, "a window was published twice"
        made[(key or b"").decode(), result["window_end"]] = result["value"]
    assert made == {group: len(rows) for group, rows in groups.items()}
    assert len(machine.read("late")) == late


@pytest.mark.parametrize("build", JOBS)
@given(partitions=inputs, seeds=st.tuples(st.integers(0, 2**32), st.integers(0, 2**32)))
def test_any_interleaving_and_batch_size_gives_the_same_results(
    build: Callable[[], Job], partitions: list[list[tuple[str, float, int]]], seeds: tuple[int, int]
) -> None:
    made = []
    for seed in seeds:
        machine = Machine(build(), {"readings": len(partitions)})
        fill(machine, partitions)
        machine.run_bounded(random.Random(seed))
        made.append(answers(machine))
    assert made[0] == made[1]


SAMPLE = [
    [("a", 1.5, 3), ("b", 2.0, 14), ("a", -1.0, 31), ("c", 0.1, 2), ("a", 7.0, 90), ("b", 1.0, 60), ("a", 3.0, 140)],
    [("b", 4.0, 1), ("b", 0.2, 25), ("a", 1e300, 70), ("c", 3.5, 71), ("a", -1e300, 72), ("c", 5.0, 150)],
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("build", JOBS)
def test_a_crash_at_a_step_of_the_commit_changes_nothing(build: Callable[[], Job], step: str) -> None:
    """Crash at the n-th time the step is reached, for every n, until none is reached any more."""
    calm = Machine(build(), {"readings": 2})
    fill(calm, SAMPLE)
    calm.run_bounded(random.Random(7))
    expected = answers(calm), calm.state(), calm.committed()
    reached, count = True, 0
    while reached and count < 12:
        machine = Machine(build(), {"readings": 2})
        fill(machine, SAMPLE)
        seen = [0]

        def crash_at(name: str, seen: list[int] = seen, nth: int = count) -> None:
            if name == step:
                seen[0] += 1
                if seen[0] == nth + 1:
                    raise Crashed

        machine.crash_at = crash_at
        crashes = machine.run_bounded(random.Random(7))
        reached = crashes == 1
        assert (answers(machine), machine.state(), set(machine.committed())) == (*expected[:2], set(expected[2]))
        count += 1
    assert count > 1, f"the step {step} was never reached, so this proved nothing"


@pytest.mark.parametrize("build", JOBS)
@given(partitions=inputs, seed=st.integers(0, 2**32), crashes=st.lists(st.integers(0, 30), max_size=4))
def test_drawn_crashes_change_nothing(
    build: Callable[[], Job], partitions: list[list[tuple[str, float, int]]], seed: int, crashes: list[int]
) -> None:
    calm = Machine(build(), {"readings": len(partitions)})
    fill(calm, partitions)
    calm.run_bounded(random.Random(seed))
    machine = Machine(build(), {"readings": len(partitions)})
    fill(machine, partitions)
    waiting, seen = sorted(set(crashes)), [0]

    def crash_at(step: str) -> None:
        seen[0] += 1
        if waiting and seen[0] > waiting[0]:
            waiting.pop(0)
            raise Crashed

    machine.crash_at = crash_at
    machine.run_bounded(random.Random(seed + 1))
    assert answers(machine) == answers(calm)
    assert machine.state() == calm.state()
