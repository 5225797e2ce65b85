"""Values inside values: rows within rows and lists, taken apart for a column and put together again.

Field names are Python's on both sides (`msgspec.to_builtins` would use the names of the JSON form).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import inspect

__all__ = ["RowInfo", "field_names", "fields_in_order", "maker_of", "parts_of", "taken_apart"]

RowInfo: TypeAlias = inspect.StructType | inspect.DataclassType | inspect.TypedDictType


def fields_in_order(info: RowInfo) -> Sequence[inspect.Field]:
    """Return the fields of a row type as they were declared (msgspec sorts those of a typed dict by name)."""
    if not isinstance(info, inspect.TypedDictType):
        return info.fields
    declared = list(getattr(info.cls, "__origin__", info.cls).__annotations__)
    return sorted(info.fields, key=lambda field: declared.index(field.name))


def field_names(value: Any) -> Sequence[str]:
    """Return the field names of a struct or dataclass instance, none for anything else."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    return tuple(getattr(value, "__dataclass_fields__", ()))


def parts_of(info: inspect.Type) -> Iterator[inspect.Type]:
    """Return a type and all types inside it; those of a recursive one once."""
    rows: set[type] = set()
    waiting = [info]
    while waiting:
        part = waiting.pop()
        if isinstance(part, RowInfo):
            if part.cls in rows:
                continue
            rows.add(part.cls)
        yield part
        waiting += [member for name in _INNER if (member := getattr(part, name, None)) is not None]
        for name in ("types", "item_types"):
            waiting += getattr(part, name, ())
        waiting += [field.type for field in getattr(part, "fields", ())]


_INNER: Final = ("type", "item_type", "key_type", "value_type")


def taken_apart(value: Any) -> Any:
    """Return a value with every row in it as a dict and every sequence as a list."""
    if isinstance(value, dict):
        return {key: taken_apart(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [taken_apart(member) for member in value]
    names = field_names(value)
    return {name: taken_apart(getattr(value, name)) for name in names} if names else value


def maker_of(info: inspect.Type) -> Callable[[Any], Any] | None:
    """Return what puts a value of a column together again, None where the value is right as it is.

    The maker raises `ValueError` for a null that the type does not admit.
    """
    if isinstance(info, inspect.Metadata):
        return maker_of(info.type)
    if isinstance(info, inspect.UnionType):
        made = maker_of(next(member for member in info.types if not isinstance(member, inspect.NoneType)))
        return None if made is None else lambda value: None if value is None else made(value)
    if isinstance(info, inspect.ListType | inspect.VarTupleType):
        kind = list if isinstance(info, inspect.ListType) else tuple
        item = _strict(info.item_type)
        return lambda value: kind(map(item, _present(value)))
    if isinstance(info, RowInfo):
        members = [(field.name, _strict(field.type)) for field in fields_in_order(info)]
        make = info.cls
        return lambda value: make(**{name: member(_present(value)[name]) for name, member in members})
    return None


def _strict(info: inspect.Type) -> Callable[[Any], Any]:
    if isinstance(info, inspect.UnionType | inspect.Metadata):
        return maker_of(info) or (lambda value: value)
    return maker_of(info) or _present


def _present(value: Any) -> Any:
    if value is None:
        raise ValueError("a nested value is null")
    return value
