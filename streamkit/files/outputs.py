"""A sink's topic becomes a file: written whole beside its place, then renamed into it.

A topic is read a piece at a time, so that a file may be larger than memory. Only the sink of a table is read a whole
partition at a time, since the last record of each key counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from streamkit.broker import EARLIEST, LAST_STABLE, Broker
from streamkit.errors import FileError
from streamkit.files.bindings import Format, format_of
from streamkit.files.rows import SinkRows, columns_of, csv_cells, flat_frame, inferred, json_lines
from streamkit.files.shapes import WINDOW_BOUNDS, SinkShape
from streamkit.log import decode
from streamkit.records import RecordColumns, TopicPartition
from streamkit.seams.user_files import NewFile

__all__ = ["SinkTopic", "write_output"]

_FETCH_BYTES: Final = 4 * 1024 * 1024
_WAIT_MS: Final = 1_000.0
_FEW_ROWS: Final = 122_880
"""Rows of a row group of parquet, at least: a small one makes its reader slow."""


def _as_they_are(records: RecordColumns) -> SinkRows:
    return SinkRows(keys=records.keys, values=list(records.values), timestamps_ms=records.timestamps_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkTopic:
    """A sink as its topic has it; `rows_of` makes rows of some of its records."""

    broker: Broker
    topic: str
    shape: SinkShape
    rows_of: Callable[[RecordColumns], SinkRows] = _as_they_are

    def rows(self) -> Iterator[SinkRows]:
        """Yield what the topic holds: all records, or for a table the last one of each key that is not deleted."""
        count = self.broker.admin.describe_topics()[self.topic].partition_count
        for partition in range(count):
            batches = self._records(TopicPartition(self.topic, partition))
            if self.shape.latest:
                yield from _latest(batches, windowed=self.shape.nested or _has_bounds(self.shape))
            else:
                yield from batches

    def _records(self, place: TopicPartition) -> Iterator[SinkRows]:
        admin = self.broker.admin
        position, end = (admin.list_offsets({place: spec})[place] for spec in (EARLIEST, LAST_STABLE))
        fetcher = self.broker.fetcher("read_committed")
        try:
            while position < end:
                for part in fetcher.fetch({place: position}, wait_ms=_WAIT_MS, bytes_max=_FETCH_BYTES):
                    records = decode(part.record_batches, from_offset=position).below(end)
                    position = part.next_offset
                    if len(records):
                        yield self.rows_of(records)
        finally:
            fetcher.close()


def write_output(sink: SinkTopic, path: str, temporary: str) -> None:
    """Write what a sink's topic holds to `temporary`, durably, in the format that the name `path` says.

    Raises:
        FileError: A value fits no column, or the file cannot be written. What is there of it is to be thrown away.
    """
    form, _ = format_of(path)
    try:
        if form is Format.JSON_LINES:
            _write(temporary, (json_lines(rows, sink.shape) for rows in sink.rows()))
        else:
            _write_flat(sink, form, temporary)
    except OSError as error:
        raise FileError(f"the output cannot be written: {error.strerror or error}", path=path) from error
    except pl.exceptions.PolarsError as error:
        raise FileError(f"the output cannot be written: {error}", path=path) from error


def _write_flat(sink: SinkTopic, form: Format, temporary: str) -> None:
    shape = sink.shape
    dtype = shape.dtype
    if dtype is None and shape.form == "json":
        dtype = inferred(sink.rows())
    columns = columns_of(sink.topic, shape, dtype)
    frames = (flat_frame(rows, shape, dtype, columns) for rows in sink.rows())
    empty = pl.DataFrame(schema=columns)
    if form is Format.CSV:
        # The names of the columns first, for there may be no rows.
        texts = (csv_cells(frame).write_csv(include_header=False).encode() for frame in frames)
        _write(temporary, _after(csv_cells(empty).write_csv().encode(), texts))
    else:
        _sink_parquet(_whole_groups(frames), empty, temporary)


def _after(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


def _write(path: str, pieces: Iterator[bytes]) -> None:
    file = NewFile(path)
    try:
        for piece in pieces:
            file.write(piece)
    finally:
        file.close()


def _sink_parquet(frames: Iterator[pl.DataFrame], empty: pl.DataFrame, path: str) -> None:
    """Write frames one after another, without holding all of them."""

    def source(
        with_columns: list[str] | None, predicate: Any, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del with_columns, predicate, n_rows, batch_size  # nothing is asked of a source that is only written
        yield from frames

    made: Callable[..., pl.LazyFrame] = register_io_source
    made(source, schema=empty.schema).sink_parquet(path, maintain_order=True)


def _whole_groups(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Put small frames together."""
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(one.height for one in waiting) >= _FEW_ROWS:
            yield pl.concat(waiting)
            waiting = []
    if waiting:
        yield pl.concat(waiting)


def _has_bounds(shape: SinkShape) -> bool:
    return isinstance(shape.dtype, pl.Struct) and shape.dtype.fields[0].name == WINDOW_BOUNDS[0]


def _latest(batches: Iterator[SinkRows], *, windowed: bool) -> Iterator[SinkRows]:
    """Yield the last record of each key, or key and window, of a partition, in the order of the keys."""
    last: dict[Any, tuple[bytes | None, bytes | None, int]] = {}
    for rows in batches:
        records = zip(rows.keys, rows.values, rows.timestamps_ms.tolist(), strict=True)
        if windowed:
            last.update(((key, _bounds(value)), (key, value, stamp)) for key, value, stamp in records)
        else:
            last.update((key, (key, value, stamp)) for key, value, stamp in records)
    kept = sorted((record for record in last.values() if record[1] is not None), key=lambda record: record[0] or b"")
    for begin in range(0, len(kept), _FEW_ROWS):
        keys, values, stamps = zip(*kept[begin : begin + _FEW_ROWS], strict=True)
        yield SinkRows(keys=keys, values=values, timestamps_ms=np.array(stamps, dtype=np.int64))


def _bounds(value: bytes | None) -> bytes:
    """Return the window's bounds, with which the object begins; a value is never deleted for one window alone."""
    return b",".join((value or b"").split(b",", 2)[:2])
