"""A store of plain keys that is written as soon as it changes: into the overlay, with its digest in step."""

from collections.abc import Iterator, Sequence

from streamkit.runtime.overlay import Overlay
from streamkit.state import Digest, store_key, store_range

__all__ = ["KeyedState"]


class KeyedState:
    """One store of one task, whose values are read back before the next commit.

    Args:
        store_index: Leads its keys.
        overlay: Of the task.
        digest: Of the store's contents, as of the task's position; changed in place.
    """

    def __init__(self, store_index: int, overlay: Overlay, digest: Digest) -> None:
        """Go on from what the store holds."""
        self._store_index, self._overlay, self.digest = store_index, overlay, digest

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return current values; None: there is none."""
        return self._overlay.get_many([store_key(self._store_index, key) for key in keys])

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> list[bytes | None]:
        """Set values of distinct keys, None deletes; return what they were."""
        store_keys = [store_key(self._store_index, key) for key in keys]
        before = self._overlay.get_many(store_keys)
        self.digest.replace(store_keys, before, values)
        self._overlay.put_many(self._store_index, store_keys, values)
        return before

    def scan(self, begin: bytes | None = None, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield current keys and values with `begin <= key < end`, in the order of the keys' bytes; None: no bound."""
        first, last = store_range(self._store_index)
        low = first if begin is None else store_key(self._store_index, begin)
        high = last if end is None else store_key(self._store_index, end)
        for key, value in self._overlay.scan(low, high):
            yield key[len(first) :], value
