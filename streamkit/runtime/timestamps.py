"""What the records of a source have as event times."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.errors import TimestampError
from streamkit.graph import Source
from streamkit.records import Batch, RecordColumns
from streamkit.runtime.aside import PickedRecords
from streamkit.runtime.operators.stateless import apply_each, frame_of, objects_of

__all__ = ["Timestamps"]

_TIMESTAMP_BOUND_MS: Final = 2**60


class Timestamps:
    """Reads them, from columns or from objects.

    Args:
        source: The node, which says where they are.
        columnar: Whether its readers want a frame, so that timestamps come from one too.
    """

    def __init__(self, source: Source, *, columnar: bool) -> None:
        """Keep both."""
        self._source, self._columnar = source, columnar

    def of(self, batch: Batch, records: RecordColumns | PickedRecords) -> npt.NDArray[np.int64]:
        """Return the event time of each record.

        Raises:
            RecordError: A record has none, or cannot be decoded.
        """
        field, node = self._source.event_time.field, self._source.name
        if field is None:
            self.decode(batch)
            return self._checked(batch, records.timestamps_ms)
        if isinstance(field, str) and self._columnar:
            column = frame_of(batch, node).get_column(field)
            if column.dtype == pl.Int64 and not column.null_count():
                return self._checked(batch, column.to_numpy())
            return self._checked(batch, self._from_objects(batch, column.to_list()))
        if isinstance(field, str):
            values = objects_of(batch, node)
            return self._checked(batch, self._from_objects(batch, [_field(value, field) for value in values]))
        return self._checked(batch, self._from_objects(batch, apply_each(field, batch, node)))

    def decode(self, batch: Batch) -> None:
        """Decode now, so that a bad record is found here, at its source, whatever reads it."""
        if self._columnar:
            frame_of(batch, self._source.name)
        else:
            objects_of(batch, self._source.name)

    def _from_objects(self, batch: Batch, stamps: Sequence[Any]) -> npt.NDArray[np.int64]:
        if all(type(stamp) is int for stamp in stamps):
            try:
                return np.array(stamps, dtype=np.int64)
            except OverflowError:
                index = next(index for index, stamp in enumerate(stamps) if abs(stamp) >= _TIMESTAMP_BOUND_MS)
                raise self._bad_timestamp(batch, index, stamps[index]) from None
        made = []
        for index, stamp in enumerate(stamps):
            if type(stamp) is int and abs(stamp) < _TIMESTAMP_BOUND_MS:
                made.append(stamp)
            elif isinstance(stamp, datetime) and stamp.tzinfo is not None:
                made.append(round(stamp.timestamp() * 1000))
            else:
                raise self._bad_timestamp(batch, index, stamp)
        return np.array(made, dtype=np.int64)

    def _checked(self, batch: Batch, stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        wrong = np.flatnonzero((stamps >= _TIMESTAMP_BOUND_MS) | (stamps <= -_TIMESTAMP_BOUND_MS))
        if len(wrong):
            raise self._bad_timestamp(batch, int(wrong[0]), int(stamps[wrong[0]]))
        return stamps

    def _bad_timestamp(self, batch: Batch, index: int, stamp: Any) -> TimestampError:
        data = batch.values.encoded()[index]
        return TimestampError(
            f"the timestamp {stamp!r} is no number of milliseconds and no aware datetime",
            topic=batch.origin.source.topic,
            partition=batch.origin.source.partition,
            offset=int(batch.offsets[index]),
            node=self._source.name,
            data=data,
            hint="timestamp= takes ms since the Unix epoch as an integer, or a datetime with a time zone",
        )


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)
