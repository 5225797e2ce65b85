"""One partition's head: what may be appended, and how far which reader may see.

The head (next offset, durable offset, open transactions) changes only under the partition's lock. Readers stop at
the durable offset, read-committed readers at the last stable one: the first offset of the earliest transaction that
is still open. Fsyncs and reads happen without the lock.

Not here: who may write (`coordinator`), which transactions committed (`coordinator`), files (`log`).
"""

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from streamkit.broker.protocols import Fetched, Isolation
from streamkit.broker.topics import unknown_topic
from streamkit.errors import LogError, OffsetOutOfRangeError, ProducerFencedError
from streamkit.log.codec import BatchHeader, ControlKind, control_batch, control_kind, parse_header
from streamkit.log.header import Compression
from streamkit.log.partition_log import PartitionLog
from streamkit.records import TopicPartition

__all__ = ["Aborted", "OpenTransaction", "Partition"]

RECENT_COUNT: Final = 5
SEQUENCE_MASK: Final = 2**31 - 1


class Aborted(NamedTuple):
    """The batches of an aborted transaction: those of the producer from the first offset to the marker's."""

    producer_id: int
    first_offset: int
    marker_offset: int


class OpenTransaction(NamedTuple):
    """A transaction without a marker in this partition."""

    producer_id: int
    producer_epoch: int
    first_offset: int


class _Recent(NamedTuple):
    base_sequence: int
    record_count: int
    first_offset: int
    last_offset: int


@dataclass(slots=True)
class _Sequence:
    """What one producer session appended last, so that a batch sent again is acknowledged and not appended."""

    producer_epoch: int
    next_sequence: int = 0
    recent: deque[_Recent] = field(default_factory=lambda: deque(maxlen=RECENT_COUNT))


class Partition:
    """One partition of the embedded log. All methods are safe from several threads."""

    def __init__(
        self,
        tp: TopicPartition,
        topic_id: str,
        log: PartitionLog,
        message_bytes_max: int,
        compression: Compression = "none",
    ) -> None:
        """Take an opened log; `recover` reads what its transactions left."""
        self.tp, self.topic_id, self.log = tp, topic_id, log
        self.message_bytes_max, self.compression = message_bytes_max, compression
        self._lock = threading.Lock()
        self._open: dict[int, OpenTransaction] = {}
        self._aborted: dict[int, list[Aborted]] = {}
        self._sequences: dict[int, _Sequence] = {}
        self._deleted = self._closed = False

    def recover(self, from_offset: int, aborted: Iterable[Aborted]) -> None:
        """Rebuild open and aborted transactions from the log.

        Args:
            from_offset: No transaction with records below it is open or lacks a durable marker.
            aborted: Every aborted transaction that began below `from_offset`.
        """
        for entry in aborted:
            self._note_aborted(entry)
        for header in self.log.scan(from_offset):
            if not header.transactional:
                continue
            if not header.control:
                self._note_open(header, header.base_offset)
            else:
                kind = control_kind(self._batch(header.base_offset))
                self._note_marker(header.producer_id, header.base_offset, kind)

    @property
    def start_offset(self) -> int:
        """The first offset that readers may ask for."""
        return self.log.start_offset

    @property
    def end_offset(self) -> int:
        """The durable end: everything below it survives a power cut."""
        return self.log.durable_offset

    @property
    def last_stable_offset(self) -> int:
        """Everything below it is durable and belongs to no open transaction."""
        with self._lock:
            return self._visible("read_committed")

    def open_transactions(self) -> list[OpenTransaction]:
        """Return the transactions that hold the last stable offset back, earliest first."""
        with self._lock:
            return list(self._open.values())

    def append(self, batches: Sequence[bytearray]) -> tuple[int, int]:
        """Append one producer's batches; return the first and last offset given out.

        The same batches sent once more are not appended again: the offsets they have are returned.

        Raises:
            ProducerFencedError: A batch of a later epoch of this producer was seen.
            LogError: A sequence number is missing in between, or the write failed. Nothing was appended.
            UnknownTopicError: The topic was deleted.
        """
        headers = [parse_header(batch) for batch in batches]
        with self._lock:
            self._check_alive()
            sequence = self._sequence_of(headers[0])
            known = self._appended_before(sequence, headers)
            if known is not None:
                return known
            first_offset, last_offset = self._write(batches)
            offset = first_offset
            for header in headers:
                sequence.recent.append(
                    _Recent(header.base_sequence, header.record_count, offset, offset + header.record_count - 1)
                )
                sequence.next_sequence = (header.base_sequence + header.record_count) & SEQUENCE_MASK
                offset += header.record_count
            if headers[0].transactional:
                self._note_open(headers[0], first_offset)
            return first_offset, last_offset

    def append_marker(self, kind: ControlKind, producer_id: int, producer_epoch: int, *, timestamp_ms: int) -> int:
        """End a producer's transaction here; return the marker's offset (the end offset if the topic is gone)."""
        marker = control_batch(kind, producer_id=producer_id, producer_epoch=producer_epoch, timestamp_ms=timestamp_ms)
        with self._lock:
            if self._deleted:
                return self.log.end_offset
            self._check_alive()
            offset, _ = self._write([marker])
            self._note_marker(producer_id, offset, kind)
            return offset

    @property
    def synced(self) -> bool:
        """Whether there is nothing to sync."""
        return self._deleted or self.log.synced

    def sync(self) -> None:
        """Make everything appended so far durable.

        Raises:
            LogError: The fsync failed, now or earlier.
        """
        try:
            self.log.sync(self.log.end_offset)
        except OSError as error:
            if not self._deleted:
                raise LogError(f"{self.tp} could not be synced", detail=str(error)) from error

    def acknowledge(self) -> None:
        """Show readers everything appended so far, durable or not; one thread calls this at a time.

        Raises:
            LogError: An fsync failed earlier.
        """
        try:
            self.log.acknowledge()
        except OSError as error:
            raise LogError(f"{self.tp} could not be synced", detail=str(error)) from error

    def survives(self, offset: int) -> bool:
        """Return whether the batch at `offset` survives a power cut, or does not matter any more."""
        return self._deleted or self.log.durable_offset > offset

    def forget(self, producer_id: int, producer_epoch: int) -> None:
        """Drop the sequence numbers of a session that has ended."""
        with self._lock:
            sequence = self._sequences.get(producer_id)
            if sequence is not None and sequence.producer_epoch == producer_epoch:
                del self._sequences[producer_id]

    def head(self) -> tuple[int, list[Aborted]]:
        """Return what `recover` needs to start later than at the log start, once this partition is synced."""
        with self._lock:
            stable_offset = next((entry.first_offset for entry in self._open.values()), self.log.end_offset)
            return stable_offset, [entry for entries in self._aborted.values() for entry in entries]

    def fetch(self, offset: int, isolation: Isolation, bytes_max: int) -> Fetched:
        """Return what the isolation level may see from `offset` on, control batches left out.

        Raises:
            OffsetOutOfRangeError: `offset` is before the log start or after the end.
            UnknownTopicError: The topic was deleted.
        """
        with self._lock:
            self._check_alive()
            start_offset, end_offset = self.log.start_offset, self.log.end_offset
            visible_offset = self._visible(isolation)
        if not start_offset <= offset <= end_offset:
            raise OffsetOutOfRangeError(
                f"offset {offset} of {self.tp} is out of range",
                detail=f"the log has {start_offset} to {end_offset}",
                hint="choose an offset that the topic still has",
            )
        batches: list[bytes] = []
        next_offset = offset
        if offset < visible_offset:
            for batch in self.log.read(offset, bytes_max=bytes_max, end=visible_offset):
                header = parse_header(batch)
                next_offset = header.last_offset + 1
                if not header.control and (isolation == "read_uncommitted" or not self._is_aborted(header)):
                    batches.append(batch)
        return Fetched(
            topic_partition=self.tp, record_batches=batches, next_offset=next_offset, end_offset=visible_offset
        )

    def offset_for_time(self, timestamp_ms: int) -> int:
        """Return the first durable offset whose timestamp is not below; the end offset if there is none."""
        found = self.log.offset_for_time(timestamp_ms)
        end_offset = self.end_offset
        return end_offset if found is None else min(found, end_offset)

    def delete_before(self, offset: int) -> None:
        """Move the log start up to `offset` and drop what is known of transactions below it."""
        with self._lock:
            self.log.delete_before(offset)
            for producer_id, entries in list(self._aborted.items()):
                kept = [entry for entry in entries if entry.marker_offset >= offset]
                if kept:
                    self._aborted[producer_id] = kept
                else:
                    del self._aborted[producer_id]

    def close(self, *, deleted: bool = False) -> None:
        """Close the files; a deleted partition refuses everything from now on."""
        with self._lock:
            self._deleted, self._closed = self._deleted or deleted, True
            self.log.close()

    def _check_alive(self) -> None:
        if self._deleted:
            raise unknown_topic(self.tp)
        if self._closed:
            raise LogError(f"the log of {self.tp} is closed")

    def _write(self, batches: Sequence[bytearray]) -> tuple[int, int]:
        try:
            return self.log.append(batches)
        except OSError as error:
            raise LogError(
                f"{self.tp} could not be written", detail=str(error), hint="nothing was acknowledged; free some space"
            ) from error

    def _visible(self, isolation: Isolation) -> int:
        durable_offset = self.log.durable_offset
        if isolation == "read_uncommitted" or not self._open:
            return durable_offset
        # Open transactions are kept in the order of their first offsets, because they were noted in log order.
        return min(durable_offset, next(iter(self._open.values())).first_offset)

    def _batch(self, offset: int) -> bytes:
        return self.log.read(offset, bytes_max=1, end=offset + 1)[0]

    def _note_open(self, header: BatchHeader, first_offset: int) -> None:
        if header.producer_id not in self._open:
            self._open[header.producer_id] = OpenTransaction(header.producer_id, header.producer_epoch, first_offset)

    def _note_marker(self, producer_id: int, offset: int, kind: ControlKind) -> None:
        ended = self._open.pop(producer_id, None)
        if ended is not None and kind is ControlKind.ABORT:
            self._note_aborted(Aborted(producer_id, ended.first_offset, offset))

    def _note_aborted(self, entry: Aborted) -> None:
        entries = self._aborted.setdefault(entry.producer_id, [])
        # A checkpoint names transactions whose markers the scan meets again.
        if not entries or entries[-1].marker_offset < entry.marker_offset:
            entries.append(entry)

    def _is_aborted(self, header: BatchHeader) -> bool:
        entries = self._aborted.get(header.producer_id) if header.transactional else None
        if not entries:
            return False
        index = bisect_left(entries, header.base_offset, key=lambda entry: entry.marker_offset)
        return index < len(entries) and entries[index].first_offset <= header.base_offset

    def _sequence_of(self, header: BatchHeader) -> _Sequence:
        sequence = self._sequences.get(header.producer_id)
        if sequence is None or sequence.producer_epoch < header.producer_epoch:
            sequence = self._sequences[header.producer_id] = _Sequence(header.producer_epoch)
        elif sequence.producer_epoch > header.producer_epoch:
            raise ProducerFencedError(
                f"{self.tp} has batches of epoch {sequence.producer_epoch} of producer {header.producer_id}",
                detail=f"a batch of epoch {header.producer_epoch} came after them",
            )
        return sequence

    def _appended_before(self, sequence: _Sequence, headers: Sequence[BatchHeader]) -> tuple[int, int] | None:
        """Return the offsets of batches that are here already, None if they are the next ones.

        Raises:
            LogError: They are neither.
        """
        expected = sequence.next_sequence
        if headers[0].base_sequence == expected:
            return None
        known = {(recent.base_sequence, recent.record_count): recent for recent in sequence.recent}
        again = [known.get((header.base_sequence, header.record_count)) for header in headers]
        found = [recent for recent in again if recent is not None]
        if len(found) == len(headers):
            return found[0].first_offset, found[-1].last_offset
        raise LogError(
            f"a record batch for {self.tp} is out of sequence",
            detail=f"producer {headers[0].producer_id}: expected {expected}, got {headers[0].base_sequence}",
            hint="throw this producer away: records of it are missing",
        )
