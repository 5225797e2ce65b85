"""The outbox: encoded records that wait for the commit, by partition."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamkit.records import EncodedRecords, Header, TopicPartition

__all__ = ["Outbox"]


class Outbox:
    """Gathers columns of records and gives them out as one set of columns a partition, in order."""

    def __init__(self) -> None:
        """Start empty."""
        self._parts: dict[TopicPartition, list[EncodedRecords]] = {}

    def add(
        self,
        to: TopicPartition,
        timestamps_ms: npt.NDArray[np.int64],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Sequence[Header]] | None = None,
    ) -> None:
        """Append records for one partition."""
        records = EncodedRecords.to_append(timestamps_ms=timestamps_ms, keys=keys, values=values, headers=headers)
        self._parts.setdefault(to, []).append(records)

    def take(self) -> dict[TopicPartition, EncodedRecords]:
        """Remove and return everything."""
        taken = {to: _joined(parts) for to, parts in self._parts.items()}
        self._parts = {}
        return taken


def _joined(parts: list[EncodedRecords]) -> EncodedRecords:
    if len(parts) == 1:
        return parts[0]
    headers: list[Sequence[Header]] | None = None
    if any(part.headers is not None for part in parts):
        headers = [one for part in parts for one in (part.headers if part.headers is not None else [()] * len(part))]
    return EncodedRecords.to_append(
        timestamps_ms=np.concatenate([part.timestamps_ms for part in parts]),
        keys=list(itertools.chain.from_iterable(part.keys for part in parts)),
        values=list(itertools.chain.from_iterable(part.values for part in parts)),
        headers=headers,
    )
