"""Asks the leaders of partitions for offsets, and coordinators for those that their groups have committed."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.offset import OffsetRequest

from streamkit.broker.kafka.client_thread import retried
from streamkit.broker.kafka.cluster import SHARED, Cluster
from streamkit.broker.kafka.errors import NONE, error_of
from streamkit.broker.protocols import EARLIEST, LAST_STABLE, LATEST, CommittedOffset, OffsetSpec
from streamkit.errors import BrokerUnavailableError, ConfigError, OffsetOutOfRangeError
from streamkit.records import TopicPartition

__all__ = ["committed_offsets", "list_offsets", "out_of_range"]

_CONSUMER: Final = -1
_NOT_FOUND: Final = -1
_NO_OFFSET: Final = -1
_UNCOMMITTED, _COMMITTED = 0, 1


async def list_offsets(cluster: Cluster, specs: Mapping[TopicPartition, OffsetSpec]) -> dict[TopicPartition, int]:
    """Return an offset for each partition; a timestamp beyond the last record gives the end offset.

    Raises:
        ConfigError: A spec is none.
        UnknownTopicError: A partition does not exist.
        BrokerUnavailableError: A leader does not answer within the deadline.
    """
    for spec in specs.values():
        if spec < LAST_STABLE:
            raise ConfigError(
                f"{spec} is not an offset spec", hint="EARLIEST, LATEST, LAST_STABLE or a timestamp in ms"
            )
    stable = {tp: LATEST for tp, spec in specs.items() if spec == LAST_STABLE}
    others = {tp: spec for tp, spec in specs.items() if spec != LAST_STABLE}
    offsets = await _ask(cluster, others, _UNCOMMITTED) | await _ask(cluster, stable, _COMMITTED)
    beyond = {tp: LATEST for tp, offset in offsets.items() if offset == _NOT_FOUND}
    return offsets | await _ask(cluster, beyond, _UNCOMMITTED)


async def committed_offsets(
    cluster: Cluster, node_id: int, group: str, *, connection: int = SHARED
) -> dict[TopicPartition, CommittedOffset]:
    """Return what one broker, as the group's coordinator, tells of its committed offsets; makes one attempt.

    Raises:
        BrokerUnavailableError: It does not answer, or is not the coordinator.
    """
    response = await cluster.send(node_id, OffsetFetchRequest(group, None), connection=connection)
    if response.error_code != NONE:
        raise error_of(response.error_code, f"the committed offsets of {group} could not be read")
    committed = {}
    for topic, partitions in response.topics:
        for partition, offset, metadata, code in partitions:
            tp = TopicPartition(topic, partition)
            if code != NONE:
                raise error_of(code, f"the committed offset of {tp} could not be read")
            if offset != _NO_OFFSET:
                committed[tp] = CommittedOffset(offset=offset, metadata=metadata or "")
    return committed


async def out_of_range(cluster: Cluster, tp: TopicPartition, position: int) -> OffsetOutOfRangeError:
    """Return the error for a position that a partition does not have."""
    start_offset = (await list_offsets(cluster, {tp: EARLIEST}))[tp]
    end_offset = (await list_offsets(cluster, {tp: LATEST}))[tp]
    return OffsetOutOfRangeError(
        f"offset {position} of {tp} is out of range",
        detail=f"the log has {start_offset} to {end_offset}",
        hint="choose an offset that the topic still has",
    )


async def _ask(
    cluster: Cluster, specs: Mapping[TopicPartition, OffsetSpec], isolation: int
) -> dict[TopicPartition, int]:
    """Return offsets as Kafka tells them, -1 where there is none."""
    offsets: dict[TopicPartition, int] = {}

    async def attempt() -> None:
        try:
            by_node = await cluster.leaders(tp for tp in specs if tp not in offsets)
            answers = await asyncio.gather(*(ask(node_id, tps) for node_id, tps in by_node.items()))
        except BrokerUnavailableError:
            cluster.forget({tp.topic for tp in specs})
            raise
        for answer in answers:
            offsets.update(answer)

    async def ask(node_id: int, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        topics = defaultdict[str, list[tuple[int, int]]](list)
        for tp in tps:
            topics[tp.topic].append((tp.partition, specs[tp]))
        response = await cluster.send(node_id, OffsetRequest(_CONSUMER, isolation, list(topics.items())))
        found = {}
        for topic, partitions in response.topics:
            for partition, code, _timestamp_ms, offset in partitions:
                tp = TopicPartition(topic, partition)
                if code != NONE:
                    raise error_of(code, f"the offsets of {tp} could not be read")
                found[tp] = offset
        return found

    if specs:
        await retried(attempt, cluster.settings.request_timeout_ms)
    return offsets
