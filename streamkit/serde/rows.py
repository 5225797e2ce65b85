"""Rows: structs, dataclasses and typed dicts, as JSON objects and as frames of one column a field."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from operator import attrgetter, itemgetter
from typing import Any

import polars as pl
from msgspec import inspect

from streamkit.records import RowError
from streamkit.serde.columns import UnfitError, column_of, strict_decoder
from streamkit.serde.json_frames import json_from_frame
from streamkit.serde.json_values import JsonSerde, dicts_from_frame
from streamkit.serde.lines import ROWS_MIN, LinesDecoder
from streamkit.serde.nested import maker_of
from streamkit.serde.ranges import INT_MAX
from streamkit.serde.schema import fields_of
from streamkit.serde.serde import convert_each

__all__ = ["RowsSerde"]


class RowsSerde(JsonSerde):
    """Values of a row type; whatever the form, every field is checked the same way.

    Args:
        type_: A struct, dataclass or typed dict that has a columnar form.
        schema: Its columns.
        columns: What frames made from bytes hold; None is every field.
    """

    def __init__(self, type_: Any, schema: Mapping[str, pl.DataType], *, columns: frozenset[str] | None = None) -> None:
        """Find out how rows are laid out."""
        super().__init__(type_, "value")
        self._schema = dict(schema)
        self._wanted = [name for name in self._schema if columns is None or name in columns]
        self._fields = {field.name: field for field in fields_of(type_) or ()}
        info = inspect.type_info(type_)
        self._dicts = isinstance(info, inspect.TypedDictType)
        self._class: type = dict if self._dicts else info.cls  # type: ignore[attr-defined]  # a row type's info has one
        self._getter: Callable[[str], Callable[[Any], Any]] = itemgetter if self._dicts else attrgetter
        self._strict = strict_decoder(type_)
        self._lines = LinesDecoder.of(type_)
        self._plain = _plain(info)
        self._makers = [
            (name, make) for name, field in self._fields.items() if (make := maker_of(field.info)) is not None
        ]
        self._positional = not self._dicts and not self._makers and _takes_positions(self.type)

    def narrowed(self, columns: Iterable[str]) -> "RowsSerde":
        """Return a serde whose frames made from bytes hold only `columns` (at least one field, for the height)."""
        wanted = frozenset(columns) & self._schema.keys()
        return RowsSerde(self.type, self._schema, columns=wanted or frozenset(list(self._schema)[:1]))

    def frame_from_encoded(self, encoded: Sequence[bytes | None]) -> pl.DataFrame:
        """Decode all rows and lay out the columns that are wanted."""
        if self._lines is not None and len(encoded) >= ROWS_MIN:
            frame = self._lines.decode(encoded)
            if frame is not None:
                return frame.select(self._wanted)
        if self._strict is None:
            return self._laid_out(self.objects_from_encoded(encoded), self._wanted, trusted=True)
        try:
            rows = list(map(self._strict, encoded))  # type: ignore[arg-type]  # a null is refused, and judged below
        except Exception:  # noqa: BLE001  # whatever it is, it is found again
            # The type's own decoder finds the same first bad row and says what is wrong.
            rows = self.objects_from_encoded(encoded)
        return self._laid_out(rows, self._wanted, trusted=True)

    def frame_from_objects(self, objects: Sequence[Any]) -> pl.DataFrame:
        """Lay objects that anybody may have made out as columns, each value checked."""
        stranger = self._first_stranger(objects)
        made = self._laid_out(objects[:stranger], list(self._schema), trusted=False)
        if stranger is not None:
            raise self._no_row(stranger, objects[stranger])
        return made

    def objects_from_frame(self, frame: pl.DataFrame) -> list[Any]:
        """Make each row of a frame an object of the type; a field without a column takes its default."""
        self._check_frame(frame)
        if self._positional and self._schema.keys() <= set(frame.columns):
            return list(map(self.type, *(frame.get_column(name).to_list() for name in self._schema)))
        rows = dicts_from_frame(frame.select([name for name in self._schema if name in frame.columns]))
        if self._dicts and not self._makers:
            return rows
        return convert_each(self._row_of, rows, self._unencodable(rows))

    def encoded_from_frame(self, frame: pl.DataFrame) -> list[bytes | None]:
        """Encode each row as an object with its fields in order."""
        if not self._plain or not self._schema.keys() <= set(frame.columns):
            return self.encoded_from_objects(self.objects_from_frame(frame))
        self._check_frame(frame)
        return list(json_from_frame(frame.select(list(self._schema))))

    def _row_of(self, row: dict[str, Any]) -> Any:
        for name, make in self._makers:
            if name in row:
                row[name] = make(row[name])
        return self.type(**row)

    def _encode_present(self, objects: Sequence[Any]) -> list[bytes | None]:
        stranger = self._first_stranger(objects)
        encoded = self._encode_checked(objects[:stranger])
        if stranger is not None:
            raise self._no_row(stranger, objects[stranger])
        return encoded

    def _first_stranger(self, objects: Sequence[Any]) -> int | None:
        """Return the first object that is no row of the type, None if all are."""
        if set(map(type, objects)) <= {self._class}:
            return None
        return next((index for index, row in enumerate(objects) if not isinstance(row, self._class)), None)

    def _no_row(self, index: int, row: Any) -> RowError:
        return self._null(index) if row is None else self._unfit(index, row, f"got {type(row).__name__}")

    def _laid_out(self, rows: Sequence[Any], names: Sequence[str], *, trusted: bool) -> pl.DataFrame:
        columns: list[pl.Series] = []
        errors: list[RowError] = []
        for name in names:
            try:
                values = convert_each(self._getter(name), rows, self._unencodable(rows))
                nullable = self._fields[name].nullable
                columns.append(column_of(name, values, self._schema[name], nullable=nullable, trusted=trusted))
            except UnfitError as error:
                errors.append(self._unfit(error.index, rows[error.index], f"{error.reason} - at `$.{name}`"))
            except RowError as error:
                errors.append(error)
        if errors:
            raise min(errors, key=lambda error: error.index)
        return pl.DataFrame(columns)

    def _check_frame(self, frame: pl.DataFrame) -> None:
        """Refuse the first row that has a null where the type has none, or an integer beyond 64 bits."""
        found: list[tuple[int, str]] = []
        for column in frame.get_columns():
            field = self._fields.get(column.name)
            if field is not None and not field.nullable and column.null_count():
                found.append((int(column.is_null().arg_max() or 0), f"the column is null - at `$.{column.name}`"))
            if column.dtype == pl.UInt64 and (column > INT_MAX).any():
                place = f"the integer leaves 64 bits - at `$.{column.name}`"
                found.append((int((column > INT_MAX).arg_max() or 0), place))
        if found:
            index, reason = min(found)
            raise self._unfit(index, frame.row(index, named=True), reason)


def _takes_positions(type_: Any) -> bool:
    """Whether a row can be made of its fields in order, by a constructor that nobody added anything to."""
    parameters = signature(type_).parameters.values()
    return not hasattr(type_, "__post_init__") and all(one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)


def _plain(info: inspect.Type) -> bool:
    """Whether the JSON of a row is its fields by name and nothing else, all the way down."""
    if isinstance(info, inspect.Metadata):
        return _plain(info.type)
    if isinstance(info, inspect.UnionType):
        return all(map(_plain, info.types))
    if isinstance(info, inspect.ListType | inspect.VarTupleType):
        return _plain(info.item_type)
    if isinstance(info, inspect.StructType) and (info.tag is not None or info.cls.__struct_config__.omit_defaults):
        return False
    if isinstance(info, inspect.StructType | inspect.DataclassType | inspect.TypedDictType):
        return all(field.name == field.encode_name and _plain(field.type) for field in info.fields)
    return True
