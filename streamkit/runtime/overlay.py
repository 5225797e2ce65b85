"""The overlay: what a task has changed since the store, in two generations.

The store is not touched between commits. Changes gather in the *pending* generation; a commit freezes it into the
*committing* one and computing goes on; once the log says committed, the store takes it. Reads look through pending,
committing and store. An abort drops both with the overlay.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streamkit.state import Changes, StateStore

__all__ = ["Generation", "Overlay"]


@dataclass(slots=True)
class Generation:
    """What one commit changes.

    `values` are the store's new values (None: deleted). `ranges` are deleted whole. `log` holds, for each store
    index, the changelog's entries: the last value per dirty key, tombstones for what a range deletes.
    """

    values: dict[bytes, bytes | None] = field(default_factory=dict)
    ranges: list[tuple[bytes, bytes]] = field(default_factory=list)
    log: dict[int, dict[bytes, bytes | None]] = field(default_factory=dict)

    def changes(self) -> Changes:
        """Return what the store takes."""
        return Changes(values=self.values, delete_ranges=tuple(self.ranges))


class Overlay:
    """Reads and writes of one task above its store."""

    def __init__(self, store: StateStore) -> None:
        """Start with nothing changed."""
        self._store = store
        self._pending = Generation()
        self._committing: Generation | None = None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return current values; what lies in the store is read in one sorted multi-get."""
        found: dict[bytes, bytes | None] = {}
        missing: list[bytes] = []
        # Asked for once: the thread that commits may end the commit meanwhile, when the store has what is in it.
        committing = self._committing
        layers = [self._pending.values]
        if committing is not None:
            layers.append(committing.values)
        for key in keys:
            for layer in layers:
                if key in layer:
                    found[key] = layer[key]
                    break
            else:
                missing.append(key)
        missing.sort()
        found.update(zip(missing, self._store.get_many(missing), strict=True))
        return [found[key] for key in keys]

    def scan(self, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield current pairs with `begin <= key < end`, in byte order."""
        changed: dict[bytes, bytes | None] = {}
        hidden: list[tuple[bytes, bytes]] = []
        for generation in (self._committing, self._pending):
            if generation is not None:
                hidden.extend(generation.ranges)
                for low, high in generation.ranges:
                    for key in [key for key in changed if low <= key < high]:
                        del changed[key]
                changed.update((key, value) for key, value in generation.values.items() if begin <= key < end)
        current = ((key, value) for key, value in sorted(changed.items()) if value is not None)
        stored = (
            (key, value)
            for key, value in self._store.scan(begin, end)
            if key not in changed and not any(low <= key < high for low, high in hidden)
        )
        yield from heapq.merge(stored, current)

    def put_many(self, store_index: int, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Set values, here and in the changelog; None deletes."""
        self._pending.values.update(zip(keys, values, strict=True))
        self._pending.log.setdefault(store_index, {}).update(zip(keys, values, strict=True))

    def delete_range(self, store_index: int, begin: bytes, end: bytes, keys: Sequence[bytes]) -> None:
        """Delete a range whose present keys are `keys`: at once in the store, by tombstones in the changelog.

        The keys are never asked for again by `get_many`: a closed window takes no more rows.
        """
        pending = self._pending
        for key in keys:
            pending.values.pop(key, None)
        pending.ranges.append((begin, end))
        pending.log.setdefault(store_index, {}).update(dict.fromkeys(keys))

    def freeze(self) -> Generation:
        """Begin a commit: what is pending becomes committing."""
        assert self._committing is None, "one commit at a time"
        self._committing, self._pending = self._pending, Generation()
        return self._committing

    def applied(self) -> None:
        """End a commit: the store has what was committing."""
        self._committing = None
