"""What may be tried again after an error, how often, and after how long a pause."""

from collections import defaultdict
from typing import Final

from streamkit.errors import (
    Answer,
    CommitFailedError,
    ProducerFencedError,
    StoreInUseError,
    StreamkitError,
    TaskMigratedError,
)
from streamkit.seams import Clock

__all__ = ["Retries", "is_taken"]

_ATTEMPTS_MAX: Final = 5
"""How often one thing may fail in a way that a broker's absence alone does not explain; absences are not among them."""
_RETRIES_MAX: Final = 64
"""With the pauses below, a broker that does not answer is given about five minutes."""
_RETRY_MIN_MS: Final = 100.0
_RETRY_MAX_MS: Final = 5000.0
_IN_USE_MS: Final = 60_000.0
"""How long a task's directory may be held by the worker that had the task before."""
_IN_USE_PAUSE_MS: Final = 250.0


def is_taken(error: StreamkitError) -> bool:
    """Return whether another worker owns the task, or did meanwhile."""
    return isinstance(error, ProducerFencedError | TaskMigratedError)


class Retries:
    """Counts failures by what failed; safe in one thread."""

    def __init__(self, clock: Clock) -> None:
        """Nothing has failed yet."""
        self._clock = clock
        self._counts: dict[str, int] = defaultdict(int)
        self._lasting_counts: dict[str, int] = defaultdict(int)
        """Of the failures above, those that are neither an absence of the broker nor another owner."""
        self._in_use_since_ms: dict[str, float] = {}

    def pause_ms(self, what: str, error: StreamkitError) -> float:
        """Count a failure and return how long to wait before `what` is tried again.

        Raises:
            StreamkitError: `error`, if it must not be tried again, or was too often.
        """
        if isinstance(error, StoreInUseError):
            now_ms = self._clock.monotonic_ms()
            if now_ms - self._in_use_since_ms.setdefault(what, now_ms) >= _IN_USE_MS:
                raise error
            return _IN_USE_PAUSE_MS
        self._counts[what] += 1
        count = self._counts[what]
        patient = error.answer is Answer.RETRY
        if patient:
            if count > _RETRIES_MAX:
                raise error
        elif not is_taken(error):
            if not isinstance(error, CommitFailedError) and error.answer is not Answer.RESTORE:
                raise error
            # Counted apart: after a long outage the first commit may fail once more, and is no sixth attempt.
            self._lasting_counts[what] += 1
            if self._lasting_counts[what] > _ATTEMPTS_MAX:
                raise error
        pauses = count > 1 or patient or is_taken(error)
        return min(_RETRY_MIN_MS * 2.0 ** min(count, 10), _RETRY_MAX_MS) if pauses else 0.0

    def went_well(self, what: str) -> None:
        """Forget the failures: the next one is the first."""
        self._counts.pop(what, None)
        self._lasting_counts.pop(what, None)
        self._in_use_since_ms.pop(what, None)
