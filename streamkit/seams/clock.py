"""Time as a seam."""

import threading
import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """Wall-clock and monotonic time in milliseconds, and waiting."""

    def now_ms(self) -> int:
        """Return the wall-clock time, ms since the Unix epoch, UTC."""
        ...

    def monotonic_ms(self) -> float:
        """Return a time that never goes back; only differences mean something."""
        ...

    def wait(self, event: threading.Event, timeout_ms: float) -> bool:
        """Wait until `event` is set or `timeout_ms` passed; return whether it is set."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return the machine's wall-clock time."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> float:
        """Return the machine's monotonic time."""
        return time.monotonic() * 1000

    def wait(self, event: threading.Event, timeout_ms: float) -> bool:
        """Wait in real time."""
        return event.wait(timeout_ms / 1000)


class ManualClock:
    """A clock that moves only when told; waiting moves it at once."""

    def __init__(self, start_ms: int = 0) -> None:
        """Start at `start_ms`, wall-clock and monotonic alike."""
        self._now_ms: float = start_ms

    def now_ms(self) -> int:
        """Return the time it was moved to."""
        return int(self._now_ms)

    def monotonic_ms(self) -> float:
        """Return the time it was moved to."""
        return self._now_ms

    def wait(self, event: threading.Event, timeout_ms: float) -> bool:
        """Advance by `timeout_ms` unless `event` is set already."""
        if not event.is_set():
            self.advance(timeout_ms)
        return event.is_set()

    def advance(self, by_ms: float) -> None:
        """Move the clock forward by `by_ms` (>= 0)."""
        assert by_ms >= 0, "time does not go back"
        self._now_ms += by_ms
