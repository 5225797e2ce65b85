"""A digest of a store's contents that does not depend on the order in which they came.

The digest is the sum, mod 2^128, of one BLAKE2b-16 hash for each pair. So a pair can be taken out as cheaply as it was
put in, and two stores that hold the same pairs have the same digest whatever their history. It finds faults, not
forgers: whoever can choose the pairs can make two sums meet.

Windowed pairs are summed per window end. A window that is dropped by a range delete is then subtracted as a whole,
without reading back what the range held.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import orjson

__all__ = ["Digest"]

_HASH_BYTES: Final = 16
_MASK: Final = (1 << 128) - 1


class Digest:
    """Number and sum of the pairs of one store; changed in step with it, by whole batches.

    Two digests are equal when they count and sum the same pairs, window by window.
    """

    __slots__ = ("_plain", "_windows")

    def __init__(self) -> None:
        """Start as the digest of an empty store."""
        self._plain = (0, 0)
        self._windows: dict[int, tuple[int, int]] = {}

    def __eq__(self, other: object) -> bool:
        """Compare counts and sums, window by window."""
        if not isinstance(other, Digest):
            return NotImplemented
        return self._plain == other._plain and self._windows == other._windows

    def __repr__(self) -> str:
        """Show count and total."""
        return f"Digest({self.pair_count} pairs, {self.total:032x})"

    @property
    def pair_count(self) -> int:
        """How many pairs it covers."""
        return self._plain[0] + sum(count for count, _ in self._windows.values())

    @property
    def total(self) -> int:
        """The sum over all pairs, windowed or not, in `[0, 2^128)`."""
        return (self._plain[1] + sum(subtotal for _, subtotal in self._windows.values())) & _MASK

    def window_ends_ms(self) -> list[int]:
        """Return the ends of the windows that have pairs, ascending."""
        return sorted(self._windows)

    def add(self, keys: Sequence[bytes], values: Sequence[bytes], window_ends_ms: Sequence[int] | None = None) -> None:
        """Put pairs in.

        Args:
            keys: Store keys, none of which is covered yet.
            values: One for each key.
            window_ends_ms: The window end of each pair; None if the store has no windows.
        """
        self._change(keys, values, window_ends_ms, +1)

    def remove(
        self, keys: Sequence[bytes], values: Sequence[bytes], window_ends_ms: Sequence[int] | None = None
    ) -> None:
        """Take pairs out, each with the value it was put in with."""
        self._change(keys, values, window_ends_ms, -1)

    def replace(
        self,
        keys: Sequence[bytes],
        old_values: Sequence[bytes | None],
        new_values: Sequence[bytes | None],
        window_ends_ms: Sequence[int] | None = None,
    ) -> None:
        """Follow a write: each key goes from its old value to its new one; None means absent."""
        self._change(keys, old_values, window_ends_ms, -1)
        self._change(keys, new_values, window_ends_ms, +1)

    def drop_window(self, window_end_ms: int) -> None:
        """Take all pairs of a window out, without knowing them; an unknown window has none."""
        self._windows.pop(window_end_ms, None)

    def _change(
        self,
        keys: Sequence[bytes],
        values: Sequence[bytes | None],
        window_ends_ms: Sequence[int] | None,
        sign: int,
    ) -> None:
        if window_ends_ms is None:
            hashes = [hashed for hashed in _hashes(keys, values) if hashed is not None]
            self._plain = _moved(self._plain, sign, len(hashes), sum(hashes))
            return
        counts: dict[int, int] = {}
        sums: dict[int, int] = {}
        for end, hashed in zip(window_ends_ms, _hashes(keys, values), strict=True):
            if hashed is not None:
                counts[end] = counts.get(end, 0) + 1
                sums[end] = sums.get(end, 0) + hashed
        for end, count in counts.items():
            moved = _moved(self._windows.get(end, (0, 0)), sign, count, sums[end])
            if moved[0]:
                self._windows[end] = moved
            else:
                del self._windows[end]

    def to_json(self) -> str:
        """Return the compact JSON form; `from_json` reads it back."""
        windows = {str(end): [count, f"{subtotal:x}"] for end, (count, subtotal) in sorted(self._windows.items())}
        return orjson.dumps([self._plain[0], f"{self._plain[1]:x}", windows]).decode()

    @classmethod
    def from_json(cls, text: str) -> "Digest":
        """Read the JSON form."""
        count, plain, windows = orjson.loads(text)
        digest = cls()
        digest._plain = (count, int(plain, 16))
        digest._windows = {int(end): (count, int(subtotal, 16)) for end, (count, subtotal) in windows.items()}
        return digest


def _moved(before: tuple[int, int], sign: int, count: int, amount: int) -> tuple[int, int]:
    after = before[0] + sign * count, (before[1] + sign * amount) & _MASK
    assert after[0] > 0 or after == (0, 0), "a pair was taken out that was never put in"
    return after


def _hashes(keys: Sequence[bytes], values: Sequence[bytes | None]) -> Iterable[int | None]:
    """Hash each pair; the key's length leads, or moving a byte from key to value would not be seen."""
    return [
        None
        if value is None
        else int.from_bytes(blake2b(len(key).to_bytes(4, "big") + key + value, digest_size=_HASH_BYTES).digest(), "big")
        for key, value in zip(keys, values, strict=True)
    ]
