"""Rows of csv and parquet as records: each a JSON object, so that they are checked as records of a topic are.

A source that declares a scalar type reads the column `value`; one that declares `key=` reads keys from the column
`key`, and its values have no such field unless their type does. Cells of csv are text: where the declared type says
integer, number or boolean, a cell that is one becomes one. An empty cell is null, and `""` is empty text.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
import polars as pl

from streamkit.errors import FileError
from streamkit.files.content import Content, stretch
from streamkit.files.lines import FileRecords, PartPlace
from streamkit.files.plan import Part
from streamkit.records import Lines, RecordColumns
from streamkit.serde import UserSerde, dtype_of
from streamkit.serde.schema import fields_of

__all__ = ["RowPlace", "TableShape", "csv_names", "csv_records", "csv_whole_bytes"]

_KEY, _VALUE = "key", "value"
_QUOTE, _LINE_FEED = ord('"'), ord("\n")
_BOM: Final = b"\xef\xbb\xbf"
_CSV: Final = "a cell with a comma, a quote or a line feed in it stands in quotes, each quote in it doubled"
_BOOLEANS: Final = {"true": True, "false": False}
_LEAVES: Final = (pl.String, pl.Boolean, pl.Date, pl.Datetime, pl.Time, pl.Decimal, pl.Categorical, pl.Enum, pl.Null)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """What a source makes of a table.

    Args:
        cells: The type of each field whose cells are no text; other columns stay as they are.
        scalar: Whether the column `value` is the value; else a row is.
        raw: Whether such a value is its own bytes; else it is JSON.
        keyed: Whether the column `key` is the key.
        key_is_field: Whether the value has it too.
    """

    cells: Mapping[str, pl.DataType]
    scalar: bool
    raw: bool
    keyed: bool
    key_is_field: bool

    @classmethod
    def of(cls, key_type: Any, value_type: Any) -> "TableShape":
        """Return the shape for the types that a source declares."""
        fields = fields_of(value_type) or ()
        dtypes = {field.encoded_name: field.dtype for field in fields}
        dtype = None if isinstance(value_type, UserSerde) and not isinstance(value_type, type) else dtype_of(value_type)
        plain = (pl.Int64(), pl.Float64(), pl.Boolean())
        return cls(
            cells={name: dtype for name, dtype in dtypes.items() if dtype in plain and dtype is not None},
            scalar=value_type is not None and dtype is not None and not isinstance(dtype, pl.Struct),
            raw=value_type in (str, str | None, bytes, bytes | None),
            keyed=key_type is not None,
            key_is_field=_KEY in dtypes or not fields,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlace:
    """Rows `[begin, end)` of a parquet file; see `PlacedRecords`."""

    content: Content
    path: str
    begin: int
    end: int
    size_bytes: int
    place: PartPlace
    shape: TableShape

    def read(self) -> RecordColumns:
        """Read the rows; safe on any thread."""
        try:
            lazy = pl.scan_parquet(self.path, glob=False)
            frame = lazy.slice(self.begin, self.end - self.begin).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise FileError(f"the rows cannot be read: {error}", path=self.path) from error
        self.content.read_at(0, 1)  # the file must still be the one that the run began with
        if frame.height != self.end - self.begin:
            raise FileError(f"the file has no rows {self.begin} to {self.end}", path=self.path)
        offsets = np.arange(frame.height, dtype=np.int64) + self.place.offset
        return _records(frame, offsets, self.place, self.shape, self.path)


def csv_whole_bytes(data: bytes) -> int:
    """Return how many bytes of csv are whole records: a line feed within quotes ends none."""
    ends = _record_ends(np.frombuffer(data, np.uint8))
    return int(ends[-1]) + 1 if len(ends) else 0


def csv_names(content: Content, part: Part, look_bytes: int) -> tuple[list[str], int]:
    """Return the names of the columns, which the first record holds, and where it ends.

    Raises:
        FileError: There are none, or one comes twice.
    """
    data, _ = stretch(content, part.path, 0, look_bytes, csv_whole_bytes)
    ends = _record_ends(np.frombuffer(data, np.uint8))
    end = int(ends[0]) + 1 if len(ends) else len(data)
    try:
        names = pl.read_csv(data[:end].removeprefix(_BOM), has_header=False, infer_schema=False).row(0)
    except pl.exceptions.PolarsError as error:
        raise FileError(f"the first line names no columns: {error}", path=part.path, position=0) from error
    if None in names or len(set(names)) < len(names):
        raise FileError("the first line does not name each column once", path=part.path, position=0)
    return list(names), end


def csv_records(data: bytes, names: Sequence[str], part: Part, place: PartPlace, shape: TableShape) -> RecordColumns:
    """Return the records of a piece of csv; empty lines are none.

    Args:
        data: Whole records.
        names: Of the columns.
        part: Where they lie.
        place: Where the first is.
        shape: What becomes of them.

    Raises:
        FileError: A record has more cells than there are columns, a quote is open or misplaced, or it is no UTF-8.
    """
    octets = np.frombuffer(data, np.uint8)
    ends = _record_ends(octets)
    if len(octets) and (not len(ends) or ends[-1] != len(octets) - 1):
        ends = np.append(ends, len(octets))
    begins = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1] + 1)) if len(ends) else ends
    lengths = ends - begins
    blank = (lengths == 0) | ((lengths == 1) & (octets[np.minimum(begins, len(octets) - 1)] == ord("\r")))
    if blank.any():
        begins, ends = begins[~blank], ends[~blank]
        data = b"\n".join(data[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True))
        shifted = np.cumsum(np.concatenate(([0], ends - begins + 1)))
        at, ends_at = shifted[:-1], shifted[1:] - 1
    else:
        at, ends_at = begins, ends
    if not len(begins):
        return FileRecords(begins, [], place.timestamp_ms)
    frame = _csv_frame(data, names)
    if frame is None or frame.height != len(begins):
        records = [data[begin:end] for begin, end in zip(at.tolist(), ends_at.tolist(), strict=True)]
        index = _first_bad(records, names)
        position = part.begin + place.offset - part.offset + int(begins[index])
        reason = _csv_fault(records[index], len(names))
        raise FileError(
            f"the record is no csv of these columns: {reason}", path=part.path, position=position, hint=_CSV
        )
    return _records(_typed(frame, shape), begins + place.offset, place, shape, part.path, text=frame)


def _record_ends(octets: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the places of the line feeds that stand behind an even number of quotes."""
    ends = np.flatnonzero(octets == _LINE_FEED)
    quotes = np.flatnonzero(octets == _QUOTE)
    return ends[np.searchsorted(quotes, ends) % 2 == 0] if len(quotes) else ends


def _csv_frame(data: bytes, names: Sequence[str]) -> pl.DataFrame | None:
    try:
        return pl.read_csv(data, has_header=False, schema=dict.fromkeys(names, pl.String()))
    except pl.exceptions.PolarsError:
        return None


def _first_bad(records: Sequence[bytes], names: Sequence[str]) -> int:
    """Return the index of the first record that cannot be read, of some of which one cannot."""
    begin, end = 0, len(records)
    while end - begin > 1:
        middle = (begin + end) // 2
        frame = _csv_frame(b"\n".join(records[begin:middle]), names)
        begin, end = (middle, end) if frame is not None and frame.height == middle - begin else (begin, middle)
    return begin


def _csv_fault(record: bytes, column_count: int) -> str:
    """Say what is wrong with a record of csv."""
    try:
        text = record.decode()
    except UnicodeDecodeError as error:
        return f"its byte {error.start} is no UTF-8"
    if record.count(b'"') % 2:
        return "a quote is not closed"
    try:
        cells = next(csv.reader([text], strict=True))
    except csv.Error as error:
        return str(error)
    count = len(cells)
    return f"it has {count} cells, not {column_count}" if count != column_count else "a quote stands where none may"


def _typed(frame: pl.DataFrame, shape: TableShape) -> pl.DataFrame:
    """Return cells as the declared types; null where one is not of the type."""
    made = []
    for name, dtype in shape.cells.items():
        if name in frame.columns:
            column = pl.col(name)
            if isinstance(dtype, pl.Boolean):
                made.append(column.replace_strict(_BOOLEANS, default=None, return_dtype=dtype))
            else:
                made.append(column.cast(dtype, strict=False))
    return frame.with_columns(made)


def _records(  # rows, where they are, and what becomes of them
    frame: pl.DataFrame,
    offsets: np.ndarray[Any, np.dtype[np.int64]],
    place: PartPlace,
    shape: TableShape,
    path: str,
    text: pl.DataFrame | None = None,
) -> RecordColumns:
    """Return rows as records; `text` is what the cells were before they became typed."""
    keys = None
    if shape.keyed and _KEY in frame.columns:
        keys = _encoded(frame.get_column(_KEY))
        if not shape.key_is_field:
            frame = frame.drop(_KEY)
    if shape.scalar:
        if _VALUE not in frame.columns:
            hint = f"the columns are {', '.join(frame.columns)}"
            raise FileError("the source declares a scalar, and the file has no column 'value'", path=path, hint=hint)
        values = _scalars(frame.get_column(_VALUE), text, shape)
        return FileRecords(offsets, values, place.timestamp_ms, keys)
    _check_json(frame, path)
    rows = _json_rows(frame)
    if text is not None:
        _put_back(rows, frame, text, shape)
    return FileRecords(offsets, Lines(b"\n".join(rows), len(rows)), place.timestamp_ms, keys)


def _put_back(rows: list[bytes], frame: pl.DataFrame, text: pl.DataFrame, shape: TableShape) -> None:
    """Show each cell that is not of its type as the text that it is, for the type's own check to refuse it."""
    names = [name for name in shape.cells if name in frame.columns]
    wrong = [(frame.get_column(name).is_null() & text.get_column(name).is_not_null()) for name in names]
    bad = sorted({index for column in wrong for index in column.arg_true().to_list()})
    for index in bad:
        cells = {name: text.item(index, name) for name, column in zip(names, wrong, strict=True) if column[index]}
        rows[index] = orjson.dumps(orjson.loads(rows[index]) | cells)


def _scalars(column: pl.Series, text: pl.DataFrame | None, shape: TableShape) -> list[bytes | None]:
    if shape.raw:
        return _encoded(column)
    if text is not None:
        return _encoded(text.get_column(_VALUE))
    begin = len(b'{"value":')
    rows = _json_rows(column.alias(_VALUE).to_frame())
    return [row[begin:-1] for row in rows]


def _encoded(column: pl.Series) -> list[bytes | None]:
    """Return text as UTF-8, integers in decimal, and bytes as they are."""
    if column.dtype != pl.Binary:
        column = column.cast(pl.String).cast(pl.Binary)
    return column.to_list()


def _json_rows(frame: pl.DataFrame) -> list[bytes]:
    if not frame.width:
        return [b"{}"] * frame.height
    binary = [name for name, dtype in frame.schema.items() if dtype == pl.Binary]
    encoded = frame.with_columns(pl.col(name).bin.encode("base64") for name in binary)
    return encoded.select(pl.struct(pl.all()).struct.json_encode()).to_series().cast(pl.Binary).to_list()


def _check_json(frame: pl.DataFrame, path: str) -> None:
    """Refuse columns that have no form in JSON."""
    for name, dtype in frame.schema.items():
        if dtype != pl.Binary and not _has_json(dtype):
            raise FileError(f"the column {name!r} is {dtype}, which has no form in JSON", path=path)


def _has_json(dtype: Any) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _has_json(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return all(_has_json(field.dtype) for field in _fields(dtype))
    return bool(dtype.is_numeric()) or isinstance(dtype, _LEAVES)


def _fields(dtype: pl.Struct) -> Iterable[pl.Field]:
    return dtype.fields
