"""Topics of a Kafka cluster and their offsets."""

import contextlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from aiokafka.protocol.admin import CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest

from streamkit.broker.kafka.client_thread import ClientThread, retried
from streamkit.broker.kafka.cluster import Cluster
from streamkit.broker.kafka.errors import NONE, OFFSET_OUT_OF_RANGE, UNKNOWN_TOPICS, error_of
from streamkit.broker.kafka.offsets import list_offsets, out_of_range
from streamkit.broker.protocols import LAST_STABLE, OffsetSpec, TopicDescription
from streamkit.broker.topics import INTERNAL_SUFFIXES, check_same, check_topic, unknown_topic
from streamkit.errors import BrokerUnavailableError, UnknownTopicError
from streamkit.records import TopicPartition

__all__ = ["KafkaAdmin"]

_HEARD_MS: Final = 5000
_EXISTS: Final = 36
_SET_ON_TOPIC: Final = 1
_OURS_TO_SET: Final = "min.insync.replicas"
"""Comes from the settings of a client, not from who creates a topic, so it is no difference between two configs."""


class KafkaAdmin:
    """Topics and their offsets; see the `Admin` protocol."""

    def __init__(self, thread: ClientThread, cluster: Cluster) -> None:
        """Ask when asked."""
        self._thread, self._cluster = thread, cluster
        self._timeout_ms = cluster.settings.request_timeout_ms

    def create_topic(self, name: str, partition_count: int, config: Mapping[str, str] | None = None) -> None:
        """Create a topic durably; return when it has leaders and every broker that answers knows of it.

        An existing one with the same count and config is fine. A broker that has not heard of it after 5 s is left to
        hear of it later.

        Raises:
            ConfigError: The name, count or config is not valid, or differs from the existing topic's.
            BrokerUnavailableError: No broker answers; the topic may be there.
        """
        asked = dict(config or {})
        check_topic(name, partition_count, asked)
        self._thread.run(self._create(name, partition_count, asked), 2 * self._timeout_ms + _HEARD_MS)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and its records; return when the broker asked has forgotten it, others may be a moment later.

        Raises:
            UnknownTopicError: There is none.
            BrokerUnavailableError: No broker answers; the topic may be gone.
        """
        self._thread.run(self._delete(name), 2 * self._timeout_ms)

    def describe_topics(self) -> Mapping[str, TopicDescription]:
        """Return all topics by name, without Kafka's own; of their configs those that were set on the topic."""
        return self._thread.run(retried(self._describe_all, self._timeout_ms), 2 * self._timeout_ms)

    def list_offsets(self, specs: Mapping[TopicPartition, OffsetSpec]) -> Mapping[TopicPartition, int]:
        """Return an offset for each partition.

        Raises:
            ConfigError: A spec is none.
            UnknownTopicError: A partition does not exist.
        """
        return self._thread.run(list_offsets(self._cluster, dict(specs)), 3 * self._timeout_ms)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Move the log start of each partition up to an offset.

        Raises:
            OffsetOutOfRangeError: An offset is above the last stable one. Nothing was deleted.
            UnknownTopicError: A partition does not exist.
        """
        self._thread.run(self._delete_records(dict(before)), 3 * self._timeout_ms)

    def log_id(self) -> str:
        """Return the cluster's id."""

        async def attempt() -> str:
            return str((await self._cluster.metadata([])).cluster_id)

        return self._thread.run(retried(attempt, self._timeout_ms), 2 * self._timeout_ms)

    async def _create(self, name: str, partition_count: int, config: dict[str, str]) -> None:
        settings = self._cluster.settings
        wanted = dict(config)
        if settings.min_insync_replicas is not None:
            wanted[_OURS_TO_SET] = str(settings.min_insync_replicas)
        topic: Any = name, partition_count, settings.replication_factor, [], list(wanted.items())

        async def attempt() -> None:
            existing = (await self._describe([name])).get(name)
            if existing is not None:
                own = {key: value for key, value in existing.config.items() if key != _OURS_TO_SET}
                check_same(replace(existing, config=own), partition_count, config)
                return
            request = CreateTopicsRequest([topic], settings.answer_timeout_ms, False)
            response = await self._cluster.send(self._cluster.any_node(), request)
            ((_name, code, said),) = response.topic_errors
            if code == _EXISTS:
                raise BrokerUnavailableError(f"topic {name} is being created by another client")
            if code != NONE:
                raise error_of(code, f"topic {name} could not be created", said)

        async def lead() -> None:
            self._cluster.forget([name])
            try:
                await self._cluster.leaders(TopicPartition(name, index) for index in range(partition_count))
            except UnknownTopicError as error:
                # It was made: whoever says so has not heard of it yet, such as a broker that was started just now.
                raise BrokerUnavailableError(f"not all brokers know topic {name} yet", detail=error.primary) from error

        async def heard() -> None:
            late = [node_id for node_id, count in (await self._cluster.everywhere(name)).items() if not count]
            if late:
                raise BrokerUnavailableError(f"Kafka broker {late[0]} has not heard of topic {name} yet")

        await retried(attempt, self._timeout_ms)
        with contextlib.suppress(BrokerUnavailableError):
            await retried(heard, _HEARD_MS)
        await retried(lead, self._timeout_ms)

    async def _delete(self, name: str) -> None:
        seen = False

        async def attempt() -> None:
            nonlocal seen
            if name not in await self._describe([name]):
                if not seen:
                    raise unknown_topic(f"topic {name}")
                return
            request = DeleteTopicsRequest([name], self._cluster.settings.answer_timeout_ms)
            response = await self._cluster.send(self._cluster.any_node(), request)
            ((_name, code),) = response.topic_error_codes
            if code not in {NONE, *UNKNOWN_TOPICS}:
                raise error_of(code, f"topic {name} could not be deleted")
            seen = True
            raise BrokerUnavailableError(f"topic {name} is still being deleted")

        await retried(attempt, self._timeout_ms)
        await retried(lambda: self._cluster.refresh([name]), self._timeout_ms)

    async def _describe_all(self) -> dict[str, TopicDescription]:
        return await self._describe(None)

    async def _describe(self, names: list[str] | None) -> dict[str, TopicDescription]:
        response = await self._cluster.metadata(names)
        counts = {
            name: len(partitions)
            for code, name, internal, partitions in response.topics
            if code not in UNKNOWN_TOPICS and not internal
        }
        configs: dict[str, list[Any]] = await self._cluster.topic_configs(counts)
        return {
            name: TopicDescription(
                name=name,
                partition_count=counts[name],
                config={key: value for key, value, _, source, *_ in entries if source == _SET_ON_TOPIC},
                internal=name.endswith(INTERNAL_SUFFIXES),
            )
            for name, entries in sorted(configs.items())
        }

    async def _delete_records(self, before: dict[TopicPartition, int]) -> None:
        stable = await list_offsets(self._cluster, dict.fromkeys(before, LAST_STABLE))
        for tp, offset in before.items():
            if offset > stable[tp]:
                raise await out_of_range(self._cluster, tp, offset)

        async def attempt() -> None:
            for node_id, tps in (await self._cluster.leaders(before)).items():
                topics = defaultdict[str, list[tuple[int, int]]](list)
                for tp in tps:
                    topics[tp.topic].append((tp.partition, before[tp]))
                request = DeleteRecordsRequest(list(topics.items()), self._cluster.settings.answer_timeout_ms)
                response = await self._cluster.send(node_id, request)
                for topic, partitions, *_ in response.topics:
                    for partition, _start_offset, code, *_ in partitions:
                        tp = TopicPartition(topic, partition)
                        if code == OFFSET_OUT_OF_RANGE:
                            raise await out_of_range(self._cluster, tp, before[tp])
                        if code != NONE:
                            self._cluster.forget([topic])
                            raise error_of(code, f"records of {tp} could not be deleted")

        await retried(attempt, self._timeout_ms)
