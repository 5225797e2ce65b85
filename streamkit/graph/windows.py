"""Windows as frozen descriptions; the engine builds the logic from them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from streamkit.errors import DefinitionError

__all__ = ["AnyWindow", "Hopping", "Tumbling", "to_ms"]

_WINDOWS_MAX: Final = 1440


def to_ms(duration: timedelta) -> int:
    """Return a duration in whole milliseconds."""
    return duration // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows of one size side by side, `[start, end)`, aligned to the Unix epoch.

    Args:
        size: Length of a window, at least 1 ms.
        grace: How long after its end a window still accepts records, >= 0. There is no default (KIP-633).

    Raises:
        DefinitionError: A duration is out of its range.
    """

    size: timedelta
    grace: timedelta

    def __init__(self, size: timedelta, *, grace: timedelta) -> None:
        """Check and keep the durations."""
        _check(size, grace)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "grace", grace)

    @property
    def size_ms(self) -> int:
        """Length of a window in ms."""
        return to_ms(self.size)

    @property
    def grace_ms(self) -> int:
        """Grace in ms."""
        return to_ms(self.grace)

    @property
    def advance_ms(self) -> int:
        """From the start of a window to the start of the next, in ms: their size."""
        return self.size_ms


@dataclass(frozen=True, slots=True)
class Hopping:
    """Windows of one size, `[start, end)`, one of which begins every `advance`, aligned to the Unix epoch.

    They overlap, so a record falls in `size / advance` windows; where the advance does not divide the size, in one
    more or one less of them by its timestamp. Each window is judged, closed and published as a tumbling one is.

    Args:
        size: Length of a window, at least 1 ms.
        advance: From the start of a window to the start of the next: 1 ms to `size`, and not below a 1,440th of it.
        grace: How long after its end a window still accepts records, >= 0. There is no default (KIP-633).

    Raises:
        DefinitionError: A duration is out of its range.
    """

    size: timedelta
    advance: timedelta
    grace: timedelta

    def __init__(self, size: timedelta, *, advance: timedelta, grace: timedelta) -> None:
        """Check and keep the durations."""
        _check(size, grace)
        if to_ms(advance) < 1:
            raise DefinitionError(f"window advance {advance} is shorter than 1 ms", hint="pass a longer advance=")
        if to_ms(advance) > to_ms(size):
            raise DefinitionError(
                f"window advance {advance} is longer than the size {size}",
                detail="records between two windows would fall in none",
                hint="pass a shorter advance=, or filter the records first",
            )
        if to_ms(size) > _WINDOWS_MAX * to_ms(advance):
            raise DefinitionError(
                f"window advance {advance} is less than a 1,440th of the size {size}",
                detail="a record would be counted in more than 1,440 windows, each of which is kept and published",
                hint="pass a longer advance=; a day may advance by a minute",
            )
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "advance", advance)
        object.__setattr__(self, "grace", grace)

    @property
    def size_ms(self) -> int:
        """Length of a window in ms."""
        return to_ms(self.size)

    @property
    def grace_ms(self) -> int:
        """Grace in ms."""
        return to_ms(self.grace)

    @property
    def advance_ms(self) -> int:
        """From the start of a window to the start of the next, in ms."""
        return to_ms(self.advance)


AnyWindow: TypeAlias = Tumbling | Hopping
"""The kinds of windows; each has `size_ms`, `advance_ms` and `grace_ms`."""


def _check(size: timedelta, grace: timedelta) -> None:
    if to_ms(size) < 1:
        raise DefinitionError(f"window size {size} is shorter than 1 ms", hint="pass a longer size=")
    if to_ms(grace) < 0:
        raise DefinitionError(f"grace {grace} is negative", hint="grace=timedelta(0) accepts no late record")
