"""What a type looks like as columns: `schema_of` and the fields behind it.

A type has columns if it is a struct, dataclass or typed dict whose fields are numbers, text, bytes, booleans, lists
of these, other such rows, or any of them or None. Everything else (unions, dicts, datetimes, `Any`) has none:
its rows are Python objects only.

Not here: building columns (`columns`).
"""

from dataclasses import dataclass
from typing import Any, Final

import polars as pl
from msgspec import inspect

from streamkit.serde.nested import RowInfo, fields_in_order

__all__ = ["RowField", "admits_none", "dtype_of", "fields_of", "schema_of"]

_SCALARS: Final[dict[type, pl.DataType]] = {
    inspect.IntType: pl.Int64(),
    inspect.FloatType: pl.Float64(),
    inspect.StrType: pl.String(),
    inspect.BoolType: pl.Boolean(),
    inspect.BytesType: pl.Binary(),
}
_LISTS: Final = (inspect.ListType, inspect.VarTupleType)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowField:
    """One field of a row. `encoded_name` is its name in JSON; `dtype` is None where it has no columnar form."""

    name: str
    encoded_name: str
    dtype: pl.DataType | None
    nullable: bool
    required: bool
    info: inspect.Type


def schema_of(type_: Any) -> dict[str, pl.DataType] | None:
    """Return the columns of a row type in field order, None if it has no columnar form."""
    fields = fields_of(type_)
    if not fields:
        return None
    schema = {field.name: field.dtype for field in fields if field.dtype is not None}
    return schema if len(schema) == len(fields) else None


def fields_of(type_: Any) -> tuple[RowField, ...] | None:
    """Return the fields of a struct, dataclass or typed dict, None for any other type."""
    info = _info_of(type_)
    if not isinstance(info, RowInfo) or (isinstance(info, inspect.StructType) and info.array_like):
        return None
    optional_keys = isinstance(info, inspect.TypedDictType)
    return tuple(
        RowField(
            name=field.name,
            encoded_name=field.encode_name,
            # A key that may be absent is not the same as a null, which is all that a column could hold.
            dtype=_dtype_of(field.type, (info.cls,)) if field.required or not optional_keys else None,
            nullable=_admits_none(field.type),
            required=field.required,
            info=field.type,
        )
        for field in fields_in_order(info)
    )


def dtype_of(type_: Any) -> pl.DataType | None:
    """Return the column type of one value, None if it has no columnar form."""
    info = _info_of(type_)
    return None if info is None else _dtype_of(info, ())


def admits_none(type_: Any) -> bool:
    """Whether None is a value of the type (`Any` admits it, `object` too)."""
    info = _info_of(type_)
    return info is not None and _admits_none(info)


def _info_of(type_: Any) -> inspect.Type | None:
    try:
        return inspect.type_info(type_)
    except (TypeError, NameError, SyntaxError):
        # No type that msgspec knows; a decoder for it is refused with a better message elsewhere.
        return None


def _admits_none(info: inspect.Type) -> bool:
    if isinstance(info, inspect.UnionType):
        return info.includes_none
    if isinstance(info, inspect.Metadata):
        return _admits_none(info.type)
    return isinstance(info, inspect.NoneType | inspect.AnyType)


def _dtype_of(info: inspect.Type, outer: tuple[type, ...]) -> pl.DataType | None:
    """Return the column type; `outer` are the row types around it (a recursive type has no columnar form)."""
    if isinstance(info, inspect.Metadata):
        return _dtype_of(info.type, outer)
    if isinstance(info, inspect.UnionType):
        others = [member for member in info.types if not isinstance(member, inspect.NoneType)]
        return _dtype_of(others[0], outer) if len(others) == 1 else None
    if isinstance(info, _LISTS):
        item = _dtype_of(info.item_type, outer)
        return None if item is None else pl.List(item)
    if isinstance(info, RowInfo):
        if info.cls in outer or (isinstance(info, inspect.StructType) and info.array_like):
            return None
        inner = (*outer, info.cls)
        known = {
            field.name: dtype for field in fields_in_order(info) if (dtype := _dtype_of(field.type, inner)) is not None
        }
        return pl.Struct(known) if known and len(known) == len(info.fields) else None
    return _SCALARS.get(type(info))
