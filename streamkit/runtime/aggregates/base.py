"""What both spellings of the built-in aggregates share: the order of rows, and how they fail."""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["AggregateOverflow", "source_order"]

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class AggregateOverflow(OverflowError):
    """Raised where a group is more than its aggregate may hold: a total beyond 64 bits, too many values.

    `by` holds the group's columns where they are known; `group_index` says which row of a grouped frame it is where
    they are not known yet.
    """

    def __init__(
        self,
        name: str,
        by: Mapping[str, Any],
        *,
        reason: str = "an integer sum leaves 64 bits",
        hint: str = "sum a float column, or fewer or smaller numbers",
        group_index: int | None = None,
    ) -> None:
        """Keep which aggregate of which group it is."""
        group = ", ".join(f"{column} {value!r}" for column, value in by.items())
        super().__init__(f"{reason}: {name!r} of {group}" if group else f"{reason}: {name!r}")
        self.name, self.by, self.reason, self.hint, self.group_index = name, dict(by), reason, hint, group_index

    def of(self, by: Mapping[str, Any]) -> "AggregateOverflow":
        """Return the same, with the group's columns."""
        return AggregateOverflow(self.name, by, reason=self.reason, hint=self.hint)


def source_order(topic: str, partition: int) -> str:
    """Return a text that sorts as (topic, partition) does: a space comes before all that a topic name may hold."""
    return f"{topic} {partition:010d}"
