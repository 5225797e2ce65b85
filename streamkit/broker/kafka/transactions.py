"""The coordinators' side of a transaction: who writes, which partitions and offsets belong to it, how it ends.

Every request but one may be sent again: it says the same again. The one that ends a transaction is never sent again
once a copy may have left without an answer, because a late copy could end the next transaction.

Source: KIP-98; reliability rules D1, D4.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka.client import CoordinationType
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)

from streamkit.broker.kafka.client_thread import retried
from streamkit.broker.kafka.cluster import Cluster
from streamkit.broker.kafka.errors import NONE, error_of
from streamkit.broker.kafka.offsets import committed_offsets
from streamkit.broker.protocols import CommittedOffset
from streamkit.errors import BrokerUnavailableError, CommitFailedError
from streamkit.records import TopicPartition

__all__ = ["TransactionCoordinator", "by_topic"]


class TransactionCoordinator:
    """Speaks for one producer; on the client's loop."""

    def __init__(self, cluster: Cluster, transactional_id: str | None, connection: int) -> None:
        """Ask nothing yet; `producer_id` and `producer_epoch` are known after `init`."""
        self._cluster, self._connection = cluster, connection
        # None goes on the wire as it is; aiokafka's annotations do not know that.
        self._transactional_id: Any = transactional_id
        self._timeout_ms = cluster.settings.request_timeout_ms
        self.producer_id = self.producer_epoch = -1

    async def init(self) -> None:
        """Get a producer id and epoch; with a transactional id, once the predecessor's transaction has ended.

        Raises:
            BrokerUnavailableError: No coordinator answers within the deadline, or the transaction does not end.
        """
        settings = self._cluster.settings
        request = InitProducerIdRequest(self._transactional_id, settings.transaction_timeout_ms)
        who = f"transactional id {self._transactional_id}" if self._transactional_id else "a producer"

        async def attempt() -> None:
            if self._transactional_id is None:
                response = await self._cluster.send(self._cluster.any_node(), request, connection=self._connection)
            else:
                response = await self._to_coordinator(request)
            self._check(response.error_code, f"{who} could not be opened")
            self.producer_id, self.producer_epoch = response.producer_id, response.producer_epoch

        await retried(attempt, self._timeout_ms)

    async def add_partitions(self, tps: Iterable[TopicPartition]) -> None:
        """Make partitions a part of the transaction, before anything is sent to them; makes one attempt.

        Raises:
            BrokerUnavailableError: Not now, such as while the transaction before is being ended: ask again.
            ProducerFencedError: A newer producer has the id.
        """
        topics = by_topic({tp: tp.partition for tp in tps})
        request = AddPartitionsToTxnRequest(self._transactional_id, self.producer_id, self.producer_epoch, topics)
        response = await self._to_coordinator(request)
        for topic, partitions in response.errors:
            for partition, code in partitions:
                self._check(code, f"{topic}-{partition} could not be added to the transaction")

    async def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Make a group's offsets a part of the transaction.

        Raises:
            BrokerUnavailableError: A coordinator does not answer within the deadline.
            ProducerFencedError: A newer producer has the id.
        """

        async def attempt() -> None:
            async with self._cluster.at_coordinator(CoordinationType.GROUP, group) as node_id:
                await self._commit_offsets(node_id, group, offsets)

        await retried(lambda: self._add_group(group), self._timeout_ms)
        await retried(attempt, self._timeout_ms)

    async def committed_offsets(self, group: str, place: TopicPartition) -> dict[TopicPartition, CommittedOffset]:
        """Return a group's committed offsets, with all that its coordinator's log had before this call.

        A coordinator answers from what it knows to be replicated. After an outage of all brokers it knows less than
        its log has, until something is written, and answers with older offsets (Kafka's leaders refuse such reads,
        KIP-207; its coordinators do not). So an offset is written behind all others; once that is acknowledged, the
        same broker, if it still is the coordinator, knows everything before it. Its transaction is aborted.

        Raises:
            BrokerUnavailableError: No coordinator that is known to have caught up. The transaction may be open.
            CommitFailedError: As from `end`.
            ProducerFencedError: A newer producer has the id.
        """

        async def attempt() -> dict[TopicPartition, CommittedOffset]:
            async with self._cluster.at_coordinator(CoordinationType.GROUP, group) as node_id:
                await self._commit_offsets(node_id, group, {place: CommittedOffset(offset=0)})
                return await committed_offsets(self._cluster, node_id, group, connection=self._connection)

        await retried(lambda: self._add_group(group), self._timeout_ms)
        committed = await retried(attempt, self._timeout_ms)
        await self.end(commit=False)
        return committed

    async def end(self, *, commit: bool) -> None:
        """End the transaction.

        Raises:
            CommitFailedError: There was no answer: it has ended, or will be ended by its timeout.
            BrokerUnavailableError: The coordinator did not do it within the deadline; it is still open.
            ProducerFencedError: A newer producer has the id, or the transaction took longer than its timeout.
        """
        request = EndTxnRequest(self._transactional_id, self.producer_id, self.producer_epoch, commit)
        what = f"the transaction of {self._transactional_id} could not be {'committed' if commit else 'aborted'}"

        async def attempt() -> None:
            node_id = await self._coordinator()
            try:
                await self._cluster.connect(node_id, self._connection)
            except BrokerUnavailableError:
                self._forget_coordinator()
                raise
            try:
                response = await self._cluster.send(node_id, request, connection=self._connection)
            except BrokerUnavailableError as error:
                raise CommitFailedError(
                    f"the outcome of the transaction of {self._transactional_id} is unknown",
                    detail=error.detail or error.primary,
                    hint="open a new producer with the same id, and read the committed offsets",
                ) from error
            self._check(response.error_code, what)

        await retried(attempt, self._timeout_ms)

    async def _add_group(self, group: str) -> None:
        request = AddOffsetsToTxnRequest(self._transactional_id, self.producer_id, self.producer_epoch, group)
        response = await self._to_coordinator(request)
        self._check(response.error_code, f"group {group} could not be added to the transaction")

    async def _commit_offsets(
        self, node_id: int, group: str, offsets: Mapping[TopicPartition, CommittedOffset]
    ) -> None:
        topics = by_topic({tp: (tp.partition, at.offset, at.metadata) for tp, at in offsets.items()})
        request = TxnOffsetCommitRequest(self._transactional_id, group, self.producer_id, self.producer_epoch, topics)
        response = await self._cluster.send(node_id, request, connection=self._connection)
        for topic, partitions in response.errors:
            for partition, code in partitions:
                if code != NONE:
                    raise error_of(code, f"the offset of {topic}-{partition} could not be committed for {group}")

    async def _coordinator(self) -> int:
        assert self._transactional_id is not None, "only transactions have a coordinator"
        return await self._cluster.coordinator(CoordinationType.TRANSACTION, self._transactional_id)

    def _forget_coordinator(self) -> None:
        if self._transactional_id is not None:
            self._cluster.forget_coordinator(CoordinationType.TRANSACTION, self._transactional_id)

    async def _to_coordinator(self, request: Any) -> Any:
        assert self._transactional_id is not None, "only transactions have a coordinator"
        async with self._cluster.at_coordinator(CoordinationType.TRANSACTION, self._transactional_id) as node_id:
            return await self._cluster.send(node_id, request, connection=self._connection)

    def _check(self, code: int, what: str) -> None:
        if code in _MOVED:
            self._forget_coordinator()
        if code != NONE:
            raise error_of(code, what)


_MOVED: Final = frozenset({14, 15, 16})


def by_topic(values: Mapping[TopicPartition, Any]) -> list[tuple[str, list[Any]]]:
    """Return values as Kafka's requests want them: a list for each topic."""
    topics = defaultdict[str, list[Any]](list)
    for tp, value in values.items():
        topics[tp.topic].append(value)
    return list(topics.items())
