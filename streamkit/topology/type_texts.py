"""A type with all that is in it, as text: two types whose texts are equal read and write the same bytes. Pure.

The lock has less of a type: it is committed, and a change of what it holds is answered by a replay.
"""

from typing import Any, Final

from msgspec import inspect

from streamkit.serde import Serde

__all__ = ["type_text"]

_LEFT_OUT: Final = ("cls", "default", "default_factory", "extra", "extra_json_schema")
"""What is said by a name, or may be any object, whose text could be another one in each process."""


def type_text(type_: Any, serde: Serde) -> str:
    """Return the serde's name of a type and, of a type that is known, its fields and those of the types within it.

    Args:
        type_: What `key=` or `value=` was.
        serde: Of it.
    """
    try:
        info = inspect.type_info(type_)
    except (TypeError, NameError, SyntaxError):
        # A serde of the user's, or a type that only its own reader knows.
        return serde.name
    within = _text(info, set())
    if type_ is None or within.startswith(serde.name):
        return serde.name if type_ is None else within
    return f"{serde.name} as {within}"


def _text(info: inspect.Type, seen: set[type]) -> str:
    """Return a type; a row type that was `seen` before by its name alone, since it may be within itself."""
    class_ = getattr(info, "cls", None)
    name = type(info).__name__.removesuffix("Type").lower() if class_ is None else class_.__name__
    if class_ in seen:
        return str(name)
    if class_ is not None:
        seen.add(class_)
    said = [
        f"{member} {_member(value, seen)}"
        for member in info.__struct_fields__
        if member not in _LEFT_OUT and (value := getattr(info, member)) not in (None, (), False)
    ]
    return f"{name}({', '.join(said)})" if said else str(name)


def _member(value: Any, seen: set[type]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_member(one, seen) for one in value)}]"
    if isinstance(value, inspect.Field):
        return f"{value.encode_name}{'' if value.required else '?'}: {_text(value.type, seen)}"
    return _text(value, seen) if isinstance(value, inspect.Type) else repr(value)
