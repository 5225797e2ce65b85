"""The end of a graph: rows become encoded records in the outbox, placed by Kafka's partitioner."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from streamkit.broker.partitioner import Placement
from streamkit.errors import RecordTooLargeError, SerializationError
from streamkit.log import encode
from streamkit.records import Batch, Column, EncodedRecords, RowError, TopicPartition
from streamkit.runtime.context import TaskContext
from streamkit.runtime.places import bad_row
from streamkit.serde import frame_serde, value_serde

__all__ = ["SinkOperator", "SinkSpec"]


_AROUND_BYTES: Final = 200
"""More than a record batch adds to a key and a value of which it is all there is, headers aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSpec:
    """What one sink is.

    Args:
        node: Its name, for errors.
        topic: Where to.
        partition_count: Of the topic.
        message_bytes_max: The largest record batch that the topic takes.
        own_partition: Whether all rows are known to belong into the task's own partition.
        flat: Whether a windowed value's columns stand beside the window's, or below `value`.
    """

    node: str
    topic: str
    partition_count: int
    message_bytes_max: int
    own_partition: bool
    flat: bool


class SinkOperator:
    """Writes rows to a topic.

    A windowed result keeps the plain key; its value is an object that begins with `window_start` and `window_end`
    (ms) and goes on with the columns of `agg`, or `value`. A deleted key is written with a null value, a tombstone.
    """

    def __init__(self, spec: SinkSpec, context: TaskContext) -> None:
        """Start with nothing sent."""
        self._spec, self._context = spec, context
        self._own = context.partition if spec.own_partition else None
        self._placement = Placement(spec.partition_count)
        self._object_serde = value_serde(None)

    def receive(self, batch: Batch) -> None:
        """Encode the rows into the outbox."""
        try:
            keys = batch.keys.encoded()
            values: Sequence[bytes | None] = [None] * len(batch) if batch.deleted else self._column(batch).encoded()
        except RowError as error:
            raise bad_row(batch, error, self._spec.node, SerializationError) from error
        self._check_sizes(batch, keys, values)
        stamps = batch.timestamps_ms
        self._context.counters.records_out += len(batch)
        if self._own is not None:
            to = TopicPartition(self._spec.topic, self._own)
            self._context.outputs.add(to, stamps, keys, values, batch.headers)
            return
        partitions = self._placement.place(keys)
        distinct = np.unique(partitions)
        if len(distinct) == 1:
            to = TopicPartition(self._spec.topic, int(distinct[0]))
            self._context.outputs.add(to, stamps, keys, values, batch.headers)
            return
        for partition in distinct.tolist():
            picked = np.flatnonzero(partitions == partition)
            indices = picked.tolist()
            self._context.outputs.add(
                TopicPartition(self._spec.topic, partition),
                stamps[picked],
                [keys[index] for index in indices],
                [values[index] for index in indices],
                None if batch.headers is None else [batch.headers[index] for index in indices],
            )

    def _check_sizes(self, batch: Batch, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """Refuse a row over the topic's limit here, where the record it stems from is known."""
        room_bytes = self._spec.message_bytes_max - _AROUND_BYTES
        if max(map(len, filter(None, values)), default=0) + max(map(len, filter(None, keys)), default=0) <= room_bytes:
            return
        for index, (key, value) in enumerate(zip(keys, values, strict=True)):
            if len(key or b"") + len(value or b"") <= room_bytes:
                continue
            record = EncodedRecords.to_append(timestamps_ms=[0], keys=[key], values=[value])
            try:
                encode(record, batch_bytes_max=self._spec.message_bytes_max)
            except RecordTooLargeError as error:
                reason = (
                    f"the output takes {error.size_bytes} bytes as a record batch, more than the "
                    f"{error.limit_bytes} of {self._spec.topic}'s max.message.bytes"
                )
                raise bad_row(batch, RowError(index, reason, value), self._spec.node, SerializationError) from error

    def _column(self, batch: Batch) -> Column:
        windows = batch.windows
        if windows is None:
            return batch.values
        starts, ends = windows
        if self._spec.flat and batch.values.is_frame:
            frame = batch.values.frame()
            bounds = [pl.Series("window_start", starts), pl.Series("window_end", ends)]
            whole = pl.DataFrame([*bounds, *frame.get_columns()])
            return Column(frame_serde(dict(whole.schema)), frame=whole)
        bounds_of_rows = zip(starts.tolist(), ends.tolist(), batch.values.objects(), strict=True)
        if self._spec.flat:
            objects = [
                {"window_start": start, "window_end": end, **_fields(value)} for start, end, value in bounds_of_rows
            ]
        else:
            objects = [
                {"window_start": start, "window_end": end, "value": value} for start, end, value in bounds_of_rows
            ]
        return Column(self._object_serde, objects=objects)

    def advance(self, watermark_ms: int) -> None:
        """Do nothing: a topic has no watermark."""

    def end(self) -> None:
        """Do nothing: the commit follows."""


def _fields(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {name: getattr(value, name) for name in _names(value)}


def _names(value: object) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(value, "__struct_fields__", ()) or tuple(
        getattr(value, "__dataclass_fields__", ())
    )
    return names
