"""Committed offsets of a consumer group, outside of transactions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiokafka.client import CoordinationType
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetCommitRequest

from streamkit.broker.assignment import distinct_members
from streamkit.broker.coordinator import check_offsets
from streamkit.broker.kafka.client_thread import ClientThread, retried
from streamkit.broker.kafka.cluster import Cluster
from streamkit.broker.kafka.errors import NONE, error_of
from streamkit.broker.kafka.membership import ASSIGNOR, member_of, tasks_of
from streamkit.broker.kafka.offsets import committed_offsets
from streamkit.broker.kafka.transactions import by_topic
from streamkit.broker.protocols import CommittedOffset, Member
from streamkit.errors import BrokerUnavailableError
from streamkit.records import TopicPartition

__all__ = ["KafkaGroup"]


class KafkaGroup:
    """Committed offsets of one group; see the `Group` protocol."""

    def __init__(self, thread: ClientThread, cluster: Cluster, name: str) -> None:
        """Ask when asked."""
        self._thread, self._cluster, self._name = thread, cluster, name
        self._timeout_ms = cluster.settings.request_timeout_ms

    def committed(self) -> Mapping[TopicPartition, CommittedOffset]:
        """Return the group's committed offsets; what a transaction that is being ended commits is not among them yet.

        Raises:
            BrokerUnavailableError: The coordinator does not answer within the deadline.
        """
        return self._thread.run(retried(self._committed, self._timeout_ms), 2 * self._timeout_ms)

    def commit(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Commit offsets durably outside a transaction.

        Raises:
            ConfigError: An offset or its metadata is not valid. Nothing was committed.
            UnknownTopicError: A partition does not exist. Nothing was committed.
            BrokerError: The group has members, which alone may commit.
            BrokerUnavailableError: The coordinator does not answer within the deadline; they may be committed.
        """
        check_offsets(offsets)
        if not offsets:
            return
        topics = by_topic({tp: (tp.partition, at.offset, at.metadata) for tp, at in offsets.items()})
        request = OffsetCommitRequest(
            self._name,
            OffsetCommitRequest.DEFAULT_GENERATION_ID,
            "",
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            topics,
        )

        async def attempt() -> None:
            await self._cluster.learn(offsets)
            response = await self._send(request)
            for topic, partitions in response.topics:
                for partition, code in partitions:
                    self._check(code, f"the offset of {topic}-{partition} could not be committed for {self._name}")

        self._thread.run(retried(attempt, self._timeout_ms), 2 * self._timeout_ms)

    def members(self) -> Sequence[Member]:
        """Return the members with the tasks that each was assigned, none during a rebalance.

        Members of other kinds, such as a console's consumer, are left out.

        Raises:
            BrokerUnavailableError: The coordinator does not answer within the deadline.
        """
        return self._thread.run(retried(self._members, self._timeout_ms), 2 * self._timeout_ms)

    async def _members(self) -> list[Member]:
        response = await self._send(DescribeGroupsRequest([self._name]))
        (described,) = response.groups
        code, _, state, _, protocol, members = described[:6]
        self._check(code, f"the members of {self._name} could not be read")
        if state != "Stable" or protocol != ASSIGNOR:
            return []
        metadata = {key: member_of(data) for key, _, _, data, _ in members}
        named = distinct_members(metadata)
        return [replace(named[key], tasks=tasks_of(data)) for key, _, _, _, data in members]

    async def _committed(self) -> dict[TopicPartition, CommittedOffset]:
        async with self._cluster.at_coordinator(CoordinationType.GROUP, self._name) as node_id:
            return await committed_offsets(self._cluster, node_id, self._name)

    async def _send(self, request: OffsetCommitRequest | DescribeGroupsRequest) -> Any:
        async with self._cluster.at_coordinator(CoordinationType.GROUP, self._name) as node_id:
            return await self._cluster.send(node_id, request)

    def _check(self, code: int, what: str) -> None:
        if code != NONE:
            error = error_of(code, what)
            if isinstance(error, BrokerUnavailableError):
                self._cluster.forget_coordinator(CoordinationType.GROUP, self._name)
            raise error
