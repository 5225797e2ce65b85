"""Results are a function of the log: any interleaving, any batch size, against the definition of the windows."""

import random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import FOR_EVER, SCENARIOS, Rows

rows_of_partition = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-9, 9), st.integers(0, 200)), max_size=25)
inputs = st.lists(rows_of_partition, min_size=1, max_size=3)
seeds = st.integers(0, 2**32)
FEW = settings(max_examples=max(10, settings().max_examples // 10))
"""Whole machines, for each of many jobs."""


def expected_windows(partitions: list[Rows], advance: int) -> tuple[dict[tuple[str, int], list[tuple[int, int]]], int]:
    """Judge and group by the definition: late iff the partition's watermark just before >= end + grace.

    Windows of 20 begin every `advance`, have a grace of 10, and the source an out-of-orderness of 5.
    """
    size, grace, slack = 20, 10, 5
    groups: dict[tuple[str, int], list[tuple[int, int]]] = {}
    late = 0
    for rows in partitions:
        largest: int | None = None
        for sensor, value, ts in rows:
            ends = [start + size for start in range(-size * advance, ts + 1, advance) if start <= ts < start + size]
            on_time = [end for end in ends if largest is None or largest - slack < end + grace]
            late += len(on_time) < len(ends)
            for end in on_time:
                groups.setdefault((sensor, end), []).append((value, ts))
            largest = ts if largest is None else max(largest, ts)
    return groups, late


@pytest.mark.parametrize(("name", "advance"), [("python", 20), ("columns", 20), ("overlapping", 7), ("hopping", 7)])
@settings(max_examples=max(25, settings().max_examples // 5))
@given(partitions=inputs, seed=seeds)
def test_windows_agree_with_their_definition(name: str, advance: int, partitions: list[Rows], seed: int) -> None:
    scenario = SCENARIOS[name]
    machine = scenario.machine(len(partitions))
    scenario.fill(machine, partitions)
    machine.run_bounded(random.Random(seed))
    groups, late = expected_windows(partitions, advance)
    made = {}
    for key, value, stamp in machine.read("out"):
        assert key is not None
        assert value is not None
        result = orjson.loads(value)
        assert stamp == result["window_end"] - 1
        assert result["window_start"] == result["window_end"] - 20
        window = key.decode(), result["window_end"]
        assert window not in made, "a window was published twice"
        made[window] = (
            result["value"] if name in ("python", "overlapping") else (result["n"], result["sum"], result["max"])
        )
    if name in ("python", "overlapping"):
        assert made == {group: len(rows) for group, rows in groups.items()}
    else:
        values = {group: [value for value, _ in rows] for group, rows in groups.items()}
        assert made == {group: (len(some), sum(some), max(some)) for group, some in values.items()}
    assert len(machine.read("late")) == late


@pytest.mark.parametrize("name", SCENARIOS)
@FEW
@given(partitions=inputs, seeds=st.tuples(seeds, seeds))
def test_any_interleaving_and_batch_size_gives_the_same_results(
    name: str, partitions: list[Rows], seeds: tuple[int, int]
) -> None:
    scenario = SCENARIOS[name]
    made = []
    for seed in seeds:
        machine = scenario.machine(len(partitions))
        scenario.fill(machine, partitions)
        machine.run_bounded(random.Random(seed))
        made.append((scenario.facts(machine), scenario.latest(machine), machine.state(), scenario.read_to(machine)))
    assert made[0] == made[1]


@pytest.mark.parametrize("name", FOR_EVER)
@settings(max_examples=max(10, settings().max_examples // 10))
@given(partitions=inputs, seeds=st.lists(seeds, min_size=2, max_size=6))
def test_which_windows_a_run_without_an_end_has_closed_depends_on_the_rows_alone(
    name: str, partitions: list[Rows], seeds: list[int]
) -> None:
    """Wherever commits fell: else a replay would say that a store which is right differs from what it was."""
    scenario = FOR_EVER[name]
    made = []
    for seed in seeds:
        machine = scenario.machine(len(partitions))
        scenario.fill(machine, partitions)
        machine.run(random.Random(seed), bounded=False)
        made.append((machine.state(), scenario.facts(machine), scenario.latest(machine)))
    assert all(one == made[0] for one in made)
