"""The coordinator: who may write under which epoch, and which transactions committed.

A transaction has one outcome, decided once, under the coordinator's lock::

    undecided ──▶ commit   a record in the transaction log; it is the commit point once it is synced
        └───────▶ abort    by its producer, by the successor that fences it, or by whoever finds its holder gone

Invariants: only the latest session of a transactional id can decide to commit (the check and the append are one
step); what is known of groups and epochs is the sum of the durable records, applied in their order.

Not here: data and markers (`partition`), the lock files of live producers (`log_directory`).
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from streamkit.broker.barriers import Barriers
from streamkit.broker.coordinator_log import CoordinatorLog
from streamkit.broker.coordinator_records import (
    CoordinatorRecord,
    CoordinatorState,
    OffsetsCommitted,
    ProducerIdsReserved,
    ProducerOpened,
    TransactionCommitted,
    TransactionKey,
    decode_record,
    encode_record,
    group_offsets,
)
from streamkit.broker.protocols import CommittedOffset
from streamkit.errors import CommitFailedError, ConfigError, CorruptBatchError, LogError, ProducerFencedError
from streamkit.log.codec import ControlKind
from streamkit.records import TopicPartition
from streamkit.seams import FileSystem

__all__ = ["Coordinator", "Decision", "check_offsets", "check_text", "fenced"]

METADATA_BYTES_MAX: Final = 4096
REWRITE_BYTES: Final = 16 * 1024 * 1024
PRODUCER_EPOCH_MAX: Final = 2**15 - 1
PRODUCER_IDS_RESERVED: Final = 1000


def fenced(transactional_id: str) -> ProducerFencedError:
    """Return the error for a producer that a newer one has replaced."""
    return ProducerFencedError(
        f"a newer producer has the transactional id {transactional_id!r}",
        detail="nothing that was not committed before is visible",
        hint="close this producer: its successor owns the task",
    )


def check_text(what: str, text: str) -> None:
    """Raise unless `text` is something that the log can hold.

    Raises:
        ConfigError: It is empty or has no UTF-8 form.
    """
    if not text or not _encodable(text):
        raise ConfigError(f"{what} cannot be {text[:80]!r}", hint="it takes text that is not empty")


def check_offsets(offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
    """Raise unless a group may commit these.

    Raises:
        ConfigError: An offset is negative, or a metadata note is above 4,096 bytes or has no UTF-8 form.
    """
    for tp, at in offsets.items():
        if at.offset < 0:
            raise ConfigError(f"the committed offset of {tp} cannot be {at.offset}")
        if not _encodable(at.metadata):
            raise ConfigError(f"the metadata committed with the offset of {tp} has no UTF-8 form")
        size_bytes = len(at.metadata.encode())
        if size_bytes > METADATA_BYTES_MAX:
            raise ConfigError(
                f"the metadata committed with the offset of {tp} has {size_bytes} bytes",
                hint=f"at most {METADATA_BYTES_MAX} bytes can be committed with an offset",
            )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(slots=True)
class Decision:
    """The outcome of one transaction, None while undecided; only the coordinator sets it, and only once.

    A commit is durable once the transaction log is synced up to `position`.
    """

    outcome: ControlKind | None = None
    position: int = 0


class Coordinator:
    """Decides over epochs, transactions and group offsets, one durable record each."""

    def __init__(self, fs: FileSystem, path: str) -> None:
        """Name the transaction log; `load` or `create` comes next."""
        self.log = CoordinatorLog(fs, path)
        self._path = path
        self._lock = threading.Lock()
        self._state = CoordinatorState()
        self._unapplied: deque[tuple[int, CoordinatorRecord]] = deque()
        self._marked: dict[TransactionKey, Callable[[], bool]] = {}
        self._epochs: dict[str, tuple[int, int]] = {}
        self._next_producer_id = 0
        self._reserved_below = 0
        self._reserve_position = 0
        self._rewrite_bytes = REWRITE_BYTES
        self._barriers: Barriers | None = None

    def create(self) -> None:
        """Make an empty transaction log."""
        self.log.rewrite([encode_record(record) for record in self._state.snapshot()])

    def load(self) -> None:
        """Read the transaction log.

        Raises:
            CorruptBatchError: It is damaged or missing. Nothing is changed.
        """
        try:
            bodies = self.log.load()
        except FileNotFoundError:
            bodies = []
        if not bodies:
            raise CorruptBatchError(
                "the transaction log is missing or empty", file=self._path, hint="restore it from a backup"
            )
        for body in bodies:
            self._state.apply(decode_record(body, self._path))
        self._next_producer_id = self._reserved_below = self._state.next_producer_id
        self._epochs = dict(self._state.producers)

    def close(self) -> None:
        """Close the log; closing twice does nothing."""
        self.log.close()

    def defer_syncs(self, barriers: Barriers) -> None:
        """From now on acknowledge what the operating system has; the barriers make it durable."""
        self._barriers, self.log.acknowledging = barriers, barriers.acknowledging

    def stop(self, error: Exception) -> None:
        """Refuse every commit from now on: an fsync of data failed, and it must not be tried again."""
        self.log.stop(error)

    def check_running(self) -> None:
        """Raise unless commits are possible.

        Raises:
            LogError: The log has stopped or is closed.
        """
        self.log.check_running()

    @property
    def unmarked(self) -> Mapping[TransactionKey, TransactionCommitted]:
        """Committed transactions whose markers may be missing from a partition."""
        return self._state.unmarked

    def log_start(self, topic_id: str, partition: int) -> int:
        """Return the offset below which the partition's records were deleted."""
        return self._state.log_starts.get((topic_id, partition), 0)

    def committed(self, group: str) -> dict[TopicPartition, CommittedOffset]:
        """Return the durable offsets of a group."""
        with self._lock:
            return dict(self._state.groups.get(group, {}))

    def write(self, record: CoordinatorRecord) -> None:
        """Make one record durable and let it take effect.

        Raises:
            LogError: It could not be written (it is not there) or synced (the log has stopped).
        """
        with self._lock:
            position = self._append(record)
        self._settle(position)

    def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Commit a group's offsets durably, outside a transaction."""
        self.write(OffsetsCommitted(group=group, offsets=group_offsets(offsets)))

    def new_producer_id(self) -> int:
        """Return a producer id that was never given out."""
        with self._lock:
            producer_id, position = self._take_producer_id()
        self._settle(position)
        return producer_id

    def open_epoch(self, transactional_id: str) -> tuple[int, int]:
        """Return producer id and epoch for a new session; every earlier session of the id is fenced for good.

        Durable before it returns, and so is the commit record of every transaction decided before.
        """
        with self._lock:
            producer_id, producer_epoch = self._epochs.get(transactional_id, (-1, PRODUCER_EPOCH_MAX))
            if producer_epoch == PRODUCER_EPOCH_MAX:
                producer_id, producer_epoch = self._take_producer_id()[0], -1
            producer_epoch += 1
            position = self._append(
                ProducerOpened(
                    transactional_id=transactional_id, producer_id=producer_id, producer_epoch=producer_epoch
                )
            )
            self._epochs[transactional_id] = (producer_id, producer_epoch)
        self._settle(position)
        return producer_id, producer_epoch

    def is_current(self, transactional_id: str, epoch: tuple[int, int]) -> bool:
        """Return whether no newer session has the id."""
        return self._epochs.get(transactional_id) == epoch

    def commit(self, transactional_id: str, decision: Decision, record: TransactionCommitted) -> None:
        """Decide to commit and write the commit point, if nothing else was decided and the session is the latest.

        Raises:
            ProducerFencedError: It is not. Nothing was written.
            LogError: The record could not be written. The transaction is undecided.
            CommitFailedError: It could not be synced. The outcome is unknown until the log is opened again.
        """
        with self._lock:
            current = self.is_current(transactional_id, (record.producer_id, record.producer_epoch))
            if not current or decision.outcome is not None:
                raise fenced(transactional_id)
            position = self._append(record)
            decision.outcome, decision.position = ControlKind.COMMIT, position
        try:
            self._settle(position)
        except LogError as error:
            raise CommitFailedError(
                "whether the transaction committed is unknown",
                detail=str(error),
                hint="open the log again and read the committed offsets",
            ) from error

    def decide_abort(self, decision: Decision) -> ControlKind:
        """Decide to abort unless something was decided before; return the outcome.

        A commit returned from here may not be durable yet; `sync` makes it so.
        """
        with self._lock:
            if decision.outcome is None:
                decision.outcome = ControlKind.ABORT
            return decision.outcome

    def sync(self, decision: Decision) -> None:
        """Return once a decision is durable."""
        self._settle(decision.position)

    def marked(self, key: TransactionKey, durable: Callable[[], bool]) -> None:
        """Take note that a transaction's commit markers are written; `durable` tells whether they are synced."""
        with self._lock:
            if key in self._state.unmarked:
                self._marked[key] = durable

    def rewrite(self, *, all_marked: bool = False) -> None:
        """Shorten the log to what still matters.

        Args:
            all_marked: Every committed transaction's markers are durable (at open, after they were rolled forward).
        """
        with self._lock:
            if all_marked:
                self._state.unmarked.clear()
            self._rewrite()

    def _append(self, record: CoordinatorRecord) -> int:
        position = self.log.append(encode_record(record))
        self._unapplied.append((position, record))
        return position

    def _settle(self, position: int) -> None:
        self.log.sync(position)
        with self._lock:
            self._apply_durable()
            if self.log.size_bytes > self._rewrite_bytes:
                self._try_rewrite()

    def _apply_durable(self) -> None:
        # In the order of the log, not in the order in which threads come back from the sync.
        while self._unapplied and self._unapplied[0][0] <= self.log.durable_position:
            self._state.apply(self._unapplied.popleft()[1])

    def _try_rewrite(self) -> None:
        try:
            self._rewrite()
        except LogError:
            # What brought us here is durable; that the log could not be shortened must not call it failed.
            self._rewrite_bytes = 2 * self.log.size_bytes

    def _rewrite(self) -> None:
        self.log.sync(self.log.end_position)
        self._apply_durable()
        for key in [key for key, durable in self._marked.items() if durable()]:
            del self._marked[key]
            del self._state.unmarked[key]
        # A marker that allowed us to drop its commit point was appended by now, so the barrier holds it.
        with contextlib.nullcontext() if self._barriers is None else self._barriers.rewriting():
            self.log.rewrite([encode_record(record) for record in self._state.snapshot()])
        self._rewrite_bytes = max(REWRITE_BYTES, 2 * self.log.size_bytes)

    def _take_producer_id(self) -> tuple[int, int]:
        """Return a new producer id, and the log position that must be durable before it is used."""
        producer_id = self._next_producer_id
        if producer_id == self._reserved_below:
            reserved_below = producer_id + PRODUCER_IDS_RESERVED
            self._reserve_position = self._append(ProducerIdsReserved(next_producer_id=reserved_below))
            self._reserved_below = reserved_below
        self._next_producer_id += 1
        return producer_id, self._reserve_position
