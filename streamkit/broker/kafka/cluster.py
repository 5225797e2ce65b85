"""The cluster as a client sees it: connections, topics with their leaders, coordinators.

Everything here runs on the client's loop, but for `known`, which only looks. Metadata is asked for without creating
topics: aiokafka's own way of learning about a topic would make it.

A connection answers one request after the other, so whoever waits long (a fetcher) or must not wait (a producer) has
connections of its own, told apart by a number.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from streamkit.broker.kafka.authentication import client_arguments
from streamkit.broker.kafka.client_thread import retried
from streamkit.broker.kafka.errors import NONE, UNKNOWN_TOPICS, error_of, translated
from streamkit.broker.kafka.refusals import refusal_of
from streamkit.broker.kafka.settings import KafkaSettings
from streamkit.broker.topics import unknown_topic
from streamkit.errors import BrokerError, BrokerUnavailableError, ConfigError
from streamkit.log.header import BATCH_BYTES_MAX
from streamkit.records import TopicPartition

__all__ = ["SHARED", "Cluster", "KnownTopic", "client_options"]

SHARED: Final = 0
"""The number of the connections that everybody shares."""

_UNKNOWN_PAUSES_MS: Final = (20, 60, 120)
"""A broker learns of a new topic a little later than others: it is asked again before it is believed."""
_GLANCE_SECONDS: Final = 1.0
_TOPIC_RESOURCE: Final = 2
_NO_LEADER: Final = -1


class KnownTopic(NamedTuple):
    """A topic's leaders by partition, and the most bytes of a record batch."""

    leaders: Mapping[int, int]
    message_bytes_max: int


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return what aiokafka's clients of every kind are made with."""
    return {
        "bootstrap_servers": settings.bootstrap,
        "client_id": "streamkit",
        "request_timeout_ms": settings.answer_timeout_ms,
        **client_arguments(settings.security),
    }


class Cluster:
    """One client of a Kafka cluster."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect nowhere yet."""
        self.settings = settings
        self._client: Any = None
        self._topics: dict[str, KnownTopic] = {}
        self._stale: set[str] = set()
        self._coordinators: dict[tuple[CoordinationType, str], int] = {}
        self._connection_count = SHARED
        self._reached: set[int] = set()

    async def open(self) -> None:
        """Find the cluster.

        Raises:
            BrokerUnavailableError: None of the addresses answers.
            BrokerError: TLS or the login failed.
            ConfigError: A broker advertises an address to which nothing may be sent in clear.
        """
        failure = await retried(self._open, self.settings.request_timeout_ms)
        if failure is not None:
            raise failure

    async def _open(self) -> BrokerError | None:
        """Make one attempt; return why no further one is of use."""
        make: Any = AIOKafkaClient
        client = make(**client_options(self.settings))
        try:
            await client.bootstrap()
        except (KafkaError, OSError, ValueError, KeyError) as error:
            for host, port, _family in client.hosts:
                refusal = await refusal_of(host, port, client_options(self.settings))
                if refusal is not None:
                    return refusal
            return BrokerUnavailableError(
                f"no Kafka broker answers at {self.settings.bootstrap}",
                detail=str(error),
                hint="see whether it runs, whether the address is its advertised listener, and security_protocol",
            )
        if client.get_random_node() is None:
            # A broker that has just started serves before it knows of itself.
            await client.close()
            raise BrokerUnavailableError(f"the Kafka broker at {self.settings.bootstrap} knows of no broker yet")
        try:
            for broker in client.cluster.brokers():
                self.settings.security.check_address(broker.host)
        except ConfigError:
            await client.close()
            raise
        self._client = client
        return None

    def new_connection(self) -> int:
        """Return the number of connections of one's own."""
        self._connection_count += 1
        return self._connection_count

    def drop_connection(self, connection: int, node_id: int | None = None) -> None:
        """Close the connections of a number, to one node or to all; requests on them fail."""
        if self._client is None:
            return
        connections = self._client._conns  # noqa: SLF001  # a client closes all of its connections or none
        for key in [key for key in connections if key[1] == connection and node_id in (None, key[0])]:
            connections.pop(key).close()

    def any_node(self) -> int:
        """Return a broker, whichever.

        Raises:
            BrokerUnavailableError: None is known.
        """
        node_id: int | None = self._client.get_random_node()
        if node_id is None:
            raise BrokerUnavailableError("no Kafka broker is known")
        return node_id

    async def connect(self, node_id: int, connection: int) -> None:
        """Return once there is a connection.

        Raises:
            BrokerUnavailableError: The node cannot be reached. Nothing was sent.
        """
        self._check_encrypted(node_id)
        if not await self._client.ready(node_id, group=connection):
            raise BrokerUnavailableError(f"Kafka broker {node_id} cannot be reached")

    async def send(self, node_id: int, request: Any, *, connection: int = SHARED) -> Any:
        """Send a request and return the answer, whose error codes are the caller's to see to.

        Raises:
            BrokerUnavailableError: There was no answer; the broker may have done it.
            BrokerError: TLS or the login failed at a broker that has never answered. Nothing was sent.
        """
        self._check_encrypted(node_id)
        try:
            answer = await self._client.send(node_id, request, group=connection)
        except Exception as error:
            if isinstance(error, NodeNotReadyError):
                await self._check_refused(node_id)
            # A KeyError is aiokafka's own, when a connection was closed while a request timed out on it.
            raise translated(error, f"Kafka broker {node_id} did not answer a {type(request).__name__}") from error
        self._reached.add(node_id)
        return answer

    async def _check_refused(self, node_id: int) -> None:
        """Say why a broker cannot be reached, if it never was: later a login may fail for a while, and is tried again.

        Raises:
            BrokerError: TLS or the login failed.
        """
        broker = self._client.cluster.broker_metadata(node_id)
        secured = self.settings.security.encrypted or self.settings.security.sasl
        if broker is None or not secured or node_id in self._reached:
            return
        refusal = await refusal_of(broker.host, broker.port, client_options(self.settings))
        if refusal is not None:
            raise refusal

    def _check_encrypted(self, node_id: int) -> None:
        """Refuse a broker that advertises an address to which nothing may be sent in clear.

        Raises:
            ConfigError: It does. Nothing was sent to it.
        """
        broker = self._client.cluster.broker_metadata(node_id)
        if broker is not None:
            self.settings.security.check_address(broker.host)

    async def metadata(self, topics: Iterable[str] | None, node_id: int | None = None) -> Any:
        """Return what a broker, whichever or that one, knows of some topics, or of all; none is created by asking."""
        names = None if topics is None else sorted(set(topics))
        return await self.send(self.any_node() if node_id is None else node_id, MetadataRequest(names, False))

    async def everywhere(self, topic: str) -> dict[int, int]:
        """Return how many partitions of a topic each broker knows of, 0 if it knows of none; by node.

        Brokers that do not answer within a second are left out.
        """

        async def count(node_id: int) -> tuple[int, int] | None:
            try:
                response = await asyncio.wait_for(self.metadata([topic], node_id), _GLANCE_SECONDS)
            except (BrokerUnavailableError, TimeoutError):
                return None
            ((code, _name, _internal, partitions),) = response.topics
            return node_id, len(partitions) if code not in UNKNOWN_TOPICS else 0

        brokers = [broker.nodeId for broker in self._client.cluster.brokers()]
        answers = await asyncio.gather(*map(count, brokers))
        return dict(answer for answer in answers if answer is not None)

    def known(self, tp: TopicPartition) -> KnownTopic | None:
        """Return what was learned of a partition's topic, None if there is nothing; from any thread."""
        topic = self._topics.get(tp.topic)
        return topic if topic is not None and tp.partition in topic.leaders else None

    async def learn(self, tps: Iterable[TopicPartition]) -> None:
        """Learn of partitions that are not known yet.

        Raises:
            UnknownTopicError: One does not exist.
            BrokerUnavailableError: Nobody answers.
        """
        for pause_ms in (0, *_UNKNOWN_PAUSES_MS):
            await asyncio.sleep(pause_ms / 1000)
            missing = [tp for tp in tps if tp.topic in self._stale or self.known(tp) is None]
            if missing:
                await self.refresh({tp.topic for tp in missing})
            unknown = [tp for tp in missing if self.known(tp) is None]
            if not any(tp.topic not in self._topics for tp in unknown):
                break
        else:
            unknown = await self._learn_of_others(unknown)
        if unknown:
            raise unknown_topic(unknown[0])

    async def _learn_of_others(self, unknown: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Ask every broker for what those that were asked do not know; return what nobody knows."""
        for topic in sorted({tp.topic for tp in unknown}):
            knowing = [node_id for node_id, count in (await self.everywhere(topic)).items() if count]
            if knowing:
                await self.refresh([topic], knowing[0])
        return [tp for tp in unknown if self.known(tp) is None]

    async def leaders(self, tps: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        """Return the partitions by the node that leads them.

        Raises:
            UnknownTopicError: One does not exist.
            BrokerUnavailableError: One has no leader now; it will be asked for again.
        """
        wanted = list(tps)
        await self.learn(wanted)
        by_node = defaultdict[int, list[TopicPartition]](list)
        for tp in wanted:
            by_node[self._topics[tp.topic].leaders[tp.partition]].append(tp)
        if _NO_LEADER in by_node:
            tp = by_node[_NO_LEADER][0]
            self.forget([tp.topic])
            raise BrokerUnavailableError(f"{tp} has no leader", hint="see whether Kafka's brokers are up")
        return by_node

    def forget(self, topics: Iterable[str]) -> None:
        """Ask anew for the leaders of topics when they are needed next; `known` goes on to tell what was known."""
        self._stale.update(topics)

    async def coordinator(self, kind: CoordinationType, key: str) -> int:
        """Return the node that coordinates a group or a transactional id.

        Raises:
            BrokerUnavailableError: None does now.
        """
        node_id = self._coordinators.get((kind, key))
        if node_id is None:
            try:
                node_id = await self._client.coordinator_lookup(kind, key)
            except (KafkaError, OSError, AssertionError) as error:
                raise translated(error, f"the coordinator of {key} was not found") from error
            self._coordinators[kind, key] = node_id
        return node_id

    @contextlib.asynccontextmanager
    async def at_coordinator(self, kind: CoordinationType, key: str) -> AsyncIterator[int]:
        """The node that coordinates a group or a transactional id; it is looked up again after a failure there."""
        try:
            yield await self.coordinator(kind, key)
        except BrokerUnavailableError:
            self.forget_coordinator(kind, key)
            raise

    def forget_coordinator(self, kind: CoordinationType, key: str) -> None:
        """Look for the coordinator anew when it is needed next."""
        self._coordinators.pop((kind, key), None)

    async def topic_configs(
        self, topics: Iterable[str], names: list[str] | None = None, node_id: int | None = None
    ) -> dict[str, list[Any]]:
        """Return the config entries of topics as Kafka tells them: name, value, read only, source, and more.

        Raises:
            BrokerError: Kafka refuses to tell.
        """
        resources = [(_TOPIC_RESOURCE, topic, names) for topic in topics]
        if not resources:
            return {}
        asked = self.any_node() if node_id is None else node_id
        response = await self.send(asked, DescribeConfigsRequest(resources))
        for code, said, _kind, name, _entries in response.resources:
            if code != NONE and code not in UNKNOWN_TOPICS:
                raise error_of(code, f"the configs of topic {name} could not be read", said)
        return {name: entries for code, _said, _kind, name, entries in response.resources if code == NONE}

    async def close(self) -> None:
        """Close the connections; those that do not close at once are abandoned."""
        if self._client is not None:
            client, self._client = self._client, None
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(client.close(), _CLOSE_SECONDS)

    async def refresh(self, topics: Iterable[str], node_id: int | None = None) -> None:
        """Ask a broker, whichever or that one, for topics; those that it does not know are not known any more.

        Raises:
            BrokerUnavailableError: It does not answer.
            BrokerError: It refuses to tell.
        """
        response = await self.metadata(topics, node_id)
        found = {}
        for code, name, _internal, partitions in response.topics:
            if code == NONE:
                found[name] = {partition: leader for _code, partition, leader, *_ in partitions}
            elif code in UNKNOWN_TOPICS:
                self._topics.pop(name, None)
            else:
                raise error_of(code, f"topic {name} cannot be used")
        limits = await self._limits(found, node_id)
        for name, leaders in found.items():
            self._topics[name] = KnownTopic(leaders, limits.get(name, BATCH_BYTES_MAX))
            self._stale.discard(name)

    async def _limits(self, topics: Iterable[str], node_id: int | None) -> dict[str, int]:
        """Return the topics' `max.message.bytes`; who may not read configs lives with Kafka's default."""
        try:
            entries = await self.topic_configs(topics, ["max.message.bytes"], node_id)
        except BrokerUnavailableError:
            raise
        except BrokerError:
            return {}
        return {topic: int(entry[1]) for topic, (entry, *_) in entries.items()}


_CLOSE_SECONDS: Final = 2.0
