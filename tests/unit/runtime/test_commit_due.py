"""When a task that is behind commits: after the interval, or sooner where there is least to store."""

import orjson
from machine import Machine
from scenarios import Reading, ms

from streamkit import Job, Tumbling
from streamkit.graph import Emit
from streamkit.runtime import Guarantee
from streamkit.runtime.runner import TaskRunner

INTERVAL_MS = 1000
"""The default of `RunOptions`."""


def counting(emit: Emit, guarantee: Guarantee = "exactly-once") -> Machine:
    job = Job("counting")
    readings = job.stream("readings", key=str, value=Reading, timestamp="ts")
    readings.group_by_key().window(Tumbling(ms(100), grace=ms(0)), emit=emit).count(name="counts").to("out")
    machine = Machine(job, {"readings": 1}, guarantee=guarantee)
    send(machine, 0, 10)
    machine.open(bounded=False)
    return machine


def send(machine: Machine, ts: int, row_count: int) -> None:
    """Send rows of one time, each with a key of its own."""
    rows: list[tuple[bytes | None, bytes, int]] = [
        (b"%d" % number, orjson.dumps({"sensor": "s", "value": 1, "ts": ts}), 0) for number in range(row_count)
    ]
    machine.send("readings", 0, rows)


def feed(machine: Machine) -> TaskRunner:
    """Let the only task read all there is, in one go."""
    (runner,) = machine.runners
    for part in machine.fetcher.fetch(runner.task.positions(), wait_ms=0, bytes_max=1_000_000):
        runner.feed(part)
    return runner


def waited_ms(machine: Machine, runner: TaskRunner) -> int:
    """Let time pass until a commit is due; return how long it took."""
    waited = 0
    while not runner.commit_due(behind=True):
        machine.clock.advance(10)
        waited += 10
        assert waited <= INTERVAL_MS, "the interval is an upper bound"
    return waited


def test_the_interval_counts_from_the_oldest_input_that_is_not_committed() -> None:
    machine = counting("final")
    machine.clock.advance(5 * INTERVAL_MS)
    runner = feed(machine)
    machine.clock.advance(INTERVAL_MS // 2)
    send(machine, 1, 10)
    feed(machine)
    assert waited_ms(machine, runner) == INTERVAL_MS // 2
    runner.finish(runner.seal())
    machine.clock.advance(5 * INTERVAL_MS)
    assert not runner.commit_due(behind=True), "there is nothing to commit"
    send(machine, 2, 10)
    feed(machine)
    assert waited_ms(machine, runner) == INTERVAL_MS


def test_a_commit_is_due_soon_after_windows_have_closed() -> None:
    machine = counting("final")
    feed(machine)
    send(machine, 150, 1)
    runner = feed(machine)
    assert runner.task.held_count == 1, "of the window that is open"
    assert waited_ms(machine, runner) == INTERVAL_MS // 20


def test_updates_that_went_out_at_once_do_not_look_like_windows_that_closed() -> None:
    """What they changed is stored whenever the commit comes: hurrying it saves nothing and costs twenty commits."""
    machine = counting("update", "at-least-once")
    runner = feed(machine)
    assert runner.task.held_count == 0
    assert waited_ms(machine, runner) == INTERVAL_MS
