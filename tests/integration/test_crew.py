"""How a worker's tasks follow assignments that a script gives it."""

from collections.abc import Callable, Iterator
from concurrent.futures import wait

import pytest
from faults import WatchedStores
from scenarios import SCENARIOS, Rows

from streamkit.broker.protocols import Assignment
from streamkit.errors import ProducerFencedError, StateError, StoreInUseError, StreamkitError, TaskMigratedError
from streamkit.runtime import RunOptions
from streamkit.runtime.crew import Crew
from streamkit.runtime.runner import RunnerEnvironment, TaskRunner
from streamkit.runtime.setup import prepare
from streamkit.runtime.stores import MemoryStores, Stores
from streamkit.runtime.task_plan import unchecked
from streamkit.state import StateStore

ROWS: list[Rows] = [[("a", 1, 10), ("b", 2, 20)], [("c", 3, 30)]]


class Script:
    """A membership that says what it was told to."""

    def __init__(self) -> None:
        self.now: Assignment | None = None

    def assignment(self) -> Assignment | None:
        return self.now

    def leave(self) -> None:
        self.now = None

    def give(self, generation: int, *tasks: str) -> None:
        self.now = Assignment(generation=generation, tasks=frozenset(tasks))


class Stage:
    """A crew over a machine's log, and the steps that its openings took."""

    def __init__(self, stores: Stores | None = None) -> None:
        scenario = SCENARIOS["table"]
        self.machine, self.script, self.steps = scenario.machine(2), Script(), list[str]()
        scenario.fill(self.machine, ROWS)
        self.observe: Callable[[str], None] = self.steps.append
        options = RunOptions()
        environment = RunnerEnvironment(
            broker=self.machine.broker,
            stores=MemoryStores() if stores is None else stores,
            clock=self.machine.clock,
            options=options,
            observe=lambda step: self.observe(step),
            event_loop=self.machine.event_loop,
        )
        plan = prepare(self.machine.topology, self.machine.broker, options, unchecked)
        self.crew = Crew(plan, environment, self.script)

    def settle(self) -> None:
        """Tend until nothing is under way."""
        self.crew.tend(set(), stopping=False)
        while self.crew.under_way:
            wait(self.crew.under_way)
            self.crew.tend(set(), stopping=False)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.crew.close()


def test_nothing_is_opened_before_the_first_assignment(stage: Stage) -> None:
    stage.settle()
    assert stage.steps == []
    stage.script.give(7, "0_0", "1_1")
    stage.settle()
    assert stage.crew.running.keys() == {"0_0", "1_1"}


def test_a_task_of_two_generations_that_follow_each_other_is_not_touched(stage: Stage) -> None:
    stage.script.give(1, "0_0", "0_1")
    stage.settle()
    kept = stage.crew.running["0_0"]
    stage.script.give(2, "0_0", "1_0")
    stage.settle()
    assert stage.crew.running["0_0"] is kept
    assert stage.crew.running.keys() == {"0_0", "1_0"}
    assert stage.steps.count("opened") == 3


def test_a_task_is_opened_again_if_a_generation_was_missed(stage: Stage) -> None:
    """In it another worker may have had the task, and given it back."""
    stage.script.give(1, "0_0")
    stage.settle()
    kept = stage.crew.running["0_0"]
    stage.script.give(3, "0_0")
    stage.settle()
    assert stage.crew.running["0_0"] is not kept
    assert stage.steps.count("opened") == 2
    assert is_interrupted(kept)


def test_what_a_task_waits_for_is_cancelled_when_another_worker_took_it(stage: Stage) -> None:
    stage.script.give(1, "0_0", "0_1")
    stage.settle()
    taken, kept = (stage.crew.running[task] for task in ("0_0", "0_1"))
    stage.crew.give_up(taken, ProducerFencedError("fenced"))
    assert is_interrupted(taken)
    assert not is_interrupted(kept)


def is_interrupted(runner: TaskRunner) -> bool:
    """Whether an async function of the task would be refused."""

    async def asked() -> None:
        """Return at once."""

    assert runner.plan.coroutines is not None
    try:
        runner.plan.coroutines.run(asked())
    except TaskMigratedError:
        return True
    return False


def test_a_task_that_is_taken_away_while_it_is_opened_is_given_back(stage: Stage) -> None:
    def take_away(step: str) -> None:
        stage.steps.append(step)
        if step == "open_store":
            stage.script.give(2)
            stage.crew._stops["1_0"].set()

    stage.observe = take_away
    stage.script.give(1, "1_0")
    stage.settle()
    assert stage.crew.running == {}
    assert stage.steps[-1] == "open_store", "it went no further"
    stage.observe = stage.steps.append
    stage.script.give(3, "1_0")
    stage.settle()
    assert stage.crew.running.keys() == {"1_0"}


def test_a_task_that_moved_away_and_does_not_close_well_leaves_the_others_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it had committed is in the log, from which the next opening repairs its store."""
    errors: list[StreamkitError] = []

    def told(call: str) -> None:
        if call == "close" and errors:
            raise errors.pop()

    stage = Stage(WatchedStores(told))
    stage.script.give(1, "1_0", "1_1")
    stage.settle()
    kept = stage.crew.running["1_1"]
    errors.append(StateError("the flush failed"))
    stage.script.give(2, "1_1")
    stage.settle()
    assert errors == []
    assert stage.crew.running == {"1_1": kept}
    assert [(one.name.partition(".")[0], one.levelname) for one in caplog.records] == [("streamkit", "WARNING")]
    assert "task 1_0 did not close well: the flush failed" in caplog.text
    stage.script.give(3, "1_0", "1_1")
    stage.settle()
    assert stage.crew.running.keys() == {"1_0", "1_1"}
    stage.crew.close()


def test_a_directory_in_use_for_longer_than_a_minute_is_an_error() -> None:
    class Held(MemoryStores):
        def open(self, task_id: str) -> StateStore:
            raise StoreInUseError(f"the state directory of {task_id} is in use")

    stage = Stage(Held())
    begin_ms = stage.machine.clock.monotonic_ms()
    stage.script.give(1, "1_0")
    with pytest.raises(StoreInUseError):  # noqa: PT012  # time passes between the attempts
        while True:
            stage.settle()
            stage.machine.clock.advance(250)
    assert 60_000 <= stage.machine.clock.monotonic_ms() - begin_ms < 61_000
    stage.crew.close()
