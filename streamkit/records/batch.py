"""A `Batch`: the rows of one partition between two offsets, as columns that convert lazily.

A column holds its data in the form it was given (encoded bytes, Python objects, or a Polars frame) and converts
to another form once, by the decoder it was handed; it knows neither serde nor log.

Not here: serdes (`serde`), operators (`runtime`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.records.encoded import Header
from streamkit.records.record import TopicPartition

__all__ = ["Batch", "Column", "Decoder", "RowError"]


class RowError(Exception):
    """Raised by a decoder for the first bad row; carries its index and the cause.

    The caller, who knows the batch, translates it into a `RecordError` with topic, partition and offset.
    """

    def __init__(self, index: int, reason: str, data: bytes | None = None) -> None:
        """Keep the row's index in the column that was being converted."""
        super().__init__(reason)
        self.index, self.reason, self.data = index, reason, data


class Decoder(Protocol):
    """Converts a whole column between its three forms. Each raises `RowError` for the first bad row."""

    def objects_from_encoded(self, encoded: Sequence[bytes | None]) -> list[Any]:
        """Decode each row into a Python object."""
        ...

    def frame_from_encoded(self, encoded: Sequence[bytes | None]) -> pl.DataFrame:
        """Decode all rows into a frame with one column a field."""
        ...

    def frame_from_objects(self, objects: Sequence[Any]) -> pl.DataFrame:
        """Lay objects out as a frame."""
        ...

    def objects_from_frame(self, frame: pl.DataFrame) -> list[Any]:
        """Make each row of a frame an object of the declared type (a dict without one)."""
        ...

    def encoded_from_objects(self, objects: Sequence[Any]) -> list[bytes | None]:
        """Encode each object."""
        ...

    def encoded_from_frame(self, frame: pl.DataFrame) -> list[bytes | None]:
        """Encode each row of a frame."""
        ...


class Column:
    """One column of rows in up to three forms; the missing ones are made on first use and kept."""

    __slots__ = ("_encoded", "_frame", "_objects", "decoder")

    def __init__(
        self,
        decoder: Decoder,
        *,
        encoded: Sequence[bytes | None] | None = None,
        objects: list[Any] | None = None,
        frame: pl.DataFrame | None = None,
    ) -> None:
        """Hold at least one form."""
        assert encoded is not None or objects is not None or frame is not None, "a column without data"
        self.decoder = decoder
        self._encoded, self._objects, self._frame = encoded, objects, frame

    def __len__(self) -> int:
        """Return how many rows there are."""
        if self._objects is not None:
            return len(self._objects)
        if self._frame is not None:
            return self._frame.height
        assert self._encoded is not None
        return len(self._encoded)

    @property
    def is_frame(self) -> bool:
        """Whether the rows are in a frame already."""
        return self._frame is not None

    def encoded(self) -> Sequence[bytes | None]:
        """Return the rows as bytes."""
        if self._encoded is None:
            if self._frame is not None:
                self._encoded = self.decoder.encoded_from_frame(self._frame)
            else:
                assert self._objects is not None
                self._encoded = self.decoder.encoded_from_objects(self._objects)
        return self._encoded

    def objects(self) -> list[Any]:
        """Return the rows as Python objects."""
        if self._objects is None:
            if self._frame is not None:
                self._objects = self.decoder.objects_from_frame(self._frame)
            else:
                assert self._encoded is not None
                self._objects = self.decoder.objects_from_encoded(self._encoded)
        return self._objects

    def frame(self) -> pl.DataFrame:
        """Return the rows as a frame."""
        if self._frame is None:
            if self._objects is not None:
                self._frame = self.decoder.frame_from_objects(self._objects)
            else:
                assert self._encoded is not None
                self._frame = self.decoder.frame_from_encoded(self._encoded)
        return self._frame

    def take(self, indices: npt.NDArray[np.int64]) -> "Column":
        """Return the rows at `indices`, in that order, in the cheapest form there is."""
        if self._frame is not None:
            return Column(self.decoder, frame=self._frame[indices])
        picked = indices.tolist()
        if self._objects is not None:
            objects = self._objects
            return Column(self.decoder, objects=[objects[index] for index in picked])
        assert self._encoded is not None
        encoded = self._encoded
        return Column(self.decoder, encoded=[encoded[index] for index in picked])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of one source partition, in offset order.

    `watermarks_ms[i]` is the source partition's watermark just before row `i`: lateness is judged with it, so it
    travels with the row. Several rows may share an offset (after `flat_map`). All columns have one length.
    """

    source: TopicPartition
    offsets: npt.NDArray[np.int64]
    timestamps_ms: npt.NDArray[np.int64]
    watermarks_ms: npt.NDArray[np.int64]
    keys: Column
    values: Column
    headers: Sequence[Sequence[Header]] | None = None

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.offsets)

    def take(self, indices: npt.NDArray[np.int64]) -> "Batch":
        """Return the rows at `indices` (they may repeat), in that order."""
        return self._at(indices, self.keys.take(indices), self.values.take(indices))

    def with_values(self, values: Column) -> "Batch":
        """Return the same rows with other values."""
        return replace(self, values=values)

    def with_keys(self, keys: Column) -> "Batch":
        """Return the same rows with other keys."""
        return replace(self, keys=keys)

    def spread(self, indices: npt.NDArray[np.int64], values: Column) -> "Batch":
        """Return rows that stem from the rows at `indices`, with new values."""
        return self._at(indices, self.keys.take(indices), values)

    def _at(self, indices: npt.NDArray[np.int64], keys: Column, values: Column) -> "Batch":
        headers = self.headers
        return Batch(
            source=self.source,
            offsets=self.offsets[indices],
            timestamps_ms=self.timestamps_ms[indices],
            watermarks_ms=self.watermarks_ms[indices],
            keys=keys,
            values=values,
            headers=None if headers is None else [headers[index] for index in indices.tolist()],
        )
