"""Kafka's partitioner: a key's murmur2 hash decides its partition; rows without a key go round robin by batch.

The hash is the one of Kafka's Java client, so a topic that streamkit fills is co-partitioned with one that any Kafka
client fills. `partitions_of` hashes many keys at once, because a shuffle and a keyed sink place every row.

Not here: what the key's bytes are (`serde`).
Source: org.apache.kafka.common.utils.Utils.murmur2 (behaviour); KIP-480 for keys that are null.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Placement", "murmur2", "partition_of", "partitions_of"]

_SEED: Final = 0x9747B28C
_FACTOR: Final = 0x5BD1E995
_SHIFT: Final = 24
_WORD: Final = 0xFFFFFFFF
_POSITIVE: Final = 0x7FFFFFFF
_KEYS_FEW: Final = 100
"""Below it the fixed cost of the vectorised hash exceeds what it saves (measured)."""


def murmur2(key: bytes) -> int:
    """Return Kafka's 32-bit murmur2 hash of a key, unsigned."""
    digest = (_SEED ^ len(key)) & _WORD
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * _FACTOR & _WORD
        word ^= word >> _SHIFT
        digest = (digest * _FACTOR & _WORD) ^ (word * _FACTOR & _WORD)
    rest = key[whole:]
    if rest:
        digest = (digest ^ int.from_bytes(rest, "little")) * _FACTOR & _WORD
    digest = (digest ^ digest >> 13) * _FACTOR & _WORD
    return digest ^ digest >> 15


def partition_of(key: bytes, partition_count: int) -> int:
    """Return the partition of one key among `partition_count` (>= 1)."""
    return (murmur2(key) & _POSITIVE) % partition_count


def partitions_of(
    keys: Sequence[bytes | None], partition_count: int, *, null_partition: int = 0
) -> npt.NDArray[np.int32]:
    """Return the partition of each key.

    Args:
        keys: Encoded keys; None goes to `null_partition`.
        partition_count: Of the topic, at least 1.
        null_partition: Below `partition_count`.

    Cost: about 0.08 us a key when there are many short ones (measured).
    """
    assert 0 <= null_partition < partition_count, "no such partition"
    if partition_count == 1:
        return np.zeros(len(keys), dtype=np.int32)
    if len(keys) < _KEYS_FEW:
        some = [null_partition if key is None else partition_of(key, partition_count) for key in keys]
        return np.array(some, dtype=np.int32)
    present = [key for key in keys if key is not None]
    lengths = np.fromiter(map(len, present), dtype=np.int64, count=len(present))
    digests = _murmur2_of_many(b"".join(present), lengths)
    hashed = ((digests & np.uint32(_POSITIVE)) % np.uint32(partition_count)).astype(np.int32)
    if len(present) == len(keys):
        return hashed
    partitions = np.full(len(keys), null_partition, dtype=np.int32)
    partitions[[index for index, key in enumerate(keys) if key is not None]] = hashed
    return partitions


def _murmur2_of_many(joined: bytes, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Return the hash of each key, one word of all keys at a time; all arithmetic wraps at 32 bits.

    Args:
        joined: The keys, one after the other.
        lengths: Of each key, in bytes.
    """
    # Any four bytes as a little-endian word, wherever they begin; the last word of a key may reach past it.
    anywhere: npt.NDArray[np.uint32] = np.ndarray(
        (len(joined) + 1,), dtype="<u4", buffer=joined + bytes(4), strides=(1,)
    )
    factor = np.uint32(_FACTOR)
    places = np.cumsum(lengths) - lengths
    word_counts = lengths >> 2
    digests = lengths.astype(np.uint32) ^ np.uint32(_SEED)
    for index in range(int(word_counts.max(initial=0))):
        active = np.flatnonzero(word_counts > index)
        words = anywhere[places[active] + 4 * index] * factor
        words ^= words >> np.uint32(_SHIFT)
        digests[active] = digests[active] * factor ^ words * factor
    rest_bytes = lengths & 3
    masks = ((1 << (8 * rest_bytes)) - 1).astype(np.uint32)
    rest = anywhere[places + 4 * word_counts] & masks
    digests = np.where(rest_bytes > 0, (digests ^ rest) * factor, digests)
    digests = (digests ^ digests >> np.uint32(13)) * factor
    return digests ^ digests >> np.uint32(15)


class Placement:
    """Places the rows of one topic, call by call.

    A key always goes to its partition. The rows without a key of one call go to one partition together, so that
    their order is kept, and those of the next call to the next one.
    """

    __slots__ = ("_next", "_partition_count")

    def __init__(self, partition_count: int) -> None:
        """Place among `partition_count` (>= 1), the first rows without a key into partition 0."""
        self._partition_count, self._next = partition_count, 0

    def place(self, keys: Sequence[bytes | None]) -> npt.NDArray[np.int32]:
        """Return the partition of each row; moves on only if a row had no key."""
        partitions = partitions_of(keys, self._partition_count, null_partition=self._next)
        if None in keys:
            self._next = (self._next + 1) % self._partition_count
        return partitions
