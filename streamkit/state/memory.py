"""A state store in memory, for tests, the test driver and jobs that need no disk."""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from streamkit.errors import StoreClosedError
from streamkit.state.entries import FlatEntries
from streamkit.state.protocols import Changes

__all__ = ["MemoryStore"]


class MemoryStore:
    """A dict whose keys are put in order when someone asks for a range; one thread may write while another reads.

    Args:
        contents: Pairs it starts with; they count as flushed.
    """

    def __init__(self, contents: Mapping[bytes, bytes] | None = None) -> None:
        """Start with a copy of `contents`."""
        self._pairs = dict(contents or {})
        self._flushed = dict(self._pairs)
        self._order: list[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where absent."""
        with self._lock:
            self._check_open()
            return [self._pairs.get(key) for key in keys]

    def scan(self, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of `[begin, end)` as they are now.

        Cost: copies the range; sorts all keys if any were added or removed since the last scan.
        """
        with self._lock:
            self._check_open()
            return self._rows([(key, self._pairs[key]) for key in self._between(begin, end)])

    def _rows(self, pairs: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for pair in pairs:
            self._check_open()
            yield pair

    def _between(self, begin: bytes, end: bytes) -> list[bytes]:
        if self._order is None:
            self._order = sorted(self._pairs)
        return self._order[bisect_left(self._order, begin) : bisect_left(self._order, end)]

    def write(self, changes: Changes) -> None:
        """Apply all changes: ranges are deleted, then values put."""
        with self._lock:
            self._check_open()
            for begin, end in changes.delete_ranges:
                for key in self._between(begin, end):
                    del self._pairs[key]
                    self._order = None
            for key, value in changes.values.items():
                if value is None:
                    if self._pairs.pop(key, None) is not None:
                        self._order = None
                else:
                    if key not in self._pairs:
                        self._order = None
                    self._pairs[key] = value

    def ingest(self, entries: Sequence[FlatEntries]) -> None:
        """Apply the entries, and flush."""
        for part in entries:
            self.write(Changes(values=dict(zip(*part.columns(), strict=True))))
        self.flush()

    def flush(self) -> None:
        """Keep a copy of everything written, for `survivor`.

        Cost: linear in the store.
        """
        with self._lock:
            self._check_open()
            self._flushed = dict(self._pairs)

    def size_bytes(self) -> int:
        """Return the bytes of all keys and values.

        Cost: linear in the store.
        """
        with self._lock:
            self._check_open()
            return sum(len(key) + len(value) for key, value in self._pairs.items())

    def close(self) -> None:
        """Flush and close; closing twice does nothing."""
        if not self._closed:
            self.flush()
            self._closed = True

    def survivor(self) -> "MemoryStore":
        """Return a new store as the death of the process would leave this one: with what was flushed last.

        This acts out a crash: leave the old store, as it is, and go on with the survivor. The old one may be closed
        or not.
        """
        return MemoryStore(self._flushed)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed")
