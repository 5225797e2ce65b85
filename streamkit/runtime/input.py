"""What a task asks of its inputs, whatever they read."""

from collections.abc import Sequence
from typing import Protocol

from streamkit.broker import Fetched
from streamkit.records import TopicPartition
from streamkit.runtime.position import InputPosition
from streamkit.runtime.turns import Strand

__all__ = ["Input"]


class Input(Protocol):
    """One partition that a task reads."""

    topic_partition: TopicPartition

    @property
    def next_offset(self) -> int:
        """What lies below was handed on, all of it."""
        ...

    @property
    def read_offset(self) -> int:
        """Where it is read next; what lies between `next_offset` and here waits for its turn."""
        ...

    @property
    def full(self) -> bool:
        """Whether so much waits that no more is to be read."""
        ...

    @property
    def ended(self) -> bool:
        """Whether this run's records are all handed on."""
        ...

    @property
    def strands(self) -> Sequence[Strand]:
        """What takes its turn; none where rows are handed on as they are read."""
        ...

    def take(self, fetched: Fetched) -> int:
        """Read what was fetched, and hand it on unless it must wait for its turn; return how many records it was."""
        ...

    def tell(self) -> None:
        """Hand on the watermark, and the end if it has come."""
        ...

    @property
    def watermark_ms(self) -> int:
        """What this input promises of the rows that it has not handed on."""
        ...

    @property
    def read_watermark_ms(self) -> int:
        """What it promises of the rows that it has not read."""
        ...

    def position(self) -> InputPosition:
        """Return how far it was handed on."""
        ...
