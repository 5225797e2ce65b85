"""Chance as a seam."""

import random
import secrets
from typing import Protocol

__all__ = ["Rng", "SeededRng", "SystemRng"]


class Rng(Protocol):
    """A source of numbers and identifiers."""

    def below(self, bound: int) -> int:
        """Return an integer in `[0, bound)`."""
        ...

    def token(self) -> str:
        """Return 32 hex digits, unique for all practical purposes."""
        ...


class SystemRng:
    """The machine's randomness."""

    def below(self, bound: int) -> int:
        """Return an unpredictable integer in `[0, bound)`."""
        return secrets.randbelow(bound)

    def token(self) -> str:
        """Return 32 unpredictable hex digits."""
        return secrets.token_hex(16)


class SeededRng:
    """Repeatable randomness for tests and simulation."""

    def __init__(self, seed: int) -> None:
        """Draw the same sequence for the same `seed`."""
        self._random = random.Random(seed)

    def below(self, bound: int) -> int:
        """Return the next integer in `[0, bound)`."""
        return self._random.randrange(bound)

    def token(self) -> str:
        """Return the next 32 hex digits."""
        return f"{self._random.getrandbits(128):032x}"
