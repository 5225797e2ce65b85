"""A digest of a store's contents that does not depend on the order in which they came.

The digest is the sum, mod 2^128, of one XXH3-128 hash for each pair. So a pair can be taken out as cheaply as it was
put in, and two stores that hold the same pairs have the same digest whatever their history. It finds faults, not
forgers: whoever can choose the pairs can make two sums meet.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from xxhash import xxh3_128_digest

__all__ = ["Digest"]

_MASK: Final = (1 << 128) - 1


class Digest:
    """Number and sum of the pairs of one store; changed in step with it, by whole batches.

    Two digests are equal when they count and sum the same pairs.
    """

    __slots__ = ("pair_count", "total")

    def __init__(self) -> None:
        """Start as the digest of an empty store."""
        self.pair_count, self.total = 0, 0

    def __eq__(self, other: object) -> bool:
        """Compare counts and sums."""
        if not isinstance(other, Digest):
            return NotImplemented
        return (self.pair_count, self.total) == (other.pair_count, other.total)

    def __repr__(self) -> str:
        """Show count and total."""
        return f"Digest({self.pair_count} pairs, {self.total:032x})"

    def add(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Put pairs in.

        Args:
            keys: Store keys, none of which is covered yet.
            values: One for each key.
        """
        self._move(len(keys), _sum(_hashes(keys, values)))

    def add_pairs(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Put pairs in, as `add` does."""
        self._move(len(pairs), _sum([xxh3_128_digest(key + value, len(key)) for key, value in pairs]))

    def remove(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take pairs out, each with the value it was put in with."""
        self._move(-len(keys), -_sum(_hashes(keys, values)))

    def replace(
        self, keys: Sequence[bytes], old_values: Iterable[bytes | None], new_values: Iterable[bytes | None]
    ) -> None:
        """Follow a write: each key goes from its old value to its new one; None means absent."""
        gone = _hashes(keys, old_values)
        come = _hashes(keys, new_values)
        self._move(len(come) - len(gone), _sum(come) - _sum(gone))

    def plus(self, other: "Digest") -> "Digest":
        """Return the digest of the pairs of both, which have no key in common."""
        both = Digest()
        both.pair_count, both.total = self.pair_count + other.pair_count, (self.total + other.total) & _MASK
        return both

    def to_text(self) -> str:
        """Return the compact text form; `from_text` reads it back."""
        return f"{self.pair_count}:{self.total:x}"

    @classmethod
    def from_text(cls, text: str) -> "Digest":
        """Read the text form."""
        count, _, total = text.partition(":")
        digest = cls()
        digest.pair_count, digest.total = int(count), int(total, 16)
        return digest

    def _move(self, count: int, amount: int) -> None:
        self.pair_count, self.total = self.pair_count + count, (self.total + amount) & _MASK
        assert self.pair_count > 0 or (self.pair_count, self.total) == (0, 0), (
            "a pair was removed that was never put in"
        )


def _hashes(keys: Sequence[bytes], values: Iterable[bytes | None]) -> list[bytes]:
    """Hash the pairs that have a value; a key's length is the seed, or a byte moved to the value would not be seen."""
    return [
        xxh3_128_digest(key + value, len(key)) for key, value in zip(keys, values, strict=True) if value is not None
    ]


def _sum(hashes: Sequence[bytes]) -> int:
    """Add up by words of 32 bits, of which 2^32 fit into 64: in half the time of Python's integers."""
    words = np.frombuffer(b"".join(hashes), dtype=">u4").reshape(-1, 4).sum(axis=0, dtype=np.uint64)
    return sum(word << shift for word, shift in zip(words.tolist(), (96, 64, 32, 0), strict=True))
