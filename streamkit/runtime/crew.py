"""Which tasks this worker runs: it follows the assignment.

::

                 ┌────────── waits ◀──────────┐
                 ▼                            │ still ours
    ours ─▶ opening ─▶ running ─▶ given up ─▶ closing ─▶ not here
                          └─────▶ leaving ──────▲

A task that becomes ours is opened on a thread of its own, some at a time, while the others go on: a restore takes as
long as it takes. A task that is ours in two generations that follow each other goes on as it is; if a generation was
missed, another worker may have run it, so it is opened again. A task that is taken away may finish and commit what it
has computed, then its directory is given back. One that fails is closed without a commit, and opened again after a
pause if it is still ours: when it was fenced, as often as that happens.

Not here: what is fetched, computed and committed when (`loop`).
"""

import contextlib
import logging
import threading
from collections.abc import Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Final

from streamkit.broker.protocols import Membership
from streamkit.errors import Answer, StreamkitError, TaskMigratedError
from streamkit.runtime.retries import Retries, is_taken
from streamkit.runtime.runner import NO_COUNTS, Counts, RunnerEnvironment, TaskRunner, sum_counts
from streamkit.runtime.setup import JobPlan

__all__ = ["Crew"]

_OPENING_THREADS: Final = 4
_CLOSING_THREADS: Final = 2

_log = logging.getLogger(__name__)


class Crew:
    """The tasks of one worker; used by the worker's thread alone.

    Args:
        plan: Of the run.
        environment: What the tasks share.
        membership: Says which tasks are ours.
    """

    def __init__(self, plan: JobPlan, environment: RunnerEnvironment, membership: Membership) -> None:
        """Open nothing yet."""
        self.plan, self._environment, self._membership = plan, environment, membership
        self._plans = {task.task_id: task for task in plan.tasks}
        self.running: dict[str, TaskRunner] = {}
        self.leaving: dict[str, TaskRunner] = {}
        self.retries = Retries(environment.clock)
        self._given_up: dict[str, tuple[TaskRunner, StreamkitError]] = {}
        self._opening: dict[str, Future[TaskRunner]] = {}
        self._stops: dict[str, threading.Event] = {}
        self._closing: dict[str, Future[None]] = {}
        self._due_ms: dict[str, float] = {}
        self._departed: Counts = NO_COUNTS
        self._interrupted: dict[str, tuple[Counts, Counts]] = {}
        """Of tasks that are opened again here: where they began to count, and what they had committed since."""
        self._generation = 0
        self._assigned: frozenset[str] = frozenset()
        self._openers = ThreadPoolExecutor(_OPENING_THREADS, thread_name_prefix="streamkit-open")
        self._closers = ThreadPoolExecutor(_CLOSING_THREADS, thread_name_prefix="streamkit-close")

    def __enter__(self) -> "Crew":
        """Go on."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all tasks; an error of closing is not raised over another one."""
        try:
            self.close()
        except StreamkitError:
            if error is None:
                raise

    @property
    def under_way(self) -> list[Future[Any]]:
        """What is being opened and closed."""
        return [*self._opening.values(), *self._closing.values()]

    @property
    def complete(self) -> bool:
        """Whether every task of the job is running here."""
        return self.running.keys() == self._plans.keys()

    @property
    def wait_ms(self) -> float | None:
        """How long until a task is to be opened again; None if none waits."""
        now_ms = self._environment.clock.monotonic_ms()
        waiting = [due_ms for task_id, due_ms in self._due_ms.items() if not self._is_here(task_id)]
        return max(0.0, min(waiting) - now_ms) if waiting else None

    def totals(self) -> Counts:
        """Return what this worker's run has done so far."""
        here = [runner.this_run() for runner in (*self.running.values(), *self.leaving.values())]
        interrupted = [counts for _, counts in self._interrupted.values()]
        return sum_counts(self._departed, *here, *interrupted)

    def is_current(self, runner: TaskRunner) -> bool:
        """Return whether what this runner does still counts."""
        return any(those.get(runner.plan.task_id) is runner for those in (self.running, self.leaving))

    def tend(self, busy: Set[str], *, stopping: bool) -> None:
        """Follow the assignment, and take what was opened and closed. Never waits.

        Args:
            busy: The tasks that compute or commit: they are not closed.
            stopping: Open nothing more.

        Raises:
            StreamkitError: A task cannot be opened, and that is not to be tried again.
        """
        self._take_closed()
        self._take_opened()
        self._follow()
        self._close_idle(busy)
        if stopping:
            for stop in self._stops.values():
                stop.set()
        else:
            self._open_due()

    def give_up(self, runner: TaskRunner, error: StreamkitError) -> None:
        """Drop what a task has not committed, and open it again if it is still ours.

        Raises:
            StreamkitError: `error`, if it stops the worker.
        """
        task_id = runner.plan.task_id
        pause_ms = self.retries.pause_ms(task_id, error)
        if is_taken(error):
            _log.warning("%s: task %s was taken over by another worker: %s", self._job, task_id, error.primary)
        self.running.pop(task_id, None)
        self.leaving.pop(task_id, None)
        runner.interrupt()
        self._given_up[task_id] = (runner, error)
        self._due_ms[task_id] = self._environment.clock.monotonic_ms() + pause_ms

    def close(self) -> None:
        """Stop what is being opened and close everything; what was not committed is dropped.

        Raises:
            StreamkitError: Something could not be closed; the rest is closed all the same.
        """
        for stop in self._stops.values():
            stop.set()
        wait(self._opening.values())
        for future in self._opening.values():
            if future.exception() is None:
                runner = future.result()
                self.leaving[runner.plan.task_id] = runner
        for task_id, (runner, error) in self._given_up.items():
            self._closing[task_id] = self._closers.submit(runner.give_up, error)
        for task_id, runner in (*self.running.items(), *self.leaving.items()):
            self._count_departed(runner)
            self._closing[task_id] = self._closers.submit(runner.close)
        wait(self._closing.values())
        self._openers.shutdown()
        self._closers.shutdown()
        closing, self._closing = self._closing, {}
        self._opening, self._stops, self._given_up, self.running, self.leaving = {}, {}, {}, {}, {}
        with contextlib.ExitStack() as every:
            for closed in closing.values():
                every.callback(closed.result)

    @property
    def _job(self) -> str:
        return self.plan.tasks[0].topology.job

    def _is_here(self, task_id: str) -> bool:
        places = (self.running, self.leaving, self._given_up, self._opening, self._closing)
        return any(task_id in place for place in places)

    def _follow(self) -> None:
        """Take note of a new generation."""
        assignment = self._membership.assignment()
        if assignment is None or assignment.generation == self._generation:
            return
        missed = bool(self._generation) and assignment.generation != self._generation + 1
        self._generation = assignment.generation
        before, self._assigned = self._assigned, assignment.tasks & self._plans.keys()
        for task_id in before - self._assigned:
            self._let_go(task_id)
        if missed:
            for runner in list(self.running.values()):
                # Nothing failed, so it is not counted as a failure.
                task_id = runner.plan.task_id
                self.running.pop(task_id)
                runner.interrupt()
                self._given_up[task_id] = (runner, TaskMigratedError("a generation of the group was missed"))

    def _let_go(self, task_id: str) -> None:
        self._due_ms.pop(task_id, None)
        if task_id in self.running:
            self.leaving[task_id] = self.running.pop(task_id)
        if task_id in self._stops:
            self._stops[task_id].set()
        if task_id in self._interrupted:
            _, counts = self._interrupted.pop(task_id)
            self._departed = sum_counts(self._departed, counts)
        self.retries.went_well(task_id)

    def _close_idle(self, busy: Set[str]) -> None:
        for task_id, (runner, error) in list(self._given_up.items()):
            if task_id not in busy:
                del self._given_up[task_id]
                if is_taken(error) or task_id not in self._assigned:
                    self._count_departed(runner)
                else:
                    self._interrupted[task_id] = (runner.began, runner.committed_run())
                self._closing[task_id] = self._closers.submit(runner.give_up, error)
        for task_id, runner in list(self.leaving.items()):
            if task_id not in busy and not runner.task.dirty:
                del self.leaving[task_id]
                self._count_departed(runner)
                self._closing[task_id] = self._closers.submit(runner.close)

    def _count_departed(self, runner: TaskRunner) -> None:
        self._departed = sum_counts(self._departed, runner.committed_run())

    def _take_closed(self) -> None:
        for task_id in [task_id for task_id, future in self._closing.items() if future.done()]:
            try:
                self._closing.pop(task_id).result()
            except StreamkitError as error:
                # Nothing that was committed is lost: whoever opens the task next brings its store forward.
                _log.warning("%s: task %s did not close well: %s", self._job, task_id, error.primary)

    def _open_due(self) -> None:
        now_ms = self._environment.clock.monotonic_ms()
        for task_id in sorted(self._assigned):
            if not self._is_here(task_id) and self._due_ms.get(task_id, now_ms) <= now_ms:
                stop = self._stops[task_id] = threading.Event()
                began, _ = self._interrupted.get(task_id, (None, None))
                self._opening[task_id] = self._openers.submit(
                    TaskRunner, self._plans[task_id], self._environment, stop, began
                )

    def _take_opened(self) -> None:
        for task_id in [task_id for task_id, future in self._opening.items() if future.done()]:
            future, stop = self._opening.pop(task_id), self._stops.pop(task_id)
            try:
                runner = future.result()
            except StreamkitError as error:
                if stop.is_set():
                    continue
                if error.answer is Answer.RESTORE:
                    # Opening has set the state aside and restored it once already.
                    raise
                self._due_ms[task_id] = self._environment.clock.monotonic_ms() + self.retries.pause_ms(task_id, error)
                continue
            self._due_ms.pop(task_id, None)
            self._interrupted.pop(task_id, None)
            ours = task_id in self._assigned and not stop.is_set()
            (self.running if ours else self.leaving)[task_id] = runner
