"""What an accumulator may be, and how its type is found."""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec

from streamkit.dsl.names import check_function
from streamkit.errors import DefinitionError
from streamkit.serde import value_serde
from streamkit.topology import returned_type

__all__ = ["accumulator_type"]

_BUILTINS: Final = (int, float, str, bytes, bool, list, dict, set, frozenset, tuple)


def accumulator_type(initial: Callable[[], Any], node: str) -> Any:
    """Return the type of what `initial` makes: a class, a parametrised alias, or the annotation of a function.

    Raises:
        DefinitionError: The type is none that can be stored, a function is not annotated, or it fails.
    """
    check_function(initial, f"initial= of {node!r}")
    if isinstance(initial, types.GenericAlias) or typing.get_origin(initial) is not None:
        found: Any = initial
    else:
        found = returned_type(initial)
    if found is None:
        raise DefinitionError(
            f"initial= of {node!r} does not say what it returns",
            hint="pass a class, an alias such as dict[str, int], or a function with a return annotation",
        )
    plain = typing.get_origin(found) or found
    stored = (
        plain in _BUILTINS
        or dataclasses.is_dataclass(plain)
        or (isinstance(plain, type) and issubclass(plain, msgspec.Struct))
    )
    if not stored:
        raise DefinitionError(
            f"the accumulator of {node!r} is {getattr(plain, '__name__', plain)}, which cannot be stored",
            hint="use a builtin, a dataclass or a msgspec.Struct",
        )
    value_serde(found)
    try:
        initial()
    except Exception as cause:
        raise DefinitionError(
            f"initial= of {node!r} raised {type(cause).__name__}: {cause}", hint="it is called without arguments"
        ) from cause
    return found
