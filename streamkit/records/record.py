"""One record, its place, and the key of a windowed result."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Record", "TopicPartition", "Windowed"]

K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


class TopicPartition(NamedTuple):
    """One partition of one topic; a tuple because it is hashed for every fetch."""

    topic: str
    partition: int

    def __str__(self) -> str:
        """Return Kafka's spelling, `topic-partition`."""
        return f"{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Generic[K_co, V_co]):
    """One record as the low-level API hands it out; `timestamp_ms` is event time."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: K_co
    value: V_co
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Windowed(Generic[K_co]):
    """The key of a windowed result: `[start_ms, end_ms)` in ms since the Unix epoch, UTC."""

    key: K_co
    start_ms: int
    end_ms: int
