"""The graph under construction: nodes are added, checked at once, and frozen by `build`."""

import re
from typing import Any, get_args

import polars as pl

from streamkit.errors import DefinitionError, DuplicateNameError, FrozenJobError, TopologyError
from streamkit.graph import KeyBy, LogicalGraph, Node, Sink, Source
from streamkit.graph.nodes import OnError, store_names
from streamkit.graph.stores import Store
from streamkit.topology import NodePlan, changelog_topic, plan_node, repartition_topic, returned_type

__all__ = ["Builder", "check_policy", "check_topic"]

_LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_PYTHON_TYPES: dict[Any, Any] = {pl.Int64: int, pl.String: str, pl.Float64: float, pl.Boolean: bool, pl.Binary: bytes}


class Builder:
    """Nodes by name, in definition order, each with what is known of its rows."""

    def __init__(self, name: str, *, on_error: OnError = "fail") -> None:
        """Start without nodes.

        Args:
            name: Leads the names of topics.
            on_error: What is done with bad records of sources that say nothing of their own: `fail` stops the run,
                `skip` leaves them out, `dead_letter` writes them to `<name>.dead_letter` too.

        Raises:
            DefinitionError: The name cannot lead the names of topics, or there is no such policy.
        """
        check_topic(name, "job name")
        check_policy(on_error, f"job {name!r}")
        self.name, self.on_error = name, on_error
        self._nodes: dict[str, Node] = {}
        self._plans: dict[str, NodePlan] = {}
        self._stores: dict[str, Store[Any, Any]] = {}
        self._graph: LogicalGraph | None = None
        self._numbers: dict[str, int] = {}

    def add(self, node: Node) -> None:
        """Add a node.

        Raises:
            DuplicateNameError: Another node bears the name.
            FrozenJobError: The job was built.
            DefinitionError: The node does not fit the rows of its inputs, or its topic's name is not legal.
        """
        self._check_new(node.name)
        if isinstance(node, KeyBy):
            check_topic(repartition_topic(self.name, node.name), f"repartition topic of {node.name!r}")
        for store in store_names(node):
            check_topic(changelog_topic(self.name, store), f"changelog topic of {store!r}")
        plan = plan_node(node, [self._plans[name] for name in node.inputs])
        self._nodes[node.name], self._plans[node.name] = node, plan

    def _check_open(self, name: str) -> None:
        if self._graph is not None:
            raise FrozenJobError(
                f"the job {self.name!r} was built; {name!r} comes too late", hint="add all nodes before build()"
            )

    def _check_new(self, name: str) -> None:
        self._check_open(name)
        if name in self._nodes:
            raise DuplicateNameError(
                f"the job {self.name!r} has two nodes named {name!r}", hint="rename one, or pass name="
            )
        if name in self._stores:
            raise DuplicateNameError(
                f"the job {self.name!r} has a store named {name!r} already", hint="rename one of the two"
            )

    def replace(self, node: Node) -> None:
        """Put a node in place of the one of its name, which has the same inputs and rows.

        Raises:
            FrozenJobError: The job was built.
        """
        self._check_open(node.name)
        self._nodes[node.name] = node

    def add_store(self, store: Store[Any, Any]) -> None:
        """Add a store that `process` may use.

        Raises:
            DuplicateNameError: A node or another store bears the name.
            FrozenJobError: The job was built.
            DefinitionError: The name of its changelog topic is not legal.
        """
        self._check_new(store.name)
        check_topic(changelog_topic(self.name, store.name), f"changelog topic of {store.name!r}")
        self._stores[store.name] = store

    def check_store(self, store: Any, node: str) -> None:
        """Refuse what is no store of this job."""
        if not isinstance(store, Store):
            raise DefinitionError(f"stores= of {node!r} takes what job.store() returned, not {store!r}")
        if self._stores.get(store.name) is not store:
            raise DefinitionError(f"the store {store.name!r} of {node!r} belongs to another job than {self.name!r}")

    def add_sink(self, upstream: str, topic: str) -> None:
        """Add a sink; topics that are read are not written by the same job."""
        check_topic(topic, "topic name")
        for node in self._nodes.values():
            if isinstance(node, Source) and node.topic == topic:
                raise TopologyError(
                    f"the job {self.name!r} reads {topic!r}, so it cannot write it too",
                    hint="write to another topic, and read that one in a second job",
                )
        self.add(Sink(name=self.fresh_name(f"to_{topic}"), inputs=(upstream,), topic=topic))

    def check_source(self, topic: str) -> None:
        """Refuse to read a topic that the job writes."""
        if any(isinstance(node, Sink) and node.topic == topic for node in self._nodes.values()):
            raise TopologyError(
                f"the job {self.name!r} writes {topic!r}, so it cannot read it too",
                hint="read it in a second job",
            )

    def fresh_name(self, kind: str) -> str:
        """Return a name for a node that owns nothing durable: `map_1`, `map_2` and so on."""
        while True:
            self._numbers[kind] = self._numbers.get(kind, 0) + 1
            name = f"{kind}_{self._numbers[kind]}"
            if name not in self._nodes:
                return name

    def node(self, name: str) -> Node:
        """Return a node by name."""
        return self._nodes[name]

    def plan(self, name: str) -> NodePlan:
        """Return what is known of a node's rows."""
        return self._plans[name]

    def returned(self, fn: Any) -> Any:
        """Return the annotated return type of a function, None if unknown."""
        return returned_type(fn)

    def column_type(self, name: str, key: str | pl.Expr) -> Any:
        """Return the Python type of a key column, None if unknown."""
        schema = self._plans[name].schema
        if schema is None or isinstance(key, pl.Expr) or key not in schema:
            return None
        return _PYTHON_TYPES.get(type(schema[key]))

    def check_own(self, handle: Any) -> None:
        """Refuse a handle of another job."""
        if handle.job is not self:
            raise DefinitionError(f"{handle!r} belongs to another job than {self.name!r}")

    def build(self) -> LogicalGraph:
        """Freeze the job and return its graph; again and again the same one."""
        if self._graph is None:
            self._graph = LogicalGraph(job=self.name, nodes=tuple(self._nodes.values()), on_error=self.on_error)
        return self._graph


def check_topic(name: str, what: str) -> None:
    """Refuse a name that Kafka would refuse."""
    if not _LEGAL.fullmatch(name) or name in (".", ".."):
        raise DefinitionError(
            f"the {what} {name!r} is not legal", hint="use at most 249 letters, digits, dots, underscores and dashes"
        )


def check_policy(on_error: str, what: str) -> None:
    """Refuse an error policy that there is not."""
    if on_error not in get_args(OnError):
        raise DefinitionError(
            f"on_error={on_error!r} of {what} is no error policy", hint=f"use {', '.join(map(repr, get_args(OnError)))}"
        )
