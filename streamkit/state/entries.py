"""A digest of changelog entries that does depend on their order: what one transaction wrote, as it was written.

The digest of a store says whether its contents are right, not whether the changelog is whole: an entry that is written
over later can be lost, and one that stands twice changes nothing. This one sees a value flipped and an entry lost,
doubled or moved, in the transaction where it happened. Like the other it finds faults, not forgers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128

__all__ = ["EntriesDigest", "FlatEntries"]

_VERSION: Final = 1
_ABSENT: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatEntries:
    """Entries without an object for each.

    Args:
        keys: All keys, one behind the other.
        values: All values, likewise.
        lengths: Of each entry's key and value, in bytes; -1 for the value of a tombstone. Little-endian, in this order.
    """

    keys: bytes
    values: bytes
    lengths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, keys: Sequence[bytes], values: Sequence[bytes | None]) -> "FlatEntries":
        """Put entries together; a value None is a tombstone.

        Cost: 0.2 us an entry of 116 bytes (measured).
        """
        lengths = np.empty((len(keys), 2), dtype="<i8")
        lengths[:, 0] = list(map(len, keys))
        lengths[:, 1] = [_ABSENT if value is None else len(value) for value in values]
        return cls(keys=b"".join(keys), values=b"".join(filter(None, values)), lengths=lengths)

    @classmethod
    def joined(cls, parts: Sequence["FlatEntries"]) -> "FlatEntries":
        """Put the entries of several together, in their order."""
        return cls(
            keys=b"".join([part.keys for part in parts]),
            values=b"".join([part.values for part in parts]),
            lengths=np.concatenate([np.empty((0, 2), dtype="<i8"), *(part.lengths for part in parts)]),
        )

    @property
    def size_bytes(self) -> int:
        """The bytes of all keys and values."""
        return len(self.keys) + len(self.values)

    def columns(self) -> tuple[list[bytes], list[bytes | None]]:
        """Return keys and values as objects."""
        keys = _split(self.keys, self.lengths[:, 0])
        found = _split(self.values, np.maximum(self.lengths[:, 1], 0))
        absent = (self.lengths[:, 1] == _ABSENT).tolist()
        return keys, [None if gone else value for value, gone in zip(found, absent, strict=True)]


def _split(data: bytes, lengths: npt.NDArray[np.int64]) -> list[bytes]:
    ends = np.cumsum(lengths)
    return [data[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]


class EntriesDigest:
    """Number and hash of a sequence of entries; how the sequence is cut into calls of `add` does not matter.

    Keys, values and their lengths are hashed in three streams, which costs one join for each and no step in Python for
    an entry.
    """

    __slots__ = ("_keys", "_lengths", "_values", "entry_count")

    def __init__(self) -> None:
        """Start with no entry."""
        self.entry_count = 0
        self._keys, self._values, self._lengths = xxh3_128(), xxh3_128(), xxh3_128()

    def add(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Go on with entries, in order; a value None is a tombstone.

        Cost: 0.25 us an entry of 116 bytes (measured).
        """
        self.add_flat(FlatEntries.of(keys, values))

    def add_flat(self, entries: FlatEntries) -> None:
        """Go on with entries that were put together, as `add` does.

        Cost: 0.02 us an entry of 116 bytes (measured).
        """
        self._keys.update(entries.keys)
        self._values.update(entries.values)
        self._lengths.update(entries.lengths.tobytes())
        self.entry_count += len(entries.lengths)

    def to_text(self) -> str:
        """Return the text form: version, number of entries and hash. Equal digests have equal texts."""
        streams = self._keys.digest() + self._values.digest() + self._lengths.digest()
        return f"{_VERSION}:{self.entry_count}:{xxh3_128(streams).hexdigest()}"
