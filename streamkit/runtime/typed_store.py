"""A store as a function of `process` sees it: typed keys and values above the bytes of one task.

What a batch reads and writes is kept as bytes until `settle`, so a key that comes often is looked up and digested once.
"""

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from streamkit.errors import DefinitionError
from streamkit.graph.stores import Store
from streamkit.records import RowError
from streamkit.runtime.keyed import KeyedState
from streamkit.serde import Serde, key_serde, value_serde

__all__ = ["TypedStore"]

K = TypeVar("K")
V = TypeVar("V")

_UNSETTLED_MAX: Final = 10_000
"""So many keys are kept at most: a batch may touch any number of them."""


class TypedStore(Generic[K, V]):
    """One store of one task; satisfies `KeyValueStore`. All nodes that share the store share this.

    Args:
        store: Its handle.
        state: Where it lies.
    """

    def __init__(self, store: Store[K, V], state: KeyedState) -> None:
        """Go on from what the store holds."""
        self.handle, self._state = store, state
        self._keys, self._values = key_serde(store.key_type), value_serde(store.value_type)
        self._known: dict[bytes, bytes | None] = {}
        self._changed: dict[bytes, bytes | None] = {}

    def get(self, key: K) -> V | None:
        """Return the value of a key, None if there is none."""
        encoded = self._key(key)
        if encoded not in self._known:
            self._make_room()
            self._known[encoded] = self._state.get_many([encoded])[0]
        data = self._known[encoded]
        return None if data is None else self._decoded(self._values, data)

    def put(self, key: K, value: V) -> None:
        """Set the value of a key; None deletes it."""
        self._set(self._key(key), None if value is None else self._encoded(self._values, value))

    def delete(self, key: K) -> None:
        """Delete a key."""
        self._set(self._key(key), None)

    def items(self, begin: K | None = None, end: K | None = None) -> Iterator[tuple[K, V]]:
        """Iterate over the pairs with `begin <= key < end`, in the order of the keys' bytes."""
        bounds = [None if bound is None else self._key(bound) for bound in (begin, end)]
        return self._items(*bounds)

    def _items(self, begin: bytes | None, end: bytes | None) -> Iterator[tuple[K, V]]:
        self.settle()
        for key, data in self._state.scan(begin, end):
            yield self._decoded(self._keys, key), self._decoded(self._values, data)

    def settle(self) -> None:
        """Write what was changed into the overlay, and forget what was read."""
        if self._changed:
            self._state.put_many(list(self._changed), list(self._changed.values()))
        self._known, self._changed = {}, {}

    def _set(self, key: bytes, data: bytes | None) -> None:
        self._make_room()
        self._known[key] = self._changed[key] = data

    def _make_room(self) -> None:
        if len(self._known) >= _UNSETTLED_MAX:
            self.settle()

    def _key(self, key: K) -> bytes:
        encoded = self._encoded(self._keys, key)
        if encoded is None:
            raise TypeError(f"the store {self.handle.name!r} has no key that is null")
        return encoded

    def _encoded(self, serde: Serde, value: Any) -> bytes | None:
        try:
            return serde.encode(value)
        except RowError as error:
            raise TypeError(f"the store {self.handle.name!r} takes no such {serde.what}: {error.reason}") from error

    def _decoded(self, serde: Serde, data: bytes) -> Any:
        try:
            return serde.decode(data)
        except RowError as error:
            raise DefinitionError(
                f"the store {self.handle.name!r} holds a {serde.what} that is not of its type {serde.name}: "
                f"{error.reason}",
                hint="if the type was changed, replay the job, or give the store a new name",
            ) from error
