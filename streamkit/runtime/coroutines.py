"""The coroutines of one task: at most one bundle of them runs, and none after the task was given up."""

import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from streamkit.errors import TaskMigratedError
from streamkit.seams import EventLoop

__all__ = ["Coroutines"]

T = TypeVar("T")


class Coroutines:
    """Runs coroutines for a task and waits for them, until another thread gives the task up.

    Args:
        loop: Where they run.
    """

    def __init__(self, loop: EventLoop) -> None:
        """Run nothing yet."""
        self._loop = loop
        self._lock = threading.Lock()
        self._running: Future[Any] | None = None
        self._given_up = False

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result.

        Raises:
            TaskMigratedError: The task was given up, before or meanwhile; the coroutine is cancelled.
        """
        with self._lock:
            if self._given_up:
                main.close()
                raise _given_up()
            running = self._running = self._loop.start(main)
        try:
            result: T = running.result()
        except CancelledError:
            raise _given_up() from None
        return result

    def give_up(self) -> None:
        """Cancel what runs, and refuse what comes; safe in any thread, does not wait."""
        with self._lock:
            self._given_up = True
            if self._running is not None:
                self._running.cancel()


def _given_up() -> TaskMigratedError:
    return TaskMigratedError(
        "the task was given up while async functions ran",
        detail="they were cancelled; nothing since the last commit counts",
    )
