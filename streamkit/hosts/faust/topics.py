"""The topics that a Faust app meets: how many partitions each has, and making those that are missing.

Faust expects of Kafka that a topic is there once somebody reads or writes it. Here the same holds, unless the app's
`topic_allow_declare` is false; the partition count is what the app says of the topic, else its `topic_partitions`.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from mode.utils.logging import get_logger

from streamkit.broker import Broker
from streamkit.errors import UnknownTopicError

__all__ = ["Topics"]

_log = get_logger(__name__)


class Topics:
    """The partition counts of a broker's topics, as far as they were asked for.

    Args:
        broker: Where they are.
        app: The Faust app: its settings, and what it says of its topics.
    """

    def __init__(self, broker: Broker, app: Any) -> None:
        """Know nothing yet."""
        self._broker, self._app = broker, app
        self._counts: dict[str, int] = {}
        self._making = asyncio.Lock()

    async def refresh(self) -> None:
        """Look which topics there are."""
        topics = await asyncio.to_thread(self._broker.admin.describe_topics)
        self._counts = {name: description.partition_count for name, description in topics.items()}

    def known_count(self, topic: str) -> int:
        """Return the partition count of a topic without asking the broker.

        Raises:
            UnknownTopicError: It was not there when somebody asked last.
        """
        if topic not in self._counts:
            raise UnknownTopicError(f"topic {topic!r} does not exist", hint="declare it before it is used")
        return self._counts[topic]

    async def count(self, topic: str) -> int:
        """Return the partition count of a topic, made if missing.

        Raises:
            UnknownTopicError: It does not exist, and `topic_allow_declare` is false.
            ConfigError: Its name is no topic's.
        """
        if topic not in self._counts:
            await self.refresh()
        if topic not in self._counts:
            await self.make(topic, self._declared_count(topic))
        return self._counts[topic]

    async def counts(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Return the partition counts of several topics, made if missing; raises what `count` raises."""
        await self.refresh()
        return {topic: await self.count(topic) for topic in topics}

    async def make(self, topic: str, partition_count: int, **asked: Any) -> None:
        """Make a topic unless it exists, as Faust describes it.

        Args:
            topic: Its name.
            partition_count: Used only if it is missing.
            asked: What Faust says of topics: `config`, `retention` (s), `compacting`, `deleting`.

        Raises:
            UnknownTopicError: It does not exist, and `topic_allow_declare` is false.
            ConfigError: The name or a config is not valid.
        """
        async with self._making:
            await self.refresh()
            if topic in self._counts:
                if self._counts[topic] != partition_count:
                    _log.info("topic %r has %d partitions, not %d", topic, self._counts[topic], partition_count)
                return
            if not self._app.conf.topic_allow_declare:
                raise UnknownTopicError(
                    f"topic {topic!r} does not exist", hint="topic_allow_declare is off: make it before the app starts"
                )
            await asyncio.to_thread(self._broker.admin.create_topic, topic, partition_count, _config(**asked))
            self._counts[topic] = partition_count

    def _declared_count(self, topic: str) -> int:
        channels = [*self._app.topics, *(agent.channel for agent in self._app.agents.values())]
        for channel in channels:
            if topic in getattr(channel, "topics", ()) and channel.partitions:
                return int(channel.partitions)
        return int(self._app.conf.topic_partitions)


def _config(
    *,
    config: Mapping[str, Any] | None = None,
    retention: Any = None,
    compacting: bool | None = None,
    deleting: bool | None = None,
    **_: Any,
) -> dict[str, str]:
    made: dict[str, str] = {}
    policy = [name for name, wanted in (("compact", compacting), ("delete", deleting)) if wanted]
    if policy:
        made["cleanup.policy"] = ",".join(policy)
    if retention:
        seconds = retention.total_seconds() if hasattr(retention, "total_seconds") else float(retention)
        made["retention.ms"] = str(int(seconds * 1000))
    return made | {name: str(value) for name, value in (config or {}).items()}
