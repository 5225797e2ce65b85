"""The worker as a service of a supervision tree, so that hosts start, watch and stop it like any other."""

import asyncio
import threading
from collections.abc import Callable

from mode import Service

from streamkit.runtime.options import Progress, Summary
from streamkit.runtime.worker import Worker

__all__ = ["WorkerService"]


class WorkerService(Service):
    """Runs a worker on its own thread.

    Args:
        worker: Not yet running.
        on_progress: Told how it is going, from the worker's thread.
    """

    def __init__(self, worker: Worker, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Start nothing yet."""
        super().__init__()
        self._worker, self._on_progress = worker, on_progress
        self._stop_worker = threading.Event()
        self._outcome: asyncio.Task[Summary] | None = None

    async def on_start(self) -> None:
        """Start the worker's thread."""
        self._outcome = asyncio.create_task(asyncio.to_thread(self._worker.run, self._stop_worker, self._on_progress))

    def finish(self) -> None:
        """Ask the worker to commit what it has read, and to end."""
        self._stop_worker.set()

    async def outcome(self) -> Summary:
        """Wait for the worker's end.

        Raises:
            StreamkitError: What stopped the worker; what was committed before is intact.
        """
        assert self._outcome is not None, "the service was not started"
        return await asyncio.shield(self._outcome)

    async def on_stop(self) -> None:
        """Let the worker finish its commits, and wait for its thread."""
        self.finish()
        if self._outcome is not None:
            await asyncio.wait([self._outcome])
