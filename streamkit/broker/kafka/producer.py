"""Kafka's producer behind the `Producer` protocol: what is sent here is encoded here, and every answer is looked at.

A transaction, from `begin` to the end::

    begin           nothing is sent
    send            batches are queued; partitions join the transaction, then the batches go out
    send_offsets    nothing is sent
    commit          all batches are appended, or nothing further happens; then the offsets; then the end

A producer whose requests may have been done without an answer is dead: it refuses everything. Its successor, opened
with the same id, ends what it left.

Source: KIP-98; reliability rules D1, D3, D4, D5.
"""

import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from streamkit.broker.coordinator import check_offsets, check_text
from streamkit.broker.kafka.appends import Appends, encoded
from streamkit.broker.kafka.client_thread import ClientThread, retried
from streamkit.broker.kafka.cluster import Cluster
from streamkit.broker.kafka.transactions import TransactionCoordinator
from streamkit.broker.protocols import Appended, CommittedOffset
from streamkit.errors import (
    BrokerError,
    BrokerUnavailableError,
    CommitFailedError,
    ProducerFencedError,
    StreamkitError,
)
from streamkit.log.codec import ProducerStamp
from streamkit.records import EncodedRecords, TopicPartition

__all__ = ["KafkaProducer"]

T = TypeVar("T")

_CLOSE_MS: Final = 2000
_QUEUED_BYTES_MAX: Final = 32 * 2**20
_SEQUENCE_MASK: Final = 2**31 - 1


class KafkaProducer:
    """Appends to Kafka; see the `Producer` protocol."""

    def __init__(self, thread: ClientThread, cluster: Cluster, transactional_id: str | None, connection: int) -> None:
        """Get a producer id; with a transactional id, fence the predecessor and end its transaction.

        Raises:
            BrokerUnavailableError: No coordinator answers within the deadline.
        """
        self._thread, self._cluster, self._transactional_id = thread, cluster, transactional_id
        self._timeout_ms = cluster.settings.request_timeout_ms
        self._coordinator = TransactionCoordinator(cluster, transactional_id, connection)
        self._run(self._coordinator.init())
        self._appends = Appends(cluster, transactional_id, self._coordinator, connection)
        self._sequences: dict[TopicPartition, int] = {}
        self._offsets: dict[str, dict[TopicPartition, CommittedOffset]] = {}
        self._open = self._send_failed = self.closed = False
        self._ended: StreamkitError | None = None

    def committed(self, group: str, place: TopicPartition) -> Mapping[TopicPartition, CommittedOffset]:
        """Return a group's committed offsets, with all that was committed before this call.

        Raises:
            ProducerFencedError: A newer producer has the id.
            BrokerUnavailableError: No answer within the deadline: throw this producer away. No offset was changed.
        """
        self._check_usable(transactional=True)
        self._check_idle()
        try:
            return self._run(self._coordinator.committed_offsets(group, place))
        except CommitFailedError as error:
            # Nothing was to be committed, so the outcome that is unknown does not matter.
            self._ended = BrokerUnavailableError(error.primary, detail=error.detail, hint=error.hint)
            raise self._ended from error
        except StreamkitError as error:
            self._ended = error
            raise

    def begin(self) -> None:
        """Open a transaction; Kafka hears of it with the first record."""
        self._check_usable(transactional=True)
        self._check_idle()
        self._open, self._send_failed = True, False

    def send(self, to: TopicPartition, records: EncodedRecords) -> None:
        """Append records, in order; what goes wrong on the way is raised by a later call, `commit` at the latest.

        Raises:
            RecordTooLargeError: A record exceeds the topic's limit. Nothing of this call is appended.
            ProducerFencedError: A newer producer has the id, as an earlier send was told.
            UnknownTopicError: The partition does not exist.
            CommitFailedError: As from `flush`.
            BrokerError: An earlier send failed.

        Cost: encoding; waits only when more than 32 MiB are queued, and then raises what `flush` would.
        """
        self._check_usable()
        if self._transactional_id is not None:
            self._check_open()
        try:
            if self._transactional_id is not None or not isinstance(self._appends.failure, BrokerUnavailableError):
                self._check_failure()
            self._append(to, records)
        except StreamkitError:
            self._send_failed = True
            raise

    def send_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Make the group's offsets a part of the open transaction; Kafka hears of them at the commit."""
        self._check_usable(transactional=True)
        self._check_open()
        check_text("a group's name", group)
        check_offsets(offsets)
        if any(self._cluster.known(tp) is None for tp in offsets):
            self._learn(list(offsets))
        self._offsets.setdefault(group, {}).update(offsets)

    def commit(self) -> Mapping[TopicPartition, Appended]:
        """Make the transaction durable and visible, all or nothing; readers see it a few ms after this returns.

        Raises:
            ProducerFencedError: A newer producer has the id, or the transaction took longer than its timeout. Nothing
                of it is visible.
            CommitFailedError: A send failed, so the transaction must be aborted; or the outcome is unknown.

        Cost: one request to each leader, two for each group, one to end it.
        """
        self._check_usable(transactional=True)
        self._check_open()
        if self._send_failed:
            raise CommitFailedError("a send of this transaction failed", hint="abort it and begin another")
        try:
            self._run(self._commit())
        except (ProducerFencedError, CommitFailedError) as error:
            if not self._send_failed:
                self._ended = error
            raise
        except StreamkitError as error:
            self._ended = _unknown(error)
            raise self._ended from error
        self._forget_transaction()
        return self._appends.take_appended()

    def abort(self) -> None:
        """Make everything sent since `begin` invisible to read-committed readers.

        Raises:
            ProducerFencedError: A newer producer has the id. The transaction was ended for it.
            CommitFailedError: There was no answer: throw this producer away; its successor, or the timeout, ends it.
        """
        self._check_usable(transactional=True)
        self._check_open()
        try:
            self._run(self._abort())
        except (ProducerFencedError, CommitFailedError) as error:
            self._ended = error
            raise
        except StreamkitError as error:
            self._ended = _unknown(error)
            raise self._ended from error

    def flush(self) -> Mapping[TopicPartition, Appended]:
        """Return once everything sent since the last flush is durable.

        Raises:
            BrokerUnavailableError: A leader does not answer within the deadline. What was sent stays queued.
            CommitFailedError: Kafka has lost count of this producer, by trouble or because it was long idle: throw it
                away and send again what was not flushed, with another; some may be there twice.
            BrokerError: Kafka refused records: throw this producer away. Or it is transactional.
        """
        self._check_usable(transactional=False)
        self._run(self._appends.settle())
        self._check_failure()
        return self._appends.take_appended()

    def close(self) -> None:
        """Abort an open transaction within 2 s (or flush, without an id); closing twice does nothing.

        A transaction that cannot be aborted in time is ended by the next producer of its id, or by its timeout.
        """
        if self.closed:
            return
        try:
            if self._transactional_id is None and self._ended is None:
                self.flush()
            else:
                with contextlib.suppress(StreamkitError):
                    self._thread.run(self.give_up(), _CLOSE_MS)
        finally:
            self.closed = True

    async def give_up(self) -> None:
        """Abort an open transaction, or wait for what was sent; on the client's loop, for the broker that closes."""
        if self.closed or self._ended is not None:
            return
        if self._transactional_id is None:
            await self._appends.settle()
        elif self._open:
            await self._abort()

    def _append(self, to: TopicPartition, records: EncodedRecords) -> None:
        topic = self._cluster.known(to)
        if topic is None:
            self._learn([to])
            topic = self._cluster.known(to)
            assert topic is not None, "it was learned"
        if not len(records):
            return
        base_sequence = self._sequences.get(to, 0)
        stamp = ProducerStamp(
            producer_id=self._coordinator.producer_id,
            producer_epoch=self._coordinator.producer_epoch,
            base_sequence=base_sequence,
            transactional=self._transactional_id is not None,
        )
        unsent = encoded(
            to, records, stamp, bytes_max=topic.message_bytes_max, compression=self._cluster.settings.compression_type
        )
        self._sequences[to] = (base_sequence + len(records)) & _SEQUENCE_MASK
        self._thread.post(lambda: self._appends.put(to, unsent))
        if self._appends.queued_bytes > _QUEUED_BYTES_MAX:
            self._run(self._appends.settle())
            self._check_failure()

    async def _commit(self) -> None:
        await self._appends.settle()
        failure = self._appends.failure
        if failure is not None:
            if isinstance(failure, ProducerFencedError | BrokerUnavailableError):
                raise failure
            self._send_failed = True
            raise CommitFailedError(
                "a send of this transaction failed", detail=str(failure), hint="abort it and begin another"
            ) from failure
        for group, offsets in self._offsets.items():
            await self._coordinator.commit_offsets(group, offsets)
        if self._appends.joined or self._offsets:
            await self._coordinator.end(commit=True)

    async def _abort(self) -> None:
        failure = self._appends.failure
        self._sequences |= await self._appends.take_back()
        self._appends.take_appended()
        if isinstance(failure, ProducerFencedError):
            raise failure
        if self._appends.joined:
            await self._coordinator.end(commit=False)
        self._forget_transaction()

    def _forget_transaction(self) -> None:
        self._appends.joined.clear()
        self._offsets.clear()
        self._open = self._send_failed = False

    def _learn(self, tps: Sequence[TopicPartition]) -> None:
        self._run(retried(lambda: self._cluster.learn(tps), self._timeout_ms))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._thread.run(coroutine, 2 * self._timeout_ms)

    def _check_failure(self) -> None:
        """Raise what became of earlier sends; a fence or an unknown outcome ends this producer."""
        failure = self._appends.failure
        if failure is None:
            return
        lasting = self._transactional_id is None and not isinstance(failure, BrokerUnavailableError)
        if lasting or isinstance(failure, ProducerFencedError):
            self._ended = failure
        raise failure

    def _check_open(self) -> None:
        if not self._open:
            raise BrokerError("no transaction is open", hint="call begin first")

    def _check_idle(self) -> None:
        if self._open:
            raise BrokerError("a transaction is open already", hint="commit or abort it first")

    def _check_usable(self, *, transactional: bool | None = None) -> None:
        if self.closed:
            raise BrokerError("the producer is closed")
        if self._ended is not None:
            raise self._ended
        if transactional is not None and transactional is not (self._transactional_id is not None):
            needs = "needs" if transactional else "must have no"
            raise BrokerError(f"this call {needs} a transactional id")


def _unknown(error: StreamkitError) -> CommitFailedError:
    return CommitFailedError(
        "the outcome of the transaction is unknown",
        detail=str(error),
        hint="throw this producer away, open a new one with the same id, and read the committed offsets",
    )
