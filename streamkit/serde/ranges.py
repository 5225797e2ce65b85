"""Integers of 64 bits: what a column, Kafka's clients and every JSON reader agree on.

msgspec decodes an integer of any length into an `int`. A frame holds 64 bits, so a longer one is a bad record, in
both spellings alike; so is what is nested too deeply to be looked through. The check costs nothing for types without
integers, one pass a field for flat rows; for many rows of JSON mostly a look at their bytes.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import inspect

from streamkit.serde.nested import field_names
from streamkit.serde.schema import fields_of

__all__ = ["INT_MAX", "INT_MIN", "RangeCheck", "may_leave_64_bits", "range_check"]

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1

RangeCheck: TypeAlias = Callable[[Sequence[Any]], tuple[int, str] | None]
"""Returns the index of the first row that holds an integer beyond 64 bits and what is wrong, None if there is none."""

_DEPTH_MAX: Final = 256
"""Far above what a record needs, and far below where Python gives up, which depends on who is calling."""

_INTLESS: Final = (
    inspect.FloatType,
    inspect.StrType,
    inspect.BoolType,
    inspect.BytesType,
    inspect.ByteArrayType,
    inspect.NoneType,
    inspect.DateType,
    inspect.DateTimeType,
    inspect.TimeType,
    inspect.UUIDType,
    inspect.DecimalType,
)


def range_check(type_: Any) -> RangeCheck | None:
    """Return the check of a type's values, None for a type that holds no integer."""
    info = inspect.type_info(type_)
    if isinstance(info, _INTLESS):
        return None
    fields = fields_of(type_)
    if fields is None:
        return _check_each
    suspects = [field for field in fields if not isinstance(field.info, _INTLESS)]
    if not suspects:
        return None
    if all(isinstance(field.info, inspect.IntType) and field.required for field in suspects):
        getter = itemgetter if isinstance(info, inspect.TypedDictType) else attrgetter
        return _columns_check([getter(field.name) for field in suspects])
    return _check_each


def may_leave_64_bits(encoded: Sequence[bytes]) -> bool:
    """Whether any row of JSON has 19 digits on end: without them no number is an integer beyond 64 bits.

    msgspec takes nothing with a point or an exponent for an integer. Keys of dicts may spell their digits otherwise.

    Cost: 0.05 us a row of 127 bytes; it pays from some tens of rows on.
    """
    text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    run = (text >= ord("0")) & (text <= ord("9"))
    for step in (1, 2, 4, 8, 3):
        # Where so many begin, and as many again so much later: of 2, 4, 8, 16 and 19 digits.
        run = run[step:] & run[:-step]
    return bool(run.any())


def _columns_check(getters: Sequence[Callable[[Any], int]]) -> RangeCheck:
    def check(rows: Sequence[Any]) -> tuple[int, str] | None:
        try:
            for getter in getters:
                array("q", map(getter, rows))
        except (OverflowError, TypeError):
            # A value that is no integer at all is for the encoder to judge.
            return _check_each(rows)
        return None

    return check


def _check_each(rows: Sequence[Any]) -> tuple[int, str] | None:
    for index, row in enumerate(rows):
        reason = _find(row, "$", 0)
        if reason is not None:
            return index, reason
    return None


def _find(value: Any, place: str, depth: int) -> str | None:
    """Return what is wrong with the first integer beyond 64 bits in a value, and where it is."""
    if isinstance(value, int):
        return None if INT_MIN <= value <= INT_MAX else f"the integer leaves 64 bits - at `{place}`"
    if value is None or isinstance(value, str | bytes | float):
        return None
    if depth == _DEPTH_MAX:
        return f"it is nested more than {_DEPTH_MAX} levels deep"
    if isinstance(value, Mapping):
        members = [(f"{place}.{key}", member) for key, member in value.items()]
        members += [(f"{place} (a key)", key) for key in value]
    elif isinstance(value, list | tuple | set | frozenset):
        members = [(f"{place}[{index}]", member) for index, member in enumerate(value)]
    else:
        members = [(f"{place}.{name}", getattr(value, name, None)) for name in field_names(value)]
    return next((found for where, member in members if (found := _find(member, where, depth + 1)) is not None), None)
