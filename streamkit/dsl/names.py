"""How a node gets its name: from `name=`, else from the function; durable nodes must have one."""

import inspect
from collections.abc import Callable
from typing import Any

from streamkit.errors import DefinitionError, UnnamedStateError

__all__ = ["doc_of", "durable_name", "function_name", "refuse_async"]


def function_name(fn: Any) -> str | None:
    """Return the name a function was defined with, None for a lambda or an expression."""
    name = getattr(fn, "__name__", None)
    return None if name is None or name == "<lambda>" else name


def durable_name(fn: Any, name: str | None, what: str) -> str:
    """Return the name of a node that owns state or a topic.

    Raises:
        UnnamedStateError: There is neither a name nor a named function.
    """
    found = name or function_name(fn)
    if found is None:
        raise UnnamedStateError(
            f"{what} needs a durable name",
            detail="its name names a topic or a store, and a lambda has none",
            hint='use a named function, or pass name="..."',
        )
    return found


def doc_of(fn: Any) -> str:
    """Return the docstring of a function the user wrote."""
    return (inspect.getdoc(fn) or "") if inspect.isfunction(fn) else ""


def refuse_async(fn: Callable[..., Any], what: str) -> None:
    """Refuse a coroutine function.

    Raises:
        DefinitionError: It is one.
    """
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(
            f"{what} got the async function {fn.__name__!r}",
            hint="async functions are not supported yet: pass a plain function",
        )
