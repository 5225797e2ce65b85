"""What both spellings of the built-in aggregates share: the order of rows, and how they fail."""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["AggregateOverflow", "source_order"]

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class AggregateOverflow(OverflowError):
    """Raised by `final` when the exact total of integers leaves 64 bits. The engine names the group's key.

    `by` holds the group's columns where they are known.
    """

    def __init__(self, name: str, by: Mapping[str, Any]) -> None:
        """Keep which aggregate of which group it is."""
        group = ", ".join(f"{column} {value!r}" for column, value in by.items())
        super().__init__(f"{name!r} of {group}" if group else repr(name))
        self.name, self.by = name, dict(by)


def source_order(topic: str, partition: int) -> str:
    """Return a text that sorts as (topic, partition) does: a space comes before all that a topic name may hold."""
    return f"{topic} {partition:010d}"
