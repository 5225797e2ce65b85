"""Producer sessions: one for each opening of a producer, with the transaction that it may have open.

A session's lock orders its appends against whoever ends its transaction: its own producer, the successor that
fences it, or a reader that is held back and finds the session's lock file free because the holder is gone.

Lock order: `Sessions` opening lock, session lock, then coordinator or partition lock.
"""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from streamkit.broker.coordinator import Coordinator, Decision, fenced
from streamkit.broker.coordinator_records import (
    GroupOffset,
    TouchedPartition,
    TransactionCommitted,
    TransactionKey,
    group_offsets,
)
from streamkit.broker.partition import OpenTransaction, Partition
from streamkit.broker.protocols import Appended, CommittedOffset
from streamkit.errors import BrokerError, LogError
from streamkit.log.codec import ControlKind
from streamkit.records import TopicPartition
from streamkit.seams import Clock, File, FileSystem

__all__ = ["Session", "Sessions", "Transaction"]


@dataclass(slots=True)
class Transaction:
    """What one transaction has written so far, and what is left to mark. `failed` means that it can only abort."""

    number: int
    decision: Decision = field(default_factory=Decision)
    appended: dict[Partition, Appended] = field(default_factory=dict)
    offsets: dict[str, dict[TopicPartition, CommittedOffset]] = field(default_factory=dict)
    marker_offsets: dict[Partition, int] = field(default_factory=dict)
    failed: bool = False

    def markers_durable(self) -> bool:
        """Return whether every partition's marker survives a power cut."""
        return all(partition.survives(offset) for partition, offset in self.marker_offsets.items())

    def group_offsets(self) -> dict[str, list[GroupOffset]]:
        """Return the offsets as the commit record holds them."""
        return {group: group_offsets(offsets) for group, offsets in self.offsets.items()}


class Session:
    """One opened producer: its id, epoch, sequence numbers and open transaction."""

    def __init__(self, transactional_id: str | None, producer_id: int, producer_epoch: int) -> None:
        """Start with nothing open."""
        self.transactional_id = transactional_id
        self.producer_id, self.producer_epoch = producer_id, producer_epoch
        self.lock = threading.Lock()
        self.fenced = False
        self.transaction: Transaction | None = None
        self.appended: dict[Partition, Appended] = {}
        self.partitions: set[Partition] = set()
        self._transaction_count = 0
        self._holder: File | None = None

    def begin(self) -> None:
        """Open the next transaction.

        Raises:
            ProducerFencedError: A newer session has the id.
        """
        with self.lock:
            self._check_idle()
            self.transaction = Transaction(self._transaction_count)
            self._transaction_count += 1

    def check_idle(self) -> None:
        """Check that nothing is open.

        Raises:
            ProducerFencedError: A newer session has the id.
            BrokerError: A transaction is open.
        """
        with self.lock:
            self._check_idle()

    def append(self, partition: Partition, batches: Sequence[bytearray]) -> None:
        """Append to a partition, in the open transaction if the session has an id.

        Raises:
            ProducerFencedError: A newer session has the id; the transaction is gone.
        """
        with self.lock:
            self._check_not_fenced()
            transaction = self.transaction
            appended = self.appended if transaction is None else transaction.appended
            self.partitions.add(partition)
            first_offset, last_offset = partition.append(batches)
            earlier = appended.get(partition)
            base_offset = first_offset if earlier is None else earlier.base_offset
            appended[partition] = Appended(base_offset=base_offset, last_offset=last_offset)

    def check_open(self) -> Transaction:
        """Return the open transaction.

        Raises:
            ProducerFencedError: A newer session has the id; the transaction is gone.
            BrokerError: None is open.
        """
        with self.lock:
            self._check_not_fenced()
            if self.transaction is None:
                raise BrokerError("no transaction is open", hint="call begin() first")
            return self.transaction

    def commit_record(self, transaction: Transaction) -> TransactionCommitted:
        """Return the transaction's commit point."""
        return TransactionCommitted(
            producer_id=self.producer_id,
            producer_epoch=self.producer_epoch,
            transaction_number=transaction.number,
            partitions=[
                TouchedPartition(*partition.tp, partition.topic_id, appended.base_offset)
                for partition, appended in transaction.appended.items()
            ],
            offsets=transaction.group_offsets(),
        )

    def end(self, transaction: Transaction, coordinator: Coordinator, clock: Clock) -> None:
        """Write the markers that are still missing: commit if that was decided, else abort.

        Safe to repeat after an error, and from several threads: each partition gets one marker.
        """
        with self.lock:
            self._end(transaction, coordinator, clock)

    def fence(self, coordinator: Coordinator, clock: Clock) -> list[TopicPartition]:
        """Refuse everything from now on and end the open transaction; return the partitions it touched."""
        with self.lock:
            self.fenced = True
            transaction = self.transaction
            if transaction is None:
                return []
            self._end(transaction, coordinator, clock)
            return [partition.tp for partition in transaction.appended]

    def hold(self, holder: File | None) -> None:
        """Keep the session's lock file."""
        self._holder = holder

    def release(self) -> None:
        """Give the lock file back; doing so twice is fine."""
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def forget_sequences(self) -> None:
        """Let the partitions drop what they keep to notice a batch that is sent again."""
        for partition in self.partitions:
            partition.forget(self.producer_id, self.producer_epoch)
        self.partitions.clear()

    def _check_idle(self) -> None:
        self._check_not_fenced()
        if self.transaction is not None:
            raise BrokerError("a transaction is open already", hint="commit or abort it first")

    def _check_not_fenced(self) -> None:
        if self.fenced:
            raise fenced(self.transactional_id or "")

    def _end(self, transaction: Transaction, coordinator: Coordinator, clock: Clock) -> None:
        outcome = coordinator.decide_abort(transaction.decision)
        if outcome is ControlKind.COMMIT:
            coordinator.sync(transaction.decision)
        for partition in transaction.appended:
            if partition not in transaction.marker_offsets:
                transaction.marker_offsets[partition] = partition.append_marker(
                    outcome, self.producer_id, self.producer_epoch, timestamp_ms=clock.now_ms()
                )
        if outcome is ControlKind.COMMIT:
            key = TransactionKey(self.producer_id, self.producer_epoch, transaction.number)
            coordinator.marked(key, transaction.markers_durable)
        if self.transaction is transaction:
            self.transaction = None


class Sessions:
    """The sessions of this process, and the lock files that tell others whether their holders live."""

    def __init__(self, fs: FileSystem, directory: str, coordinator: Coordinator, clock: Clock) -> None:
        """Keep lock files in `directory`; those of dead processes are removed."""
        self._fs, self._directory = fs, directory
        self._coordinator, self._clock = coordinator, clock
        self._opening = threading.Lock()
        self._by_transactional_id: dict[str, Session] = {}
        self._by_producer_id: dict[int, Session] = {}
        fs.make_dirs(directory)
        for name in fs.list(directory):
            fs.remove(f"{directory}/{name}")

    def open(self, transactional_id: str | None) -> tuple[Session, list[TopicPartition]]:
        """Open a session; with an id, fence the predecessor and end its transaction.

        Returns:
            The session, and the partitions where the predecessor's transaction ended.
        """
        if transactional_id is None:
            return Session(None, self._coordinator.new_producer_id(), 0), []
        with self._opening:
            producer_id, producer_epoch = self._coordinator.open_epoch(transactional_id)
            predecessor = self._by_transactional_id.get(transactional_id)
            ended = predecessor.fence(self._coordinator, self._clock) if predecessor is not None else []
            session = Session(transactional_id, producer_id, producer_epoch)
            session.hold(self._fs.lock(self._holder_path(producer_id, producer_epoch)))
            self._by_transactional_id[transactional_id] = session
            self._by_producer_id[producer_id] = session
            return session, ended

    def end_if_abandoned(self, found: OpenTransaction) -> list[TopicPartition]:
        """End a transaction whose holder is gone; return the partitions where it ended, none if the holder lives."""
        session = self._by_producer_id.get(found.producer_id)
        if session is None or session.producer_epoch != found.producer_epoch:
            return []
        path = self._holder_path(found.producer_id, found.producer_epoch)
        holder = self._fs.lock(path)
        if holder is None:
            return []
        try:
            return session.fence(self._coordinator, self._clock)
        finally:
            holder.close()
            self._fs.remove(path)

    def end(self, session: Session, transaction: Transaction) -> None:
        """Write the transaction's missing markers: COMMIT if that was decided, else ABORT.

        Raises:
            LogError: A marker could not be written; the rest stays to be done.
        """
        session.end(transaction, self._coordinator, self._clock)

    def close(self, session: Session) -> list[TopicPartition]:
        """Give the session's id back: abort what it has open, drop its sequence numbers and its lock file.

        Returns:
            The partitions where a transaction ended. One that could not be ended now is ended by whoever meets it.
        """
        ended: list[TopicPartition] = []
        with contextlib.suppress(LogError):
            ended = session.fence(self._coordinator, self._clock)
        session.forget_sequences()
        if session.transactional_id is not None:
            session.release()
            with contextlib.suppress(OSError):
                self._fs.remove(self._holder_path(session.producer_id, session.producer_epoch))
        return ended

    def _holder_path(self, producer_id: int, producer_epoch: int) -> str:
        return f"{self._directory}/{producer_id}-{producer_epoch}.lock"
