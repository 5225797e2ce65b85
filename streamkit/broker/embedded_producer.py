"""The embedded log's producer: three steps to a commit.

1. sync the transaction's data in every partition that it touched;
2. write its commit point into the transaction log and sync that: from here on it is committed, whatever happens;
3. append the commit markers, which move the last stable offsets; they are derived, and need no sync.
"""

import weakref
from collections.abc import Mapping

from streamkit.broker.coordinator import check_offsets, check_text
from streamkit.broker.log_directory import LogDirectory
from streamkit.broker.partition import SEQUENCE_MASK, Partition
from streamkit.broker.protocols import Appended, CommittedOffset
from streamkit.broker.sessions import Transaction
from streamkit.errors import BrokerError, CommitFailedError, LogError, RecordTooLargeError
from streamkit.log.codec import ProducerStamp, encode
from streamkit.records import EncodedRecords, TopicPartition

__all__ = ["EmbeddedProducer"]


class EmbeddedProducer:
    """Appends to the embedded log; see the `Producer` protocol."""

    def __init__(self, directory: LogDirectory, transactional_id: str | None) -> None:
        """Open a session; with an id, fence the predecessor and end its transaction."""
        self._directory = directory
        self._session, ended = directory.sessions.open(transactional_id)
        directory.news.announce(ended)
        self._transactional = transactional_id is not None
        self._sequences: dict[Partition, int] = {}
        self._unsynced_bytes = 0
        self._closed = False
        self._outcome_unknown = False
        # A producer that nobody can close any more gives its lock file back, so that its transaction can be ended.
        weakref.finalize(self, self._session.release).atexit = False

    def committed(self, group: str, place: TopicPartition) -> Mapping[TopicPartition, CommittedOffset]:  # noqa: ARG002  # Kafka needs it
        """Return a group's committed offsets; `place` is of no use here.

        Raises:
            ProducerFencedError: A newer producer has the id.
            BrokerError: A transaction is open, or the producer has no transactional id.
        """
        self._check_usable(transactional=True)
        self._session.check_idle()
        return self._directory.coordinator.committed(group)

    def begin(self) -> None:
        """Open a transaction.

        Raises:
            ProducerFencedError: A newer producer has the id.
            BrokerError: One is open already, or the producer has no transactional id.
        """
        self._check_usable(transactional=True)
        self._session.begin()

    def send(self, to: TopicPartition, records: EncodedRecords) -> None:
        """Append records, in order; after an error the transaction can only be aborted.

        Raises:
            RecordTooLargeError: A record exceeds the topic's limit. Nothing of this call was appended.
            ProducerFencedError: A newer producer has the id. The transaction is gone.
            LogError: The file system refused. Nothing of this call was appended.
            UnknownTopicError: The partition does not exist.

        Cost: one write a record batch; no sync.
        """
        self._check_usable()
        transaction = self._session.check_open() if self._transactional else None
        try:
            self._append(self._directory.partition(to), records)
        except Exception:
            if transaction is not None:
                transaction.failed = True
            raise

    def send_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Make the group's offsets a part of the open transaction.

        Raises:
            ConfigError: An offset or its metadata is not valid.
            ProducerFencedError: A newer producer has the id. The transaction is gone.
            UnknownTopicError: A partition does not exist.
        """
        self._check_usable(transactional=True)
        transaction = self._session.check_open()
        check_text("a group's name", group)
        check_offsets(offsets)
        for tp in offsets:
            self._directory.partition(tp)
        transaction.offsets.setdefault(group, {}).update(offsets)

    def commit(self) -> Mapping[TopicPartition, Appended]:
        """Make the transaction durable and visible, all or nothing.

        Raises:
            ProducerFencedError: A newer producer has the id. Nothing of the transaction is visible.
            CommitFailedError: A send failed, so the transaction must be aborted; or the outcome is unknown.
            LogError: Its data could not be synced, or the commit point not written: it is not committed.

        Cost: one fsync for each partition touched, several at a time, then one for the transaction log.
        """
        self._check_usable(transactional=True)
        transaction = self._session.check_open()
        if transaction.failed:
            raise CommitFailedError("a send of this transaction failed", hint="abort it and begin another")
        if transaction.appended or transaction.offsets:
            self._directory.sync(transaction.appended)
            self._decide(transaction)
        try:
            self._directory.sessions.end(self._session, transaction)
        except LogError as error:
            self._outcome_unknown = True
            raise CommitFailedError(
                "the transaction is committed, but not visible yet: a marker could not be written",
                detail=str(error),
                hint="open a new producer with the same id: it writes the markers that are missing",
            ) from error
        finally:
            self._directory.news.announce([partition.tp for partition in transaction.appended])
        self._note_synced()
        return {partition.tp: appended for partition, appended in transaction.appended.items()}

    def abort(self) -> None:
        """Make everything sent since `begin` invisible to read-committed readers.

        Raises:
            ProducerFencedError: A newer producer has the id. The transaction was ended for it.
            LogError: A marker could not be written. Abort again, or open a new producer.
        """
        self._check_usable(transactional=True)
        transaction = self._session.check_open()
        try:
            self._directory.sessions.end(self._session, transaction)
        finally:
            self._directory.news.announce([partition.tp for partition in transaction.appended])

    def flush(self) -> Mapping[TopicPartition, Appended]:
        """Return once everything sent since the last flush is durable.

        Raises:
            LogError: An fsync failed; nothing more is acknowledged.
            BrokerError: The producer is transactional.
        """
        self._check_usable(transactional=False)
        appended = dict(self._session.appended)
        self._directory.sync(appended)
        for partition in appended:
            del self._session.appended[partition]
        self._directory.news.announce([partition.tp for partition in appended])
        self._note_synced()
        return {partition.tp: written for partition, written in appended.items()}

    def close(self) -> None:
        """Abort an open transaction (or flush, without an id) and give the id back; closing twice does nothing."""
        if self._closed:
            return
        try:
            if self._session.appended:
                self.flush()
        finally:
            self._closed = True
            self._directory.news.announce(self._directory.sessions.close(self._session))

    def _append(self, partition: Partition, records: EncodedRecords) -> None:
        if not len(records):
            return
        session, base_sequence = self._session, self._sequences.get(partition, 0)
        stamp = ProducerStamp(
            producer_id=session.producer_id,
            producer_epoch=session.producer_epoch,
            base_sequence=base_sequence,
            transactional=self._transactional,
        )
        try:
            batches = encode(
                records,
                stamp=stamp,
                batch_bytes_max=partition.message_bytes_max,
                compression=partition.compression,
            )
        except RecordTooLargeError as error:
            raise RecordTooLargeError(
                error.index,
                size_bytes=error.size_bytes,
                limit_bytes=error.limit_bytes,
                value=error.value,
                place=str(partition.tp),
            ) from error
        session.append(partition, batches)
        self._sequences[partition] = (base_sequence + len(records)) & SEQUENCE_MASK
        self._unsynced_bytes += sum(map(len, batches))

    def _decide(self, transaction: Transaction) -> None:
        transactional_id = self._session.transactional_id
        assert transactional_id is not None
        record = self._session.commit_record(transaction)
        try:
            self._directory.coordinator.commit(transactional_id, transaction.decision, record)
        except CommitFailedError:
            self._outcome_unknown = True
            raise

    def _note_synced(self) -> None:
        self._directory.note_appended(self._unsynced_bytes)
        self._unsynced_bytes = 0

    def _check_usable(self, *, transactional: bool | None = None) -> None:
        if self._closed:
            raise BrokerError("the producer is closed")
        if self._outcome_unknown:
            raise CommitFailedError(
                "the outcome of an earlier commit is unknown",
                hint="throw this producer away, open a new one with the same id, and read the committed offsets",
            )
        if transactional is not None and transactional is not self._transactional:
            needs = "needs" if transactional else "must have no"
            raise BrokerError(f"this call {needs} a transactional id")
