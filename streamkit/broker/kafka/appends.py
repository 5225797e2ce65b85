"""The record batches of one producer on their way to the leaders; on the client's loop.

In each partition one batch is under way at a time, so that a batch which must be sent again has nothing behind it, and
what was refused can be taken back with all that followed: sequence numbers have no gaps, whatever happens. The heads of
all partitions go out together, one request to each leader.

A batch is sent again as it is, with its sequence number; the broker knows it by that and appends it once.

Source: KIP-98; reliability rule D3.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from aiokafka.protocol.produce import ProduceRequest

from streamkit.broker.kafka.client_thread import retried
from streamkit.broker.kafka.cluster import Cluster
from streamkit.broker.kafka.errors import DUPLICATE_SEQUENCE, NONE, error_of
from streamkit.broker.kafka.transactions import TransactionCoordinator, by_topic
from streamkit.broker.protocols import Appended
from streamkit.errors import BrokerUnavailableError, CommitFailedError, RecordTooLargeError, StreamkitError
from streamkit.log.codec import ProducerStamp, encode, parse_header
from streamkit.log.header import Compression
from streamkit.records import EncodedRecords, TopicPartition

__all__ = ["Appends", "Unsent", "encoded"]

_ALL_REPLICAS: Final = -1
_NO_OFFSET: Final = -1
_REQUEST_BYTES_MAX: Final = 32 * 2**20
_LINGER_SECONDS: Final = 0.001
"""How long the first batch of a transaction waits for others: a commit sends to all its partitions within it."""


class Unsent(NamedTuple):
    """One encoded record batch, not known to be appended."""

    batch: bytearray
    base_sequence: int
    record_count: int


def encoded(
    to: TopicPartition, records: EncodedRecords, stamp: ProducerStamp, *, bytes_max: int, compression: Compression
) -> list[Unsent]:
    """Return the record batches of some records.

    Raises:
        RecordTooLargeError: A record is larger than the `bytes_max` of its topic.
    """
    try:
        batches = encode(records, stamp=stamp, batch_bytes_max=bytes_max, compression=compression)
    except RecordTooLargeError as error:
        raise RecordTooLargeError(
            error.index,
            size_bytes=error.size_bytes,
            limit_bytes=error.limit_bytes,
            value=error.value,
            place=str(to),
        ) from error
    headers = [parse_header(batch) for batch in batches]
    return [
        Unsent(batch, header.base_sequence, header.record_count) for batch, header in zip(batches, headers, strict=True)
    ]


class Appends:
    """What one producer has sent and what has become of it.

    `failure` is the first error that further attempts did not mend; nothing is sent after it. Outside of a transaction
    leaders that did not answer are asked again by the next call.
    """

    def __init__(
        self, cluster: Cluster, transactional_id: str | None, coordinator: TransactionCoordinator, connection: int
    ) -> None:
        """Send nothing yet."""
        self._cluster, self._transactional_id = cluster, transactional_id
        self._coordinator, self._connection = coordinator, connection
        self._queues: dict[TopicPartition, deque[Unsent]] = {}
        self._draining: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._stopping = False
        self._in_doubt: set[TopicPartition] = set()
        self.queued_bytes = 0
        self.joined: set[TopicPartition] = set()
        self.appended: dict[TopicPartition, Appended] = {}
        self.failure: StreamkitError | None = None

    def put(self, tp: TopicPartition, unsent: Sequence[Unsent]) -> None:
        """Queue batches behind what is queued for the partition, and begin to send."""
        self._queues.setdefault(tp, deque()).extend(unsent)
        self.queued_bytes += sum(len(one.batch) for one in unsent)
        self._hurry.clear()
        self._go_on()

    async def settle(self) -> None:
        """Return when everything queued was appended, or something failed."""
        self._go_on()
        self._hurry.set()
        if self._draining is not None:
            await asyncio.shield(self._draining)

    async def take_back(self) -> dict[TopicPartition, int]:
        """Stop sending and forget what is queued; return the sequence number at which each partition goes on.

        Raises:
            BrokerUnavailableError: A batch is in the log or not: no further number is right. Nothing is forgotten.
        """
        self._stopping = True
        await self.settle()
        if self._in_doubt:
            raise BrokerUnavailableError(f"records for {min(self._in_doubt)} may have been appended or not")
        sequences = {tp: queue[0].base_sequence for tp, queue in self._queues.items()}
        self._queues.clear()
        self.queued_bytes = 0
        self.failure, self._stopping = None, False
        return sequences

    def take_appended(self) -> dict[TopicPartition, Appended]:
        """Return what was appended since this was asked last."""
        appended, self.appended = self.appended, {}
        return appended

    def _go_on(self) -> None:
        """Send what is queued, unless that is under way or of no use."""
        if self._transactional_id is None and isinstance(self.failure, BrokerUnavailableError):
            # Outside of a transaction there is nothing to abort: the same batches are sent until a leader is back.
            self.failure = None
        if self._queues and self._draining is None and self.failure is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            if self._transactional_id is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), _LINGER_SECONDS)
            while self._queues and not self._stopping:
                await retried(self._round, self._cluster.settings.request_timeout_ms)
        except StreamkitError as error:
            self.failure = error
        finally:
            self._draining = None

    async def _round(self) -> None:
        """Send the head of each partition, as many as one request may carry."""
        if self._stopping:
            return
        heads = self._heads()
        if self._transactional_id is not None:
            new = heads.keys() - self.joined
            if new:
                await self._coordinator.add_partitions(sorted(new))
                self.joined |= new
        try:
            by_node = await self._cluster.leaders(heads)
            requests = [self._produce(node_id, {tp: heads[tp] for tp in tps}) for node_id, tps in by_node.items()]
            outcomes = await asyncio.gather(*requests, return_exceptions=True)
        except BrokerUnavailableError:
            self._cluster.forget({tp.topic for tp in heads})
            raise
        failures = [outcome for outcome in outcomes if outcome is not None]
        # What cannot be mended is told before what can.
        for failure in sorted(failures, key=lambda failure: isinstance(failure, BrokerUnavailableError)):
            self._cluster.forget({tp.topic for tp in heads})
            raise failure

    def _heads(self) -> dict[TopicPartition, Unsent]:
        heads: dict[TopicPartition, Unsent] = {}
        size_bytes = 0
        for tp, queue in self._queues.items():
            size_bytes += len(queue[0].batch)
            if heads and size_bytes > _REQUEST_BYTES_MAX:
                break
            heads[tp] = queue[0]
        return heads

    async def _produce(self, node_id: int, heads: Mapping[TopicPartition, Unsent]) -> None:
        topics = by_topic({tp: (tp.partition, bytes(unsent.batch)) for tp, unsent in heads.items()})
        timeout_ms = self._cluster.settings.answer_timeout_ms
        request = ProduceRequest(self._transactional_id, _ALL_REPLICAS, timeout_ms, topics)
        self._in_doubt |= heads.keys()
        response = await self._cluster.send(node_id, request, connection=self._connection)
        failures: list[StreamkitError] = []
        for topic, partitions in response.topics:
            for partition, code, offset, *_ in partitions:
                tp = TopicPartition(topic, partition)
                if code not in (NONE, DUPLICATE_SEQUENCE):
                    failures.append(error_of(code, f"records for {tp} were not appended"))
                    if not isinstance(failures[-1], BrokerUnavailableError):
                        self._in_doubt.discard(tp)
                elif offset == _NO_OFFSET:
                    failures.append(
                        CommitFailedError(f"records for {tp} were appended before, at an offset no longer known")
                    )
                else:
                    self._note(tp, offset)
        for failure in sorted(failures, key=lambda failure: isinstance(failure, BrokerUnavailableError)):
            raise failure

    def _note(self, tp: TopicPartition, offset: int) -> None:
        """Take the head of a partition for appended at `offset`."""
        queue = self._queues[tp]
        unsent = queue.popleft()
        if not queue:
            del self._queues[tp]
        self._in_doubt.discard(tp)
        self.queued_bytes -= len(unsent.batch)
        before = self.appended.get(tp)
        base_offset = offset if before is None else before.base_offset
        self.appended[tp] = Appended(base_offset=base_offset, last_offset=offset + unsent.record_count - 1)
