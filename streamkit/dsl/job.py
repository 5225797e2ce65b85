"""A job: one decorated module, one logical graph."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias, TypeVar, overload

from streamkit.dsl.builder import Builder, check_policy, check_topic
from streamkit.dsl.names import check_function
from streamkit.dsl.stream import Stream, Table
from streamkit.errors import DefinitionError
from streamkit.graph import EventTime, Latest, Source
from streamkit.graph.nodes import OnError
from streamkit.graph.stores import Store
from streamkit.serde import key_serde, schema_of, value_serde
from streamkit.topology.plans import check_key_type

__all__ = ["Job"]

K = TypeVar("K")
V = TypeVar("V")
Timestamp: TypeAlias = str | Callable[[V], int | datetime] | EventTime | None


class Job(Builder):
    """A graph under construction. Its name is the consumer group and the prefix of internal topics."""

    @overload
    def stream(
        self, topic: str, *, value: type[V], timestamp: Timestamp[V] = None, on_error: OnError | None = None
    ) -> Stream[None, V]: ...
    @overload
    def stream(
        self,
        topic: str,
        *,
        key: type[K],
        value: type[V],
        timestamp: Timestamp[V] = None,
        on_error: OnError | None = None,
    ) -> Stream[K, V]: ...
    @overload
    def stream(
        self, topic: str, *, key: type[K], timestamp: Timestamp[Any] = None, on_error: OnError | None = None
    ) -> Stream[K, Any]: ...
    @overload
    def stream(
        self, topic: str, *, timestamp: Timestamp[Any] = None, on_error: OnError | None = None
    ) -> Stream[None, Any]: ...
    def stream(
        self,
        topic: str,
        *,
        key: Any = None,
        value: Any = None,
        timestamp: Any = None,
        on_error: OnError | None = None,
    ) -> Stream[Any, Any]:
        """Read a topic.

        Args:
            topic: Its name; also the node's.
            key: Type of the keys, or a serde; without it they are `bytes | None`.
            value: Type of the values, or a serde; without it they are what orjson returns.
            timestamp: A field's name, a function of the value, or `EventTime`; the record's own timestamp without it.
            on_error: What is done with its bad records; what the job says without it.

        Raises:
            DefinitionError: The topic's name is not legal, a type has no serde, the field does not exist, or there is
                no such policy.
        """
        self._read(
            Source(
                name=topic, topic=topic, key_type=key, value_type=value, event_time=_time(timestamp), on_error=on_error
            )
        )
        return Stream(self, topic)

    @overload
    def table(
        self,
        topic: str,
        *,
        key: type[K],
        value: type[V],
        timestamp: Timestamp[V] = None,
        on_error: OnError | None = None,
    ) -> Table[K, V]: ...
    @overload
    def table(
        self, topic: str, *, key: type[K], timestamp: Timestamp[Any] = None, on_error: OnError | None = None
    ) -> Table[K, Any]: ...
    def table(
        self, topic: str, *, key: Any, value: Any = None, timestamp: Any = None, on_error: OnError | None = None
    ) -> Table[Any, Any]:
        """Read a topic as a table: the last value of each key, in the order of its partition; a null value deletes it.

        Args:
            topic: Its name; also the table's, and that of its store. The records are read by a node `<topic>-records`.
            key: Type of the keys, or a serde; a null key is a bad record.
            value: Type of the values, or a serde; without it they are what orjson returns.
            timestamp: As for `stream`; a record that deletes its key bears its own.
            on_error: As for `stream`.

        Raises:
            DefinitionError: As for `stream`, or there is no type of keys.

        Cost: a store of the table's size in each task, and a changelog that says once more what the topic does.

        Example:
            >>> from streamkit import Job
            >>> job = Job("receipts")
            >>> customers = job.table("customers", key=str, value=str)
            >>> @job.stream("orders", key=str, value=str).join(customers)
            ... def receipts(order: str, customer: str) -> str:
            ...     return f"{order} for {customer}"
            >>> receipts
            <Stream receipts.receipts>
        """
        if key is None:
            raise DefinitionError(f"the table {topic!r} has no type of keys", hint="pass key=str, or what they are")
        records = Source(
            name=f"{topic}-records",
            topic=topic,
            key_type=key,
            value_type=value,
            event_time=_time(timestamp),
            on_error=on_error,
            nulls_delete=True,
        )
        self._read(records)
        self.add(Latest(name=topic, inputs=(records.name,)))
        return Table(self, topic)

    def store(self, name: str, *, key: type[K], value: type[V]) -> Store[K, V]:
        """Make a store that `process` may use: pass the handle as one of `stores=`, and to `ctx.store`.

        Args:
            name: Names the changelog topic, `<job>-<name>-changelog`; no node bears it.
            key: Type of the keys, or a serde.
            value: Type of the values, or a serde.

        Raises:
            DuplicateNameError: A node or another store bears the name.
            FrozenJobError: The job was built.
            DefinitionError: A type has no serde, or cannot be a key; or the changelog's name is not legal.
        """
        check_key_type(name, key)
        value_serde(value)
        store: Store[K, V] = Store(name=name, key_type=key, value_type=value)
        self.add_store(store)
        return store

    def _read(self, node: Source) -> None:
        topic, field = node.topic, node.event_time.field
        check_topic(topic, "topic name")
        if node.on_error is not None:
            check_policy(node.on_error, f"source {topic!r}")
        key_serde(node.key_type)
        value_serde(node.value_type)
        if callable(field):
            check_function(field, f"timestamp= of {topic!r}")
        elif field is not None:
            _check_field(node.value_type, field, topic)
        self.check_source(topic)
        self.add(node)


def _time(timestamp: Any) -> EventTime:
    return timestamp if isinstance(timestamp, EventTime) else EventTime(timestamp)


def _check_field(value_type: Any, field: str, topic: str) -> None:
    """Refuse a field that a typed value does not have; an untyped one may have any."""
    schema = schema_of(value_type)
    if schema is not None and field not in schema:
        raise DefinitionError(
            f"timestamp={field!r} of {topic!r}: {value_type.__name__} has no such field",
            detail=f"it has {', '.join(schema)}",
        )
