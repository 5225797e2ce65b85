"""What streams do to rows without changing their type, and what streams and tables have in common."""

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, Self, TypeVar

import polars as pl

from streamkit.dsl import making
from streamkit.dsl.handle import Handle
from streamkit.graph import Node

__all__ = ["Facts", "Rows"]

K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


class Rows(Handle):
    """The rows of a node, which a topic can take."""

    def to(self, topic: str) -> None:
        """Write the rows to a topic, made if missing: facts one by one, a table's updates by key, each window once.

        Raises:
            DefinitionError: The topic's name is not legal.
            TopologyError: The job reads that topic.
        """
        self._job.add_sink(self.name, topic)


class Facts(Rows, Generic[K_co, V_co]):
    """The verbs of a stream that leave a row as it is."""

    def _same(self, node: Node, fn: object) -> Self:
        self._job.add(node)
        return type(self)(self._job, node.name, fn)

    def filter(self, predicate: Callable[[V_co], bool] | pl.Expr, *, name: str | None = None) -> Self:
        """Keep the rows whose predicate is true.

        Shape: one row in, one or none out, unchanged. An expression that is null is not true.

        Raises:
            DefinitionError: The expression is not row-wise or makes no booleans, or `predicate` is no plain function.
        """
        return self._same(making.filter_node(self._job, "filter", self.name, predicate, name), predicate)

    def branch(self, predicate: Callable[[V_co], bool] | pl.Expr, *, name: str | None = None) -> tuple[Self, Self]:
        """Split into the rows whose predicate is true, and all others.

        The predicate is asked once for each side, so it must be pure.

        Shape: one row in, one out on exactly one side, unchanged.

        Raises:
            DefinitionError: As for `filter`.
        """
        yes = making.filter_node(self._job, "branch", self.name, predicate, name)
        no = replace(yes, name=f"{yes.name}_else", negate=True)
        return self._same(yes, predicate), self._same(no, predicate)

    def peek(self, fn: Callable[[V_co], object], *, name: str | None = None) -> Self:
        """Call a function with each value, for its side effect; after a crash it may be called again.

        Shape: one row in, the same row out.

        Raises:
            DefinitionError: `fn` is not a plain function.
        """
        return self._same(making.calling_node("peek", self, fn, name), fn)
