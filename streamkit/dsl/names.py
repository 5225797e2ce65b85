"""How a node gets its name: from `name=`, else from the function; durable nodes must have one."""

import functools
import inspect
import typing
from collections.abc import Awaitable
from typing import Any

import polars as pl

from streamkit.errors import DefinitionError, UnnamedStateError
from streamkit.topology import returned_type

__all__ = ["asynchronous", "check_function", "doc_of", "durable_name", "function_name"]


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


def check_function(fn: Any, what: str) -> None:
    """Check that an operator got a plain function.

    Raises:
        DefinitionError: It is not callable, or a coroutine function.
    """
    if not callable(fn) or isinstance(fn, pl.Expr):
        raise DefinitionError(f"{what} takes a function, not {fn!r}")
    if asynchronous(fn) or any(map(inspect.isasyncgenfunction, _called(fn))) or _returns_coroutine(fn):
        raise DefinitionError(
            f"{what} got the async function {getattr(fn, '__name__', fn)!r}",
            hint="map() of a stream takes what async def defines; its results go on to plain functions",
        )


def asynchronous(fn: Any) -> bool:
    """Return whether calling a function gives a coroutine, as far as its definition says."""
    return any(map(inspect.iscoroutinefunction, _called(fn)))


def _returns_coroutine(fn: Any) -> bool:
    returned = returned_type(fn)
    kind = typing.get_origin(returned) or returned
    return isinstance(kind, type) and issubclass(kind, Awaitable)


def _called(fn: Any) -> tuple[Any, Any]:
    return fn, fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__
