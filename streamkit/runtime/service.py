"""The worker as a service of a supervision tree, so that hosts start, watch and stop it like any other."""

import asyncio
import threading
from collections.abc import Callable

from mode import Service

from streamkit.runtime.options import Progress, Summary
from streamkit.runtime.worker import Worker

__all__ = ["WorkerService"]


class WorkerService(Service):
    """Runs a worker on its own thread; the service ends when the worker does, and crashes if it fails.

    Args:
        worker: Not yet running.
        on_progress: Told how it is going, from the worker's thread.
    """

    def __init__(self, worker: Worker, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Start nothing yet."""
        super().__init__()
        self._worker, self._on_progress = worker, on_progress
        self._stop_worker = threading.Event()
        self.summary: Summary | None = None

    async def on_started(self) -> None:
        """Run the worker until it ends by itself, or the service is stopped."""
        self.add_future(self._run())

    async def _run(self) -> None:
        self.summary = await asyncio.to_thread(self._worker.run, self._stop_worker, self._on_progress)
        self.set_shutdown()

    async def on_stop(self) -> None:
        """Ask the worker to finish its commits."""
        self._stop_worker.set()
