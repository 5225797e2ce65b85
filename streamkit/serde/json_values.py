"""JSON of values that are no rows: scalars, lists, dicts, unions (typed), and whatever orjson returns (untyped)."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson
import polars as pl
from msgspec import inspect

from streamkit.records import RowError
from streamkit.serde.columns import UnfitError, column_of
from streamkit.serde.json_frames import json_from_frame
from streamkit.serde.nested import maker_of, taken_apart
from streamkit.serde.orders import holds_sets
from streamkit.serde.ranges import RangeCheck, may_leave_64_bits, range_check
from streamkit.serde.schema import admits_none, dtype_of
from streamkit.serde.serde import Serde, convert_each, type_name

__all__ = ["JsonSerde", "UntypedSerde"]

_SCALARS: Final[dict[Any, frozenset[type]]] = {
    scalar: frozenset(types)
    for kind, types in ((int, {int}), (float, {float, int}), (bool, {bool}))
    for scalar in (kind, kind | None)
}
"""The types an object of a declared scalar may have, None aside: a bool is no number, an int is a float."""

_ROWS_MIN: Final = 50
"""From here on a look at the bytes of rows takes less than one at their values (measured)."""


class JsonSerde(Serde):
    """Values of one declared type as JSON, checked when they are read.

    Args:
        type_: What msgspec can decode.
        what: "key" or "value". Keys are encoded with sorted members, so that equal keys have equal bytes; so are values
            with a set in them, which has no order that could be kept.
    """

    def __init__(self, type_: Any, what: str) -> None:
        """Make decoder and encoder once."""
        super().__init__(what, type_name(type_), dtype=dtype_of(type_), nullable=admits_none(type_))
        self.type = type_
        self._decode = msgspec.json.Decoder(type_).decode
        self._encode = msgspec.json.Encoder(
            order="deterministic" if what == "key" or holds_sets(type_) else None
        ).encode
        self._check: RangeCheck | None = range_check(type_)
        self._allowed = _SCALARS.get(type_)
        self._encode_row = self._encode if what == "value" else self._encode_key
        self._of_class = isinstance(inspect.type_info(type_), inspect.StructType | inspect.DataclassType)
        self._make = maker_of(inspect.type_info(type_)) if self.dtype is not None else None

    def objects_from_frame(self, frame: pl.DataFrame) -> list[Any]:
        """Make each row an object of the type."""
        values = super().objects_from_frame(frame)
        return values if self._make is None else convert_each(self._make, values, self._unencodable(values))

    def rows_from_dicts(self, objects: list[Any]) -> list[Any]:
        """Convert dicts as if they had been read as JSON; a dict that does not fit is a bad row."""
        if not self._of_class or dict not in set(map(type, objects)):
            return objects
        return convert_each(self._row_from_dict, objects, self._unencodable(objects))

    def _row_from_dict(self, value: Any) -> Any:
        return msgspec.convert(value, self.type) if type(value) is dict else value

    def frame_from_objects(self, objects: Sequence[Any]) -> pl.DataFrame:
        """Lay objects out as one column."""
        try:
            self.encoded_from_objects(objects)
        except RowError as error:
            self.frame_from_objects(objects[: error.index])  # a row before it that fits no column comes first
            raise
        if self.dtype is None:
            values = [taken_apart(value) for value in objects]
            return pl.DataFrame([pl.Series(self.what, values, strict=False)])
        try:
            column = column_of(self.what, objects, self.dtype, nullable=self.nullable, trusted=False)
        except UnfitError as error:
            raise self._unfit(error.index, objects[error.index], error.reason) from error
        return pl.DataFrame([column])

    def _decode_present(self, encoded: Sequence[bytes]) -> list[Any]:
        made: list[Any] = []
        error: RowError | None = None
        try:
            made.extend(map(self._decode, encoded))
        except Exception as cause:  # noqa: BLE001  # raised below, unless an earlier row is bad too
            error = self._undecodable(encoded)(len(made), cause)
            error.__cause__ = cause
        self._check_range(made, encoded)
        if error is not None:
            raise error
        return made

    def _check_range(self, rows: Sequence[Any], encoded: Sequence[bytes]) -> None:
        if self._check is None:
            return
        # In a type with a columnar form integers are numbers in JSON, no keys of dicts, and nothing is nested for ever.
        if self.dtype is not None and len(rows) >= _ROWS_MIN and not may_leave_64_bits(encoded):
            return
        found = self._check(rows)
        if found is not None:
            index, reason = found
            raise self._undecodable(encoded)(index, ValueError(reason))

    def _encode_present(self, objects: Sequence[Any]) -> list[bytes | None]:
        if self._allowed is not None and not set(map(type, objects)) <= self._allowed:
            index = next(index for index, value in enumerate(objects) if type(value) not in self._allowed)
            self._encode_present(objects[:index])
            raise self._unfit(index, objects[index], f"got {type(objects[index]).__name__}")
        return self._encode_checked(objects)

    def _encode_checked(self, objects: Sequence[Any]) -> list[bytes | None]:
        found = None if self._check is None else self._check(objects)
        encoded = convert_each(self._encode_row, objects[: found[0]] if found else objects, self._unencodable(objects))
        if found is not None:
            index, reason = found
            raise self._unfit(index, objects[index], reason)
        return encoded

    def _encode_key(self, key: Any) -> bytes:
        """Encode a key as the type reads it: equal keys have equal bytes; NaN and fields of other types fail."""
        return self._encode(self._decode(self._encode(key)))


class UntypedSerde(Serde):
    """JSON without a declared type: what orjson returns when read, whatever msgspec encodes when written.

    A null value (no bytes, or JSON null) is None, and None is written as no bytes. As a frame, rows are JSON objects
    whose column types are found from the rows of the batch: what runs in columns should have a declared type.
    """

    def __init__(self, what: str) -> None:
        """Encode values."""
        super().__init__(what, "JSON", dtype=None, nullable=True)
        self._encode = msgspec.json.Encoder().encode

    def frame_from_objects(self, objects: Sequence[Any]) -> pl.DataFrame:
        """Lay dicts out as columns, in the order in which names first appear; any other object is a bad row."""
        rows = convert_each(_as_dict, objects, self._unencodable(objects))
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = []
        for name in names:
            values = [row.get(name) for row in rows]
            try:
                columns.append(pl.Series(name, values, strict=True))
            except (TypeError, OverflowError, pl.exceptions.PolarsError) as cause:
                index = _first_unlike(values)
                raise self._unfit(index, objects[index], f"the column {name!r} mixes types: {cause}") from cause
        return pl.DataFrame(columns)

    def objects_from_frame(self, frame: pl.DataFrame) -> list[Any]:
        """Make each row a dict."""
        return dicts_from_frame(frame)

    def encoded_from_frame(self, frame: pl.DataFrame) -> list[bytes | None]:
        """Encode each row as an object."""
        return list(json_from_frame(frame))

    def _decode_present(self, encoded: Sequence[bytes]) -> list[Any]:
        return convert_each(orjson.loads, encoded, self._undecodable(encoded))

    def _encode_present(self, objects: Sequence[Any]) -> list[bytes | None]:
        return convert_each(self._encode, objects, self._unencodable(objects))


def dicts_from_frame(frame: pl.DataFrame) -> list[Any]:
    """Return each row of a frame as a dict."""
    names = frame.columns
    if not names:
        return [{} for _ in range(frame.height)]
    rows = zip(*(column.to_list() for column in frame.get_columns()), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _as_dict(value: Any) -> dict[str, Any]:
    made = taken_apart(value)
    if not isinstance(made, dict):
        raise TypeError(f"columns need JSON objects, got {type(value).__name__}")
    return made


def _first_unlike(values: Sequence[Any]) -> int:
    """Return the first row whose value is of another type than the first one's."""
    kind = next(type(value) for value in values if value is not None)
    return next((index for index, value in enumerate(values) if value is not None and type(value) is not kind), 0)
