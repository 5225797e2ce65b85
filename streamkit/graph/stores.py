"""What a function of `process` sees of the engine: its context, and the stores that it was given."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Context", "KeyValueStore", "Store"]

K = TypeVar("K")
V = TypeVar("V")


# Without slots: see `Record`.
@dataclass(frozen=True, kw_only=True)
class Store(Generic[K, V]):
    """The handle of a store that `job.store` made; it carries the types of what lies in it.

    Args:
        name: Names the changelog topic, `<job>-<name>-changelog`.
        key_type: Of its keys.
        value_type: Of its values.
    """

    name: str
    key_type: Any
    value_type: Any


class KeyValueStore(Protocol[K, V]):
    """A store as one task has it: a part of its own, which no other task reads or writes.

    What is written is seen at once, and is committed with the outputs and offsets of the records it was written for.
    Keys and values are copied: whoever changes an object that came out of a store, or went in, puts it once more.
    """

    def get(self, key: K) -> V | None:
        """Return the value of a key, None if there is none.

        Raises:
            TypeError: The key is not of the store's type.
            DefinitionError: What lies there is not of the store's type.

        Cost: one look into memory; into the store for a key that was not asked for in this batch and not changed since
        the last commit.
        """
        ...

    def put(self, key: K, value: V) -> None:
        """Set the value of a key; None deletes it.

        Raises:
            TypeError: Key or value is not of the store's type; nothing is written.
        """
        ...

    def delete(self, key: K) -> None:
        """Delete a key; one that is not there may be deleted too.

        Raises:
            TypeError: The key is not of the store's type.
        """
        ...

    def items(self, begin: K | None = None, end: K | None = None) -> Iterator[tuple[K, V]]:
        """Iterate over the pairs with `begin <= key < end`, in the order of the keys' bytes.

        Text comes by code point. An integer is its decimal digits, so 10 comes before 9. The pairs are those of the
        moment of the first step: what is written on the way is not seen.

        Args:
            begin: The first key; None: from the start.
            end: The key after the last; None: to the end.

        Raises:
            TypeError: A bound is not of the store's type.
            DefinitionError: What lies there is not of the store's type.

        Cost: one scan of the range, and one pass over what the task has changed since its last commit.
        """
        ...


class Context(Protocol):
    """What a function of `process` is called with; it holds for the call alone."""

    @property
    def partition(self) -> int:
        """The partition of the task, from 0."""
        ...

    def store(self, store: Store[K, V]) -> KeyValueStore[K, V]:
        """Return the task's part of a store.

        Raises:
            UnknownStoreError: The store is not among `stores=` of this `process`. The run stops, whatever the record
                policy.
        """
        ...
