"""The seam of local state: one ordered map of bytes for one task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streamkit.state.entries import FlatEntries

__all__ = ["Changes", "StateStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What one commit changes. Ranges `[begin, end)` are deleted first, then values are put; None deletes a key."""

    values: Mapping[bytes, bytes | None] = field(default_factory=dict)
    delete_ranges: Sequence[tuple[bytes, bytes]] = ()


class StateStore(Protocol):
    """The materialised state of one task: keys in byte order, changed only by whole commits."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where absent. Cheapest when `keys` are sorted.

        Raises:
            StoreDamagedError: A block does not check.
            StoreClosedError: The store was closed.
        """
        ...

    def scan(self, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs with `begin <= key < end` in byte order, as of the call.

        Raises:
            StoreDamagedError: The scan met damage (it never ends early in silence).
        """
        ...

    def write(self, changes: Changes) -> None:
        """Apply all changes atomically; after a crash either all or none of them are there."""
        ...

    def ingest(self, entries: Sequence[FlatEntries]) -> None:
        """Apply many entries at once, as a sorted table. The last value of a key counts; None deletes it.

        It is durable on return. Much faster than `write` for many values, much slower for few.
        """
        ...

    def flush(self) -> None:
        """Return once everything written survives the death of the process."""
        ...

    def size_bytes(self) -> int:
        """Return about how much the store takes."""
        ...

    def close(self) -> None:
        """Flush and close; closing twice does nothing."""
        ...
