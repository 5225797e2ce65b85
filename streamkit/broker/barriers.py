"""Barriers: with durability `os`, what makes durable, every second, what was acknowledged without an fsync.

A barrier notes where the transaction log and all partitions end, syncs them, and puts these ends into the file
`barrier`. While the ends are noted nothing is acknowledged, so they are a moment of the log: what anybody was told, and
built on, lies before them if and only if what it was built from does. A power cut takes the log back to such a moment.

Not here: taking it back (`barrier_file`).
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from streamkit.broker.barrier_file import BarrierFile, Ends, PartitionEnd
from streamkit.broker.coordinator_log import CoordinatorLog
from streamkit.broker.partition import Partition
from streamkit.errors import LogError
from streamkit.records import TopicPartition
from streamkit.seams import Clock

__all__ = ["Barriers"]

INTERVAL_MS: Final = 1000


class Barriers:
    """Writes the barriers of one log directory. All methods are safe from several threads.

    Lock order: the coordinator's, then the one of barriers, then the gate.
    """

    def __init__(
        self,
        file: BarrierFile,
        clock: Clock,
        transactions: CoordinatorLog,
        partitions: Mapping[TopicPartition, Partition],
        sync: Callable[[Iterable[Partition]], None],
    ) -> None:
        """Take what there is to make durable; `sync` brings partitions to the disk.

        Until `start` is called, whoever acknowledges writes the barrier that is due.
        """
        self._file, self._clock, self._transactions = file, clock, transactions
        self._partitions, self._sync = partitions, sync
        self._lock = threading.Lock()
        self._gate = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._number = 0
        self._ends: Ends | None = None
        self._written_ms = clock.monotonic_ms()

    def start(self) -> None:
        """Write barriers in a thread from now on."""
        self._thread = threading.Thread(target=self._run, name="streamkit-barriers", daemon=True)
        self._thread.start()

    def acknowledge(self, partitions: Iterable[Partition]) -> None:
        """Show readers everything that was appended to the partitions.

        Raises:
            LogError: An fsync failed, now or earlier, and the log has stopped; or it is closed.
        """
        with self.acknowledging():
            try:
                for partition in partitions:
                    partition.acknowledge()
            except LogError as error:
                self._transactions.stop(error)
                raise

    @contextlib.contextmanager
    def acknowledging(self) -> Iterator[None]:
        """Within, something is acknowledged, and no barrier notes where things end.

        Raises:
            LogError: A barrier was due and failed, so the log has stopped; or the log is closed.
        """
        if self._thread is None:
            self._write_if_due()
        with self._gate:
            if self._closing.is_set():
                raise LogError("the log is closed")
            yield

    @contextlib.contextmanager
    def rewriting(self) -> Iterator[None]:
        """Within, the holder of the coordinator's lock replaces the transaction log by one that says the same.

        The barrier before takes the whole file for durable, be it the old one or the new; nothing is appended to it
        until the barrier after.
        """
        with self._lock:
            self._write(whole_log=True)
            try:
                yield
            finally:
                self._write()

    def write(self) -> None:
        """Make durable everything that was acknowledged.

        Raises:
            LogError: An fsync or the barrier failed, now or earlier. The log has stopped.
        """
        with self._lock:
            self._write()

    def close(self) -> None:
        """Stop acknowledging and write the last barrier.

        Raises:
            LogError: It failed.
        """
        with self._gate:
            self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self.write()

    def _run(self) -> None:
        # A barrier that fails has stopped the log, and whoever uses the log is told.
        with contextlib.suppress(LogError):
            while not self._clock.wait(self._closing, INTERVAL_MS):
                self.write()

    def _write_if_due(self) -> None:
        due = self._clock.monotonic_ms() - self._written_ms >= INTERVAL_MS
        # Whoever is at it already may wait for a lock that our caller holds.
        if due and self._lock.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._lock.release()

    def _write(self, *, whole_log: bool = False) -> None:
        self._transactions.check_running()
        self._written_ms = self._clock.monotonic_ms()
        with self._gate:
            partitions = list(self._partitions.values())
            ends = Ends(
                transactions_bytes=None if whole_log else self._transactions.size_bytes,
                partitions=[PartitionEnd(part.topic_id, part.tp.partition, *part.log.place) for part in partitions],
            )
        if ends == self._ends:
            return
        try:
            self._sync(partitions)
            self._transactions.sync_file()
            self._file.write(self._number + 1, ends)
        except (LogError, OSError) as error:
            self._transactions.stop(error)
            raise LogError("a barrier could not be written", detail=str(error)) from error
        self._number, self._ends = self._number + 1, ends
