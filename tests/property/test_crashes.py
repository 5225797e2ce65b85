"""A crash at any step of any commit or opening changes nothing, under both guarantees.

Exactly-once: topics, state and offsets are equal. At-least-once: state and offsets are equal, outputs may repeat.
"""

import functools
import itertools
import random
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, after, at
from scenarios import FOR_EVER, SAMPLE, SCENARIOS, Rows, Scenario

from streamkit.runtime import COMMIT_STEPS, OPENING_STEPS, SETUP_STEPS, Guarantee

STEPS = [
    *(step.__name__ for step in OPENING_STEPS),
    "opened",
    *(step.__name__ for step in COMMIT_STEPS),
    "done",
]
GUARANTEES: list[Guarantee] = ["exactly-once", "at-least-once"]

rows_of_partition = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-9, 9), st.integers(0, 200)), max_size=15)
inputs = st.lists(rows_of_partition, min_size=1, max_size=3)
seeds = st.integers(0, 2**32)
FEW = settings(max_examples=max(10, settings().max_examples // 10))
"""Each of these runs whole machines, and stands here once for each job."""

crash_points = st.lists(st.integers(1, 40), max_size=4)


def assert_same(scenario: Scenario, crashed: Machine, calm: Machine) -> None:
    assert crashed.state() == calm.state()
    assert scenario.read_to(crashed) == scenario.read_to(calm)
    assert scenario.latest(crashed) == scenario.latest(calm)
    made, expected = scenario.facts(crashed), scenario.facts(calm)
    if crashed.guarantee == "exactly-once":
        assert made == expected
        return
    for topic, records in expected.items():
        assert not records - made[topic], f"{topic} lost records"
        assert not made[topic].keys() - records.keys(), f"{topic} has records that never were"


def calm_machine(scenario: Scenario, partitions: list[Rows], *, bounded: bool = True) -> Machine:
    machine = scenario.machine(len(partitions))
    scenario.fill(machine, partitions)
    machine.run(random.Random(0), bounded=bounded)
    return machine


@functools.cache
def calm_over_sample(name: str) -> Machine:
    """One for all steps; it is read alone."""
    return calm_machine(SCENARIOS[name], SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_a_step_changes_nothing(name: str, step: str) -> None:
    """The steps come from the code, so a new step has its case. Crash when it is reached early, and late."""
    scenario, calm = SCENARIOS[name], calm_over_sample(name)
    crash_count = 0
    for guarantee, nth in itertools.product(GUARANTEES, (0, 1, 4, 9)):
        machine = scenario.machine(len(SAMPLE), guarantee)
        scenario.fill(machine, SAMPLE)
        machine.crash_at = at(step, nth)
        crash_count += machine.run(random.Random(7), bounded=True)
        assert_same(scenario, machine, calm)
    assert crash_count > 2, f"the step {step} was hardly reached, so this proved nothing"


@pytest.mark.parametrize("step", [step.__name__ for step in SETUP_STEPS])
@pytest.mark.parametrize("name", ["columns", "updated", "table"])
def test_a_crash_while_a_run_is_fixed_changes_nothing(name: str, step: str) -> None:
    """Of three runs, one after the other, each in turn crashes there."""
    scenario = FOR_EVER[name]
    machines, crash_count = [], 0
    for crash_at in (after([]), *(at(step, nth) for nth in range(3))):
        machine = scenario.machine(len(SAMPLE))
        machine.crash_at = crash_at
        rng = random.Random(8)
        for bounded in (True, True, False):
            scenario.fill(machine, SAMPLE)
            crash_count += machine.run(rng, bounded=bounded, go_on=True)
        machines.append(machine)
    assert crash_count == 3
    for machine in machines[1:]:
        assert_same(scenario, machine, machines[0])


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("name", SCENARIOS)
@FEW
@given(partitions=inputs, seed=seeds, crashes=crash_points, losses=st.sampled_from([0.0, 0.5]))
def test_drawn_crashes_and_lost_directories_change_nothing(
    name: str, guarantee: Guarantee, partitions: list[Rows], seed: int, crashes: list[int], losses: float
) -> None:
    scenario = SCENARIOS[name]
    machine = scenario.machine(len(partitions), guarantee)
    scenario.fill(machine, partitions)
    machine.crash_at = after(crashes)
    machine.run(random.Random(seed), bounded=True, state_losses=losses)
    assert_same(scenario, machine, calm_machine(scenario, partitions))


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("name", FOR_EVER)
@FEW
@given(parts=st.tuples(inputs, inputs), seed=seeds, crashes=crash_points, losses=st.sampled_from([0.0, 0.5]))
def test_an_unbounded_run_survives_crashes_too(
    name: str, guarantee: Guarantee, parts: tuple[list[Rows], list[Rows]], seed: int, crashes: list[int], losses: float
) -> None:
    """Some input, then more of it: what counts of a table is its last value, of a window that it is published once."""
    scenario = FOR_EVER[name]
    machines = []
    for crash_at in (after([]), after(crashes)):
        machine = scenario.machine(3, guarantee)
        machine.crash_at = crash_at
        rng = random.Random(seed)
        for partitions in parts:
            scenario.fill(machine, partitions)
            machine.run(rng, bounded=False, state_losses=losses)
        machines.append(machine)
    assert_same(scenario, machines[1], machines[0])


@pytest.mark.parametrize("name", ["columns", "levels", "ordered", "updated", "table"])
@FEW
@given(
    phases=st.lists(st.tuples(inputs, st.booleans()), min_size=1, max_size=4),
    seed=seeds,
    crashes=crash_points,
)
def test_runs_that_follow_each_other_survive_crashes(
    name: str, phases: list[tuple[list[Rows], bool]], seed: int, crashes: list[int]
) -> None:
    """Bounded, continued, unbounded, in any order: a window is never published twice, whatever crashes."""
    scenario = FOR_EVER[name]
    machines = []
    for crash_at in (after([]), after(crashes)):
        machine = scenario.machine(3)
        machine.crash_at = crash_at
        rng = random.Random(seed)
        for partitions, bounded in phases:
            scenario.fill(machine, partitions)
            machine.run(rng, bounded=bounded, go_on=True, state_losses=0.3)
        machines.append(machine)
    assert_same(scenario, machines[1], machines[0])
    if name != "table":
        assert_published_once(machines[0], scenario)


def assert_published_once(machine: Machine, scenario: Scenario) -> None:
    """No key and window stands twice in a topic of final results."""
    for topic in scenario.topics(machine) - scenario.updates - {"late", "folded"}:
        places = Counter((key, stamp, starts(value)) for key, value, stamp in machine.read(topic))
        # A keyed source judges its partitions apart; the keys of different partitions differ.
        assert all(count == 1 for count in places.values()), f"{topic} has a window twice"


def starts(value: bytes | None) -> Any:
    return orjson.loads(value or b"null")["window_start"]
