"""One record, a partition, and the key of a windowed result."""

from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

__all__ = ["NEVER_MS", "Record", "TopicPartition", "Windowed"]

NEVER_MS: Final = -(2**63)
"""A watermark or timestamp before all others: nothing was seen yet."""

K = TypeVar("K")
V = TypeVar("V")
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


class TopicPartition(NamedTuple):
    """One partition of one topic; a tuple because it is hashed for every fetch."""

    topic: str
    partition: int

    def __str__(self) -> str:
        """Return Kafka's spelling, `topic-partition`."""
        return f"{self.topic}-{self.partition}"


# Without slots: of a generic dataclass that is frozen and has some, Python 3.11 cannot make Record[str, int](...).
@dataclass(frozen=True, kw_only=True)
class Record(Generic[K_co, V_co]):
    """A whole record, as `process` takes and gives it.

    Args:
        key: Of the type that the stream has.
        value: Of the type that the stream has.
        timestamp_ms: Event time. Of a record that is handed out it is always said; one that is given without has the
            timestamp of what it was made for.
        headers: Names and data, in order; a name may come twice.

    Example:
        >>> from streamkit import Record
        >>> order = Record(key="ada", value=3, timestamp_ms=1000)
        >>> order.with_value("three")
        Record(key='ada', value='three', timestamp_ms=1000, headers=())
    """

    key: K_co
    value: V_co
    timestamp_ms: int = NEVER_MS
    headers: tuple[tuple[str, bytes | None], ...] = ()

    def with_key(self, key: K) -> "Record[K, V_co]":
        """Return the same record with another key."""
        return Record(key=key, value=self.value, timestamp_ms=self.timestamp_ms, headers=self.headers)

    def with_value(self, value: V) -> "Record[K_co, V]":
        """Return the same record with another value."""
        return Record(key=self.key, value=value, timestamp_ms=self.timestamp_ms, headers=self.headers)


@dataclass(frozen=True, slots=True)
class Windowed(Generic[K_co]):
    """The key of a windowed result: `[start_ms, end_ms)` in ms since the Unix epoch, UTC."""

    key: K_co
    start_ms: int
    end_ms: int
