"""Waiting for coroutines as a seam: an event loop that threads hand coroutines to.

All deadlines and pauses inside coroutines go by the loop's own clock: the machine's, or one that a test moves.
"""

import asyncio
import math
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

from streamkit.seams.clock import ManualClock

__all__ = ["EventLoop", "ManualEventLoop", "ThreadEventLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_CLOSE_SECONDS: Final = 10.0


class EventLoop(Protocol):
    """Runs coroutines of any thread, all on one event loop: what one of them opens, such as a client, all may use."""

    def start(self, main: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin to run a coroutine, and return its result to come; cancelling that cancels the coroutine."""
        ...

    def close(self) -> None:
        """Cancel what still runs, and end the loop; closing twice does nothing."""
        ...


class ThreadEventLoop:
    """A loop on a thread of its own, which begins with the first coroutine. It runs on between them.

    A client's connections are therefore kept alive while no record is there. Closing waits ten seconds for coroutines
    that do not let themselves be cancelled; the process ends without them.
    """

    def __init__(self) -> None:
        """Start no thread yet."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self, main: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin to run a coroutine on the loop's thread."""
        with self._lock:
            if self._loop is None:
                self._loop = self._begin()
            return asyncio.run_coroutine_threadsafe(main, self._loop)

    def _begin(self) -> asyncio.AbstractEventLoop:
        began: Future[asyncio.AbstractEventLoop] = Future()
        stop = self._stop = asyncio.Event()

        async def serve() -> None:
            began.set_result(asyncio.get_running_loop())
            await stop.wait()

        # What is left when `serve` returns is cancelled by `run`, and waited for.
        self._thread = threading.Thread(target=asyncio.run, args=(serve(),), name="streamkit-coroutines", daemon=True)
        self._thread.start()
        return began.result()

    def close(self) -> None:
        """End the loop, if it began."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None and self._stop is not None:
            loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_CLOSE_SECONDS)


class ManualEventLoop:
    """A loop that runs in the caller's thread until each coroutine is done, by a manual clock.

    When nothing is left to do before a pause or a deadline is over, the clock is moved there at once. It is not while a
    coroutine waits for a socket or a thread: then the pause takes its real time.
    """

    def __init__(self, clock: ManualClock) -> None:
        """Open nothing yet."""
        self._runner = asyncio.Runner(loop_factory=lambda: _ManualLoop(_JumpingSelector(clock)))

    def start(self, main: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine to its end; its result is there when this returns."""
        ended: Future[T] = Future()
        try:
            ended.set_result(self._runner.run(main))
        except Exception as error:  # noqa: BLE001  # it is the result
            ended.set_exception(error)
        return ended

    def close(self) -> None:
        """Cancel what still runs, and end the loop."""
        self._runner.close()


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.thread_count = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # The loop's own wake-up socket is always there.
        waits = timeout is None or self.thread_count or len(self.get_map()) > 1
        ready = super().select(timeout if waits else 0)
        if not ready and timeout:
            # Whole milliseconds, as records have; one at least, or a rounding error would be waited for for ever.
            self.clock.advance(max(1, math.ceil(timeout * 1000 - 0.001)))
        return ready


class _ManualLoop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _JumpingSelector) -> None:
        super().__init__(selector)
        self._jumping, self._began_ms = selector, selector.clock.monotonic_ms()

    def time(self) -> float:
        # Small numbers: the moments of a loop are sums of floats, and must not miss a millisecond.
        return (self._jumping.clock.monotonic_ms() - self._began_ms) / 1000

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        self._jumping.thread_count += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._left)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002  # as asyncio
        # It waits for threads, since Python 3.12 with a deadline, which the clock must not jump to.
        await super().shutdown_default_executor()

    def _left(self, _: object) -> None:
        self._jumping.thread_count -= 1
