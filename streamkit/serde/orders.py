"""What lies in no order of its own: dicts and sets, whose equal values may be laid out in different ways."""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import inspect

__all__ = ["holds_sets", "in_one_order"]

_SETS: Final = (inspect.SetType, inspect.FrozenSetType)
_UNORDERED: Final = (
    *_SETS,
    inspect.DictType,
    inspect.TypedDictType,
    inspect.AnyType,
    inspect.CustomType,
    inspect.RawType,
)


def in_one_order(type_: Any) -> bool:
    """Return whether equal values of a type always have their parts in one order: no dict is in it, and no set."""
    return not any(isinstance(info, _UNORDERED) for info in _parts(inspect.type_info(type_), []))


def holds_sets(type_: Any) -> bool:
    """Return whether a set is declared anywhere in a type."""
    return any(isinstance(info, _SETS) for info in _parts(inspect.type_info(type_), []))


def _parts(info: inspect.Type, seen: list[inspect.Type]) -> Iterator[inspect.Type]:
    """Yield a type and all that it is made of; a type that holds itself comes once."""
    if any(info is one for one in seen):
        return
    seen.append(info)
    yield info
    inside = [getattr(info, name) for name in ("item_type", "key_type", "value_type") if hasattr(info, name)]
    inside += getattr(info, "types", ())
    inside += getattr(info, "item_types", ())
    inside += [field.type for field in getattr(info, "fields", ())]
    for one in inside:
        yield from _parts(one, seen)
