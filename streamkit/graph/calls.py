"""How an async function is called, as frozen data."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from streamkit.errors import DefinitionError
from streamkit.graph.windows import to_ms

__all__ = ["AsyncCalls"]

_AT_ONCE_MAX: Final = 10_000
_ATTEMPTS_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncCalls:
    """How the records of a stream go through an async function.

    Args:
        at_once: How many records of one partition are under way at most, 1 to 10,000.
        deadline: How long one record may take with all its attempts and the pauses between them, 1 ms or more. It does
            not run while the record waits for its turn.
        attempts: How often the function is called for one record, 1 to 100, before its exception counts.
        backoff: The pause after the first failed attempt, 0 or more; each further one is twice as long. A pause is cut
            by up to a half, by an amount that depends on the record's place and the attempt, so that records that
            failed together do not come back together.

    Raises:
        DefinitionError: An argument is out of its range.
    """

    at_once: int = 100
    deadline: timedelta = timedelta(seconds=30)
    attempts: int = 1
    backoff: timedelta = timedelta(milliseconds=100)

    def __post_init__(self) -> None:
        """Check."""
        for name, number, most in (("at_once", self.at_once, _AT_ONCE_MAX), ("attempts", self.attempts, _ATTEMPTS_MAX)):
            if type(number) is not int or not 1 <= number <= most:
                raise DefinitionError(f"{name}={number!r} is no integer from 1 to {most:,}")
        if to_ms(self.deadline) < 1:
            raise DefinitionError(
                f"deadline {self.deadline} is shorter than 1 ms",
                hint="pass how long one record may take, all its attempts together",
            )
        if to_ms(self.backoff) < 0:
            raise DefinitionError(f"backoff {self.backoff} is negative", hint="pass 0 or more")

    @property
    def deadline_ms(self) -> int:
        """The deadline in ms."""
        return to_ms(self.deadline)

    @property
    def backoff_ms(self) -> int:
        """The first pause in ms."""
        return to_ms(self.backoff)
