"""Encoded records as parallel columns: what the log stores and hands back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["EncodedRecords", "Header"]

Header: TypeAlias = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRecords:
    """Records of one partition, keys and values still bytes.

    All columns have the same length. `offsets` are absolute when read back, and ignored when
    about to be appended (the log gives them out). `headers` is None when no record has any.
    """

    timestamps_ms: npt.NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    offsets: npt.NDArray[np.int64]
    headers: Sequence[Sequence[Header]] | None = None

    def __len__(self) -> int:
        """Return how many records there are."""
        return len(self.values)

    @classmethod
    def to_append(
        cls,
        *,
        timestamps_ms: npt.NDArray[np.int64] | Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Sequence[Header]] | None = None,
    ) -> "EncodedRecords":
        """Return records about to be appended; their offsets count from zero."""
        stamps = np.asarray(timestamps_ms, dtype=np.int64)
        assert len(stamps) == len(keys) == len(values), "columns differ in length"
        return cls(
            timestamps_ms=stamps,
            keys=keys,
            values=values,
            offsets=np.arange(len(values), dtype=np.int64),
            headers=headers,
        )

    def below(self, end_offset: int) -> "EncodedRecords":
        """Return the records whose offset lies below `end_offset`; they are in offset order."""
        count = int(np.searchsorted(self.offsets, end_offset))
        if count == len(self):
            return self
        return EncodedRecords(
            timestamps_ms=self.timestamps_ms[:count],
            keys=self.keys[:count],
            values=self.values[:count],
            offsets=self.offsets[:count],
            headers=None if self.headers is None else self.headers[:count],
        )
