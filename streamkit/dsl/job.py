"""A job: one decorated module, one logical graph."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias, TypeVar, overload

from streamkit.dsl.builder import Builder, check_policy, check_topic
from streamkit.dsl.names import check_function
from streamkit.dsl.stream import Stream
from streamkit.errors import DefinitionError
from streamkit.graph import EventTime, Source
from streamkit.graph.nodes import OnError
from streamkit.serde import key_serde, schema_of, value_serde

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
        check_topic(topic, "topic name")
        if on_error is not None:
            check_policy(on_error, f"source {topic!r}")
        key_serde(key)
        value_serde(value)
        event_time = timestamp if isinstance(timestamp, EventTime) else EventTime(timestamp)
        if callable(event_time.field):
            check_function(event_time.field, f"timestamp= of {topic!r}")
        elif event_time.field is not None:
            _check_field(value, event_time.field, topic)
        self.check_source(topic)
        self.add(
            Source(name=topic, topic=topic, key_type=key, value_type=value, event_time=event_time, on_error=on_error)
        )
        return Stream(self, topic)


def _check_field(value_type: Any, field: str, topic: str) -> None:
    """Refuse a field that a typed value does not have; an untyped one may have any."""
    schema = schema_of(value_type)
    if schema is not None and field not in schema:
        raise DefinitionError(
            f"timestamp={field!r} of {topic!r}: {value_type.__name__} has no such field",
            detail=f"it has {', '.join(schema)}",
        )
