"""A `Batch`: the rows of one partition between two offsets, as columns that convert lazily.

A column holds its data in the form it was given (encoded bytes, Python objects, or a Polars frame) and converts
to another form once, by the decoder it was handed; it knows neither serde nor log.

Not here: serdes (`serde`), operators (`runtime`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.records.encoded import Header
from streamkit.records.record import NEVER_MS, TopicPartition

__all__ = ["Batch", "Column", "Decoder", "Later", "Origin", "RowError"]


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


@dataclass(frozen=True, slots=True)
class Later:
    """Encoded rows that are read only if somebody asks for them."""

    row_count: int
    read: Callable[[], Sequence[bytes | None]]


class Column:
    """One column of rows in up to three forms; the missing ones are made on first use and kept.

    `take` is lazy: rows are picked only when somebody asks for them, so a column that is replaced costs nothing.
    """

    __slots__ = ("_encoded", "_frame", "_indices", "_later", "_objects", "_parent", "decoder")

    def __init__(
        self,
        decoder: Decoder,
        *,
        encoded: Sequence[bytes | None] | None = None,
        objects: list[Any] | None = None,
        frame: pl.DataFrame | None = None,
        later: Later | None = None,
    ) -> None:
        """Hold the forms that are given; at least one, but for a column made by `take`."""
        self.decoder = decoder
        self._encoded, self._objects, self._frame, self._later = encoded, objects, frame, later
        self._parent: Column | None = None
        self._indices: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return how many rows there are."""
        if self._indices is not None:
            return len(self._indices)
        if self._objects is not None:
            return len(self._objects)
        if self._frame is not None:
            return self._frame.height
        if self._later is not None:
            return self._later.row_count
        return len(self._given())

    @property
    def is_frame(self) -> bool:
        """Whether the rows are in a frame already (objects or bytes would be made from it)."""
        return self._frame is not None or (self._parent is not None and self._parent.is_frame)

    @property
    def has_bytes(self) -> bool:
        """Whether the rows are there as bytes already."""
        return self._encoded is not None or self._later is not None

    def _given(self) -> Sequence[bytes | None]:
        """Return the bytes that the column was made of."""
        if self._encoded is None and self._later is not None:
            self._encoded = self._later.read()
        assert self._encoded is not None, "a column without data"
        return self._encoded

    def encoded(self) -> Sequence[bytes | None]:
        """Return the rows as bytes."""
        if self._encoded is None and self._later is None:
            # Of a whole column bytes come before a frame, and that before objects: of picked rows, too, or what is
            # written would depend on where a batch was cut.
            parent = self._parent
            if parent is not None and (parent.has_bytes or (self._objects is None and self._frame is None)):
                rows = parent.encoded()
                self._encoded = [rows[index] for index in self._picked()]
            elif self.is_frame:
                self._encoded = self.decoder.encoded_from_frame(self.frame())
            else:
                self._encoded = self.decoder.encoded_from_objects(self.objects())
        return self._given()

    def objects(self) -> list[Any]:
        """Return the rows as Python objects."""
        if self._objects is None:
            if self._parent is not None and self._frame is None:
                parent = self._parent.objects()
                self._objects = [parent[index] for index in self._picked()]
            elif self._frame is not None:
                self._objects = self.decoder.objects_from_frame(self._frame)
            else:
                self._objects = self.decoder.objects_from_encoded(self._given())
        return self._objects

    def frame(self) -> pl.DataFrame:
        """Return the rows as a frame."""
        if self._frame is None:
            if self._parent is not None and (self._objects is None or self._parent.is_frame):
                self._frame = self._parent.frame()[self._picked_indices()]
            elif self._objects is not None:
                self._frame = self.decoder.frame_from_objects(self._objects)
            else:
                self._frame = self.decoder.frame_from_encoded(self._given())
        return self._frame

    def take(self, indices: npt.NDArray[np.int64]) -> "Column":
        """Return the rows at `indices` (they may repeat), in that order."""
        taken = Column(self.decoder)
        if self._parent is not None and self._indices is not None:
            taken._parent, taken._indices = self._parent, self._indices[indices]
        else:
            taken._parent, taken._indices = self, indices
        return taken

    def _picked_indices(self) -> npt.NDArray[np.int64]:
        assert self._indices is not None, "a column without data"
        return self._indices

    def _picked(self) -> list[int]:
        picked: list[int] = self._picked_indices().tolist()
        return picked


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the rows of a batch stem from: the records of one partition, or the results of one node.

    `watermarks_ms[i]` is the source's watermark just before record `i`: lateness is judged with it, so it travels
    with the row. `published_ms` is how far windows were published by an earlier bounded run. `windows` holds start
    and end (ms) of each row that is a windowed result. `headers` reads the headers of the records.
    `stream_times_ms[i]` is the source's largest timestamp up to and including record `i`, which with source and offset
    is its place among the rows of several inputs; None: the timestamp itself. `row_numbers` are what `rows_in_record`
    said of rows that came through a shuffle.
    """

    source: TopicPartition
    offsets: npt.NDArray[np.int64]
    timestamps_ms: npt.NDArray[np.int64]
    watermarks_ms: npt.NDArray[np.int64]
    published_ms: int = NEVER_MS
    windows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None
    stream_times_ms: npt.NDArray[np.int64] | None = None
    row_numbers: npt.NDArray[np.int64] | None = None
    headers: Callable[[], Sequence[Sequence[Header]] | None] = lambda: None


class Batch:
    """Rows in order, each with a key, a value and the record of `origin` that it stems from.

    Rows are never copied when some are dropped or spread: `rows` holds, for each row, its index in `origin`
    (None: all of them, one to one), and what nobody reads is never gathered. The rows of a table may be `deleted`:
    their keys have no value any more.
    """

    __slots__ = ("deleted", "keys", "origin", "rows", "values")

    def __init__(self, origin: Origin, keys: Column, values: Column, rows: npt.NDArray[np.int64] | None = None) -> None:
        """Hold columns of one length."""
        self.origin, self.keys, self.values, self.rows = origin, keys, values, rows
        self.deleted = False

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.origin.offsets) if self.rows is None else len(self.rows)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Offset of each row's record."""
        return self._gathered(self.origin.offsets)

    @property
    def timestamps_ms(self) -> npt.NDArray[np.int64]:
        """Event time of each row."""
        return self._gathered(self.origin.timestamps_ms)

    @property
    def watermarks_ms(self) -> npt.NDArray[np.int64]:
        """The source's watermark just before each row."""
        return self._gathered(self.origin.watermarks_ms)

    @property
    def stream_times_ms(self) -> npt.NDArray[np.int64]:
        """The source's largest timestamp up to and including each row's record."""
        times_ms = self.origin.stream_times_ms
        return self.timestamps_ms if times_ms is None else self._gathered(times_ms)

    @property
    def windows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """Start and end of each row's window, for results."""
        if self.origin.windows is None:
            return None
        starts, ends = self.origin.windows
        return self._gathered(starts), self._gathered(ends)

    @property
    def headers(self) -> Sequence[Sequence[Header]] | None:
        """Headers of each row's record; None when no record has any."""
        headers = self.origin.headers()
        if headers is None or self.rows is None:
            return headers
        return [headers[index] for index in self.rows.tolist()]

    def as_deleted(self) -> "Batch":
        """Return the same rows as keys that have no value any more."""
        made = Batch(self.origin, self.keys, self.values, self.rows)
        made.deleted = True
        return made

    def take(self, indices: npt.NDArray[np.int64]) -> "Batch":
        """Return the rows at `indices` (they may repeat), in that order."""
        return self.spread(indices, self.values.take(indices))

    def spread(self, indices: npt.NDArray[np.int64], values: Column) -> "Batch":
        """Return rows that stem from the rows at `indices`, with new values."""
        rows = indices if self.rows is None else self.rows[indices]
        return Batch(self.origin, self.keys.take(indices), values, rows)

    def with_values(self, values: Column) -> "Batch":
        """Return the same rows with other values."""
        return Batch(self.origin, self.keys, values, self.rows)

    def with_keys(self, keys: Column) -> "Batch":
        """Return the same rows with other keys."""
        return Batch(self.origin, keys, self.values, self.rows)

    def _gathered(self, column: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return column if self.rows is None else column[self.rows]
