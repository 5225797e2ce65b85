"""Records of a sink as rows of a file: lines of JSON, or flat columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.errors import FileError
from streamkit.files.shapes import BESIDE, SinkShape, check_columns, flattened

__all__ = ["SinkRows", "columns_of", "csv_cells", "flat_frame", "inferred", "json_lines"]

_VALUE: Final = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkRows:
    """Encoded records of a sink topic, as columns of one length."""

    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps_ms: npt.NDArray[np.int64]


def json_lines(rows: SinkRows, shape: SinkShape) -> bytes:
    """Return each record as a JSON object on a line: `key`, `timestamp_ms`, and `value` as its JSON stands."""
    beside = pl.DataFrame([_keys(rows, shape), pl.Series("timestamp_ms", rows.timestamps_ms)])
    if shape.form == "json":
        values = _text(_VALUE, rows.values).fill_null("null")
        objects = pl.struct(pl.all()).struct.json_encode().str.head(-1)
        lines = beside.select(pl.concat_str(objects, pl.lit(',"value":'), values, pl.lit("}"))).to_series()
    else:
        lines = (
            beside.with_columns(_text(_VALUE, rows.values)).select(pl.struct(pl.all()).struct.json_encode()).to_series()
        )
    return "\n".join(lines.to_list()).encode() + b"\n" if len(lines) else b""


def columns_of(topic: str, shape: SinkShape, dtype: pl.DataType | None) -> dict[str, pl.DataType]:
    """Return the columns of a file with flat rows.

    Args:
        topic: Of the sink.
        shape: Of the sink.
        dtype: Of the JSON of a value, as declared or found; None if there is no value.

    Raises:
        ConfigError: A value has a field that is called like a column beside it.
    """
    form: Mapping[str, pl.DataType] = {"text": pl.String(), "bytes": pl.String()}
    value = dtype if shape.form == "json" else form[shape.form]
    values = {} if value is None else flattened(value, nested=shape.nested)
    check_columns(topic, values)
    made = dict(BESIDE) | values
    return made | ({"key": pl.Int64()} if shape.integer_key else {})


def flat_frame(
    rows: SinkRows, shape: SinkShape, dtype: pl.DataType | None, columns: Mapping[str, pl.DataType]
) -> pl.DataFrame:
    """Return records as flat columns: the fields of an object, or `value`, beside the others.

    Raises:
        FileError: A value is not of the type.
    """
    beside = [_keys(rows, shape), pl.Series("timestamp_ms", rows.timestamps_ms)]
    if shape.form != "json":
        return pl.DataFrame([*beside, _text(_VALUE, rows.values)]).cast(dict(columns))  # type: ignore[arg-type]  # instances
    if dtype is None:
        return pl.DataFrame(beside)
    frame = _parsed(rows.values, dtype)
    if isinstance(dtype, pl.Struct):
        frame = frame.unnest(_VALUE)
        if shape.nested and isinstance(frame.schema.get(_VALUE), pl.Struct):
            frame = frame.unnest(_VALUE)
    return pl.DataFrame([*beside, *frame.get_columns()]).select(list(columns)).cast(dict(columns))  # type: ignore[arg-type]  # as above


def inferred(batches: Iterable[SinkRows]) -> pl.DataType | None:
    """Return a type that all values have, found from them; None if there are none.

    Raises:
        FileError: There is no such type.
    """
    schema: pl.DataFrame | None = None
    for rows in batches:
        if len(rows.values):
            found = _parsed(rows.values, None).clear()
            try:
                schema = found if schema is None else pl.concat([schema, found], how="diagonal_relaxed")
            except pl.exceptions.PolarsError as error:
                raise FileError(f"the values mix types, and columns have one: {error}", hint="write .jsonl") from error
    return None if schema is None else schema.schema[_VALUE]


def csv_cells(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame whose lists and objects are JSON text, since a cell of csv holds neither."""
    made = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if isinstance(dtype, pl.List | pl.Struct):
            whole = pl.struct(column.alias("c")).struct.json_encode()
            column = pl.when(column.is_not_null()).then(whole.str.slice(len('{"c":')).str.head(-1)).alias(name)
        made.append(column)
    return frame.select(made)


def _parsed(values: Sequence[bytes | None], dtype: pl.DataType | None) -> pl.DataFrame:
    """Return the JSON of values as one column."""
    if isinstance(dtype, pl.Struct) and None not in values:
        # Objects as they stand: half the cost of the same in one column.
        text, whole = b"\n".join(values), {field.name: field.dtype for field in dtype.fields}  # type: ignore[arg-type]  # no None in it
        try:
            return pl.read_ndjson(text, schema=whole).select(pl.struct(pl.all()).alias(_VALUE))
        except pl.exceptions.PolarsError:
            pass  # what is wrong is said below
    text = b"\n".join([b'{"value":%b}' % (b"null" if value is None else value) for value in values])
    try:
        schema = None if dtype is None else {_VALUE: dtype}
        frame = pl.read_ndjson(text, schema=schema, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise FileError(f"the values fit no columns: {error}", hint="write .jsonl, which takes any value") from error
    return frame if frame.width else pl.DataFrame({_VALUE: [None] * len(values)})


def _keys(rows: SinkRows, shape: SinkShape) -> pl.Series:
    keys = _text("key", rows.keys)
    return keys.cast(pl.Int64) if shape.integer_key else keys


def _text(name: str, encoded: Sequence[bytes | None]) -> pl.Series:
    """Return bytes as text; what is no UTF-8 is shown with backslashes, as the command line does."""
    try:
        return pl.Series(name, encoded, dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.ComputeError:
        shown = [None if data is None else data.decode("utf-8", "backslashreplace") for data in encoded]
        return pl.Series(name, shown, dtype=pl.String)
