"""Batches made by hand, for tests of what takes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamkit.records import NEVER_MS, Batch, Column, Origin, TopicPartition
from streamkit.serde import Serde


def batch_of(  # each is named where it is used
    key_serde: Serde,
    keys: Sequence[Any],
    value_serde: Serde,
    values: Sequence[Any],
    *,
    timestamps_ms: Sequence[int] | None = None,
    offsets: Sequence[int] | None = None,
    source: TopicPartition | None = None,
) -> Batch:
    """Return a batch of objects."""
    count = len(values)
    origin = Origin(
        source=source or TopicPartition("source", 0),
        offsets=np.array(range(count) if offsets is None else offsets, dtype=np.int64),
        timestamps_ms=np.array([0] * count if timestamps_ms is None else timestamps_ms, dtype=np.int64),
        watermarks_ms=np.full(count, NEVER_MS, dtype=np.int64),
    )
    return Batch(origin, Column(key_serde, objects=list(keys)), Column(value_serde, objects=list(values)))
