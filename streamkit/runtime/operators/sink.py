"""The end of a graph: rows become encoded records in the outbox, placed by Kafka's partitioner."""

import numpy as np
import polars as pl

from streamkit.broker.partitioner import Placement
from streamkit.errors import SerializationError
from streamkit.records import Batch, Column, RowError, TopicPartition
from streamkit.runtime.context import TaskContext
from streamkit.runtime.places import bad_row
from streamkit.serde import frame_serde, value_serde

__all__ = ["SinkOperator"]


class SinkOperator:
    """Writes rows to a topic.

    A windowed result keeps the plain key; its value is an object that begins with `window_start` and `window_end`
    (ms) and goes on with the columns of `agg`, or `value`.

    Args:
        node: Name of the sink, for errors.
        topic: Where to.
        partition_count: Of the topic.
        own_partition: The partition of all rows, where it is known to be this task's own.
        flat: Whether a windowed value's columns stand beside the window's, or below `value`.
        context: Of the task.
    """

    def __init__(
        self,
        node: str,
        topic: str,
        partition_count: int,
        context: TaskContext,
        *,
        own_partition: bool,
        flat: bool,
    ) -> None:
        """Start with nothing sent."""
        self._node, self._topic, self._context = node, topic, context
        self._own = context.partition if own_partition else None
        self._flat = flat
        self._placement = Placement(partition_count)
        self._object_serde = value_serde(None)

    def receive(self, batch: Batch) -> None:
        """Encode the rows into the outbox."""
        try:
            keys = batch.keys.encoded()
            values = self._column(batch).encoded()
        except RowError as error:
            raise bad_row(batch, error, self._node, SerializationError) from error
        stamps = batch.timestamps_ms
        self._context.counters.records_out += len(batch)
        if self._own is not None:
            to = TopicPartition(self._topic, self._own)
            self._context.outputs.add(to, stamps, keys, values, batch.headers)
            return
        partitions = self._placement.place(keys)
        distinct = np.unique(partitions)
        if len(distinct) == 1:
            to = TopicPartition(self._topic, int(distinct[0]))
            self._context.outputs.add(to, stamps, keys, values, batch.headers)
            return
        for partition in distinct.tolist():
            picked = np.flatnonzero(partitions == partition)
            indices = picked.tolist()
            self._context.outputs.add(
                TopicPartition(self._topic, partition),
                stamps[picked],
                [keys[index] for index in indices],
                [values[index] for index in indices],
                None if batch.headers is None else [batch.headers[index] for index in indices],
            )

    def _column(self, batch: Batch) -> Column:
        windows = batch.windows
        if windows is None:
            return batch.values
        starts, ends = windows
        if self._flat and batch.values.is_frame:
            frame = batch.values.frame()
            bounds = [pl.Series("window_start", starts), pl.Series("window_end", ends)]
            whole = pl.DataFrame([*bounds, *frame.get_columns()])
            return Column(frame_serde(dict(whole.schema)), frame=whole)
        bounds_of_rows = zip(starts.tolist(), ends.tolist(), batch.values.objects(), strict=True)
        if self._flat:
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
