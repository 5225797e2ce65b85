"""The thread and event loop of a Kafka client, apart from everything that computes.

Whoever calls waits for a coroutine that runs here, never without a deadline. The loop goes on answering brokers while
user functions hold other threads.

Source: reliability rules D5, D11.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, Final, TypeVar

from streamkit.errors import BrokerError, BrokerUnavailableError

__all__ = ["ClientThread", "retried"]

T = TypeVar("T")

_LATE_MS: Final = 2000
"""How much later than its deadline a coroutine may end before it is abandoned."""
_PAUSE_MIN_MS: Final = 2.0
_PAUSE_MAX_MS: Final = 250.0


class ClientThread:
    """One event loop on one thread."""

    def __init__(self) -> None:
        """Start the thread."""
        self.loop = asyncio.new_event_loop()
        self._closed = False
        # A daemon, so that a loop that hangs in a system call does not keep the process.
        self._thread = threading.Thread(target=self._serve, name="streamkit-kafka", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_ms: float) -> T:
        """Run a coroutine on the loop and return what it returns.

        Raises:
            BrokerUnavailableError: It did not end in time; it was cancelled, and what it asked for may still happen.
            BrokerError: The thread is closed.
        """
        if self._closed:
            coroutine.close()
            raise BrokerError("the broker is closed")
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, timeout_ms / 1000), self.loop)
        try:
            return future.result((timeout_ms + _LATE_MS) / 1000)
        except TimeoutError as error:
            future.cancel()
            raise BrokerUnavailableError(
                f"Kafka did not answer within {timeout_ms:.0f} ms", hint="see whether its brokers are up and reachable"
            ) from error
        except CancelledError as error:
            raise BrokerError("the broker was closed during a call") from error

    def post(self, action: Callable[[], None]) -> None:
        """Have the loop do something soon, without waiting."""
        if not self._closed:
            self.loop.call_soon_threadsafe(action)

    def close(self) -> None:
        """Cancel what runs and end the thread; what does not end in time is abandoned. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_LATE_MS / 1000)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=_LATE_MS / 2000))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()


async def retried(attempt: Callable[[], Awaitable[T]], timeout_ms: float) -> T:
    """Make attempts until one succeeds, fails for good, or the deadline has passed.

    Raises:
        BrokerUnavailableError: The last attempt's, or that there was no answer at all.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    pause_ms = _PAUSE_MIN_MS
    last: BrokerUnavailableError | None = None
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await attempt()
        except BrokerUnavailableError as error:
            last = error
        except TimeoutError as error:
            raise last or BrokerUnavailableError(f"Kafka did not answer within {timeout_ms:.0f} ms") from error
        if loop.time() + pause_ms / 1000 >= deadline:
            raise last
        await asyncio.sleep(pause_ms / 1000)
        pause_ms = min(2 * pause_ms, _PAUSE_MAX_MS)
