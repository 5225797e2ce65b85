"""Makes nodes from what an operator was given, and refuses what does not fit; adds nothing to the job."""

from typing import Any

import polars as pl

from streamkit.dsl.builder import Builder
from streamkit.dsl.handle import Handle
from streamkit.dsl.names import check_function, doc_of, durable_name, function_name
from streamkit.dsl.row_wise import check_row_wise
from streamkit.errors import DefinitionError
from streamkit.graph import Filter, KeyBy, Select

__all__ = ["filter_node", "key_node", "node_name", "select_node"]

_SHARDS_MAX = 100_000


def node_name(job: Builder, kind: str, fn: Any, name: str | None) -> str:
    """Return the name of a node that owns nothing durable: a function's, or a fresh one.

    Only functions of Python code lend their name: a class or `str.split` would clash with its next use.
    """
    own = function_name(fn) if hasattr(fn, "__code__") else None
    return name or own or job.fresh_name(kind)


def filter_node(job: Builder, kind: str, upstream: str, predicate: Any, name: str | None) -> Filter:
    """Return a filter by a function or an expression."""
    if isinstance(predicate, pl.Expr):
        check_row_wise(predicate, kind)
    else:
        check_function(predicate, kind)
    return Filter(
        name=node_name(job, kind, predicate, name), inputs=(upstream,), predicate=predicate, doc=doc_of(predicate)
    )


def select_node(job: Builder, kind: str, upstream: str, columns: tuple[Any, ...], *, keep: bool) -> Select:
    """Return a selection of columns, named or computed."""
    if not columns:
        raise DefinitionError(f"{kind} needs at least one column")
    expressions = tuple(pl.col(column) if isinstance(column, str) else column for column in columns)
    for expression in expressions:
        if not isinstance(expression, pl.Expr):
            raise DefinitionError(f"{kind} takes columns and expressions, not {expression!r}")
        check_row_wise(expression, kind)
    return Select(name=job.fresh_name(kind), inputs=(upstream,), expressions=expressions, keep=keep)


def key_node(verb: str, rows: Handle, key: Any, *, type: Any, name: str | None, shards: int) -> KeyBy:
    """Return a change of key: by a function, a column's name or an expression."""
    if not 1 <= shards <= _SHARDS_MAX:
        raise DefinitionError(f"shards={shards} of {verb} is not between 1 and {_SHARDS_MAX:,}")
    fn = None
    if isinstance(key, pl.Expr):
        check_row_wise(key, verb)
    elif not isinstance(key, str):
        check_function(key, verb)
        fn = key
    durable = durable_name(fn, name, verb)
    if type is None:
        type = rows.job.column_type(rows.name, key) if fn is None else rows.job.returned(fn)
    # A key of unknown type is JSON; None would mean raw bytes.
    known = Any if type is None else type
    return KeyBy(name=durable, inputs=(rows.name,), key=key, key_type=known, shards=shards, doc=doc_of(fn))
