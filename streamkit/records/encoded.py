"""Encoded records as parallel columns: what the log stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["EncodedRecords", "Header"]

Header: TypeAlias = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRecords:
    """Records about to be appended to one partition, keys and values bytes already.

    All columns have the same length; the log gives out the offsets. `headers` is None when no record has any.
    """

    timestamps_ms: npt.NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
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
        """Return the records, with columns of one length."""
        stamps = np.asarray(timestamps_ms, dtype=np.int64)
        assert len(stamps) == len(keys) == len(values), "columns differ in length"
        return cls(
            timestamps_ms=stamps,
            keys=keys,
            values=values,
            headers=headers,
        )
