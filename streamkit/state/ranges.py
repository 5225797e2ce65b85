"""The digest of a store, cut into ranges of its keys, so that two stores which differ can say where.

The ranges lie side by side, each from its first key to the next one's; the first begins at the lowest key and the last
has no end. Their digests add up to the digest of the whole store, so a difference between two stores whose ranges begin
alike lies in the first range that differs. Text form: `docs/formats/digests.md`.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streamkit.errors import ConfigError
from streamkit.state.digest import Digest

__all__ = ["KeyRange", "RangeDigests"]

_VERSION: Final = 1
_RANGES_MAX: Final = 256
_RANGE_ROWS_MIN: Final = 64
_ROWS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRange:
    """The store keys with `begin <= key < end`; an `end` of None is none."""

    begin: bytes
    end: bytes | None


class RangeDigests:
    """Digests of up to 256 ranges of one store.

    Args:
        begins: The first key of each range, ascending, the first one empty.
        digests: One for each.
    """

    __slots__ = ("begins", "digests")

    def __init__(self, begins: Sequence[bytes], digests: Sequence[Digest]) -> None:
        """Take what was digested."""
        self.begins, self.digests = tuple(begins), tuple(digests)

    @classmethod
    def of(cls, pairs: Iterable[tuple[bytes, bytes]]) -> "RangeDigests":
        """Digest the pairs of a store, in the order of their keys; the ranges have about as many pairs each.

        Cost: about 0.3 us a pair, beside getting it.
        """
        begins, digests, range_rows = [b""], [Digest()], _RANGE_ROWS_MIN
        for some in _parts(pairs):
            if digests[-1].pair_count >= range_rows:
                begins.append(some[0][0])
                digests.append(Digest())
            if len(begins) > _RANGES_MAX:
                begins, digests = begins[::2], [one.plus(other) for one, other in _two_by_two(digests)]
                range_rows *= 2
            digests[-1].add_pairs(some)
        return cls(begins, digests)

    @classmethod
    def as_in(cls, other: "RangeDigests", pairs: Iterable[tuple[bytes, bytes]]) -> "RangeDigests":
        """Digest the pairs of a store, in the order of their keys, in the ranges of another one."""
        digests = [Digest() for _ in other.begins]
        index = 0
        for some in _parts(pairs):
            start = 0
            while start < len(some):
                following = other.begins[index + 1] if index + 1 < len(digests) else None
                end = len(some) if following is None else bisect_left(some, (following,), start)
                digests[index].add_pairs(some[start:end])
                start = end
                index += end < len(some)
        return cls(other.begins, digests)

    @property
    def total(self) -> Digest:
        """The digest of the whole store."""
        total = Digest()
        for digest in self.digests:
            total = total.plus(digest)
        return total

    def first_difference(self, other: "RangeDigests") -> KeyRange | None:
        """Return the first range that differs from the same one of another store, None if there is none."""
        assert self.begins == other.begins, "only the same ranges can be compared"
        for index, (mine, its) in enumerate(zip(self.digests, other.digests, strict=True)):
            if mine != its:
                return KeyRange(begin=self.begins[index], end=(*self.begins, None)[index + 1])
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; `from_json` reads it back."""
        ranges = [[begin.hex(), one.to_text()] for begin, one in zip(self.begins, self.digests, strict=True)]
        return {"version": _VERSION, "ranges": ranges}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "RangeDigests":
        """Read the JSON form.

        Raises:
            ConfigError: It was written by a newer streamkit.
        """
        if data["version"] != _VERSION:
            raise ConfigError(
                f"digests of version {data['version']} cannot be compared, this streamkit makes version {_VERSION}"
            )
        return cls(
            [bytes.fromhex(begin) for begin, _ in data["ranges"]],
            [Digest.from_text(text) for _, text in data["ranges"]],
        )


def _parts(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    upcoming = iter(pairs)
    row_count = _RANGE_ROWS_MIN
    while some := list(itertools.islice(upcoming, row_count)):
        yield some
        row_count = min(row_count * 2, _ROWS)


def _two_by_two(digests: Sequence[Digest]) -> Iterator[tuple[Digest, Digest]]:
    return itertools.zip_longest(digests[::2], digests[1::2], fillvalue=Digest())
