"""Windows as frozen descriptions; the engine builds the logic from them."""

from dataclasses import dataclass
from datetime import timedelta

from streamkit.errors import DefinitionError

__all__ = ["Tumbling", "to_ms"]


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
        if to_ms(size) < 1:
            raise DefinitionError(f"window size {size} is shorter than 1 ms", hint="pass a longer size=")
        if to_ms(grace) < 0:
            raise DefinitionError(f"grace {grace} is negative", hint="grace=timedelta(0) accepts no late record")
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
