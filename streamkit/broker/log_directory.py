"""A log directory at work: its topics, partitions, coordinator and producer sessions.

::

    DIR/LOCK               held by the one process that uses the directory
    DIR/log_id             the log's identity; written last when a log is made
    DIR/topics             names, ids, counts, configs
    DIR/transactions.log   epochs, commit points, group offsets (docs/formats/coordinator_log.md)
    DIR/checkpoint         from where to read partitions at open
    DIR/barrier            only with durability `os`: what survives a power cut (docs/formats/barrier.md)
    DIR/producers/         lock files of live transactional producers
    DIR/TOPIC-PARTITION/   segments

An fsync that fails anywhere stops the whole directory: nothing is acknowledged after it.

With durability `fsync` whatever is acknowledged is durable. With `os` it is what the operating system has, and
`barriers` make it durable; wherever the next step relies on the disk, a barrier comes first.

Not here: the doors that users see (`embedded`), what opening does to a log that a crash left (`recovery`).
"""

import contextlib
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, TypeAlias

from streamkit.broker.barrier_file import BarrierFile
from streamkit.broker.barriers import Barriers
from streamkit.broker.checkpoint import PartitionCheckpoint, read_checkpoint, write_checkpoint
from streamkit.broker.coordinator import Coordinator
from streamkit.broker.coordinator_records import LogStartMoved, TopicForgotten
from streamkit.broker.news import News
from streamkit.broker.partition import Partition
from streamkit.broker.recovery import end_open_transactions, open_log_id, open_partition
from streamkit.broker.sessions import Sessions
from streamkit.broker.topics import Topic, TopicTable, unknown_topic
from streamkit.errors import LogError, LogLockedError, OffsetOutOfRangeError
from streamkit.records import TopicPartition
from streamkit.seams import Clock, File, FileSystem, Rng

__all__ = ["Durability", "LogDirectory"]

Durability: TypeAlias = Literal["fsync", "os"]

CHECKPOINT_BYTES: Final = 256 * 1024 * 1024


class LogDirectory:
    """Everything that one process holds of a log directory."""

    def __init__(
        self, fs: FileSystem, path: str, *, clock: Clock, rng: Rng, sync_threads_count: int, durability: Durability
    ) -> None:
        """Lock, open and recover the directory, or make it.

        Args:
            fs: Where it is.
            path: The directory.
            clock: Gives the timestamps of control markers.
            rng: Gives the ids of the log and its topics.
            sync_threads_count: How many partitions are synced at a time; 0 syncs them one after the other in
                the thread that asks, so that a simulation runs the same each time.
            durability: Whether `sync` waits for the disk (`fsync`) or for barriers to bring it there (`os`).

        Raises:
            LogLockedError: Another process uses the directory.
            CorruptBatchError: Something that was acknowledged is damaged. Nothing was cut.
            LogError: The file system refused.
        """
        self._fs, self.path, self.clock, self._rng = fs, path, clock, rng
        self.news = News()
        self._admin_lock = threading.Lock()
        self._checkpoint_lock = threading.Lock()
        self._appended_bytes = 0
        self._partitions: dict[TopicPartition, Partition] = {}
        self._pool = ThreadPoolExecutor(sync_threads_count, "streamkit-sync") if sync_threads_count else None
        self._durability = durability
        self._barriers: Barriers | None = None
        self.coordinator = Coordinator(fs, f"{path}/transactions.log")
        self._lock_file: File | None = self._take_lock()
        try:
            self._open()
        except OSError as error:
            self._release()
            raise LogError(f"the log directory {path} could not be opened", detail=str(error)) from error
        except BaseException:
            self._release()
            raise

    def topic(self, name: str) -> Topic:
        """Return a topic.

        Raises:
            UnknownTopicError: There is none of that name.
        """
        topic = self._topics.get(name)
        if topic is None:
            raise unknown_topic(f"topic {name}")
        return topic

    def topics(self) -> list[Topic]:
        """Return all topics, sorted by name."""
        return self._topics.all()

    def partition(self, tp: TopicPartition) -> Partition:
        """Return a partition.

        Raises:
            UnknownTopicError: It does not exist.
        """
        partition = self._partitions.get(tp)
        if partition is None:
            topic = self.topic(tp.topic)
            raise unknown_topic(f"partition {tp.partition} of topic {tp.topic} (it has {topic.partition_count})")
        return partition

    def create_topic(self, name: str, partition_count: int, config: Mapping[str, str]) -> None:
        """Create a topic durably; an existing one with the same count and config is fine.

        Raises:
            ConfigError: It is not valid, or differs from the existing topic.
            LogError: The file system refused; the topic is not there.
        """
        with self._admin_lock:
            self.coordinator.check_running()
            if self._topics.check_new(name, partition_count, config) is not None:
                return
            self._remove_unfinished()
            for index in range(partition_count):
                directory = self._partition_path(name, index)
                if self._fs.list(directory):
                    raise LogError(f"{directory} holds files of no topic", hint="move them out of the way")
            topic = Topic(name=name, topic_id=self._rng.token(), partition_count=partition_count, config=dict(config))
            self._topics.put(topic.as_unfinished())
            opened: list[Partition] = []
            try:
                for index in range(partition_count):
                    opened.append(self._open_partition(topic, index, None))  # noqa: PERF401  # on an error these are closed
                self._topics.put(topic)
            except (LogError, OSError) as error:
                for partition in opened:
                    partition.close()
                raise LogError(f"topic {name} could not be created", detail=str(error)) from error
            self._partitions.update({partition.tp: partition for partition in opened})

    def delete_topic(self, name: str) -> None:
        """Delete a topic, its records and every group's offsets in it.

        Raises:
            UnknownTopicError: There is none.
        """
        with self._admin_lock:
            topic = self.topic(name)
            self.coordinator.check_running()
            # What was made of these records must not be lost when they are gone.
            self._make_durable(())
            self._topics.put(topic.as_unfinished())
            gone = [tp for tp in self._partitions if tp.topic == name]
            for tp in gone:
                self._partitions.pop(tp).close(deleted=True)
            self.news.announce(gone)
            self._remove_unfinished()

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Move log starts up, durably; one at or below the log start changes nothing.

        Raises:
            UnknownTopicError: A partition does not exist. Nothing was deleted.
            OffsetOutOfRangeError: An offset is beyond the last stable one. Nothing was deleted.
        """
        partitions = {tp: self.partition(tp) for tp in before}
        for tp, partition in partitions.items():
            if before[tp] > partition.last_stable_offset:
                raise OffsetOutOfRangeError(
                    f"records of {tp} cannot be deleted up to offset {before[tp]}",
                    detail=f"its last stable offset is {partition.last_stable_offset}",
                    hint="delete only what is committed",
                )
        # A transaction whose records are deleted must not need its commit point again.
        self._make_durable(partitions.values())
        with self._admin_lock:
            moved = {tp: partition for tp, partition in partitions.items() if before[tp] > partition.start_offset}
            for tp, partition in moved.items():
                self.coordinator.write(
                    LogStartMoved(topic_id=partition.topic_id, partition=tp.partition, offset=before[tp])
                )
            self._make_durable(())
            for tp, partition in moved.items():
                partition.delete_before(before[tp])

    def end_abandoned(self, partitions: Iterable[TopicPartition]) -> bool:
        """End the transactions that hold these partitions back and whose producers are gone; return whether any did."""
        ended = [
            tp
            for held in partitions
            for found in self.partition(held).open_transactions()
            for tp in self.sessions.end_if_abandoned(found)
        ]
        self.news.announce(ended)
        return bool(ended)

    def note_appended(self, size_bytes: int) -> None:
        """Count what was appended, and write a checkpoint when it is much, so that the next open stays short."""
        self._appended_bytes += size_bytes
        if self._appended_bytes < CHECKPOINT_BYTES or not self._checkpoint_lock.acquire(blocking=False):
            return
        try:
            self._appended_bytes = 0
            with contextlib.suppress(LogError, OSError):
                # Whose append brought us here is acknowledged, and a checkpoint only saves time.
                self._checkpoint()
        finally:
            self._checkpoint_lock.release()

    def sync(self, partitions: Iterable[Partition]) -> None:
        """Return once everything appended to the partitions may be acknowledged.

        It is durable then, or with durability `os` the next barrier will make it so.

        Raises:
            LogError: An fsync failed, now or earlier. The directory has stopped: nothing is acknowledged any more.
        """
        if self._barriers is None:
            self._sync_to_disk(partitions)
            return
        self.coordinator.check_running()
        self._barriers.acknowledge(partitions)

    def _make_durable(self, partitions: Iterable[Partition]) -> None:
        """Make the partitions durable, several at a time; with durability `os` everything."""
        if self._barriers is None:
            self._sync_to_disk(partitions)
        else:
            self._barriers.write()

    def _sync_to_disk(self, partitions: Iterable[Partition]) -> None:
        self.coordinator.check_running()
        waiting = [partition for partition in partitions if not partition.synced]
        try:
            if self._pool is None or len(waiting) < 2:
                for partition in waiting:
                    partition.sync()
            else:
                for done in [self._pool.submit(partition.sync) for partition in waiting]:
                    done.result()
        except LogError as error:
            self.coordinator.stop(error)
            raise

    def close(self) -> None:
        """Sync everything, write a checkpoint, close all files and give the lock back."""
        if self._lock_file is None:
            return
        try:
            with contextlib.suppress(LogError, OSError):
                if self._barriers is not None:
                    self._barriers.close()
                self._make_durable(self._partitions.values())
                self._checkpoint()
                self._barrier_file.remove()
        finally:
            self._release()

    def _take_lock(self) -> File:
        try:
            self._fs.make_dirs(self.path)
            lock_file = self._fs.lock(f"{self.path}/LOCK")
        except OSError as error:
            raise LogError(f"the log directory {self.path} cannot be used", detail=str(error)) from error
        if lock_file is None:
            raise LogLockedError(
                f"the log directory {self.path} is in use by another process",
                hint="stop that process, or use another directory",
            )
        return lock_file

    def _open(self) -> None:
        self._topics = TopicTable(self._fs, f"{self.path}/topics")
        self._barrier_file = BarrierFile(self._fs, self.path)
        self._barrier_file.settle(self._topics.all())
        self.log_id = open_log_id(self._fs, self.path, self._topics, self.coordinator, self._rng)
        self.sessions = Sessions(self._fs, f"{self.path}/producers", self.coordinator, self.clock)
        self._remove_unfinished()
        known = read_checkpoint(self._fs, f"{self.path}/checkpoint")
        for topic in self._topics.all():
            for index in range(topic.partition_count):
                partition = self._open_partition(topic, index, known.get(f"{topic.name}-{index}"))
                self._partitions[partition.tp] = partition
        end_open_transactions(self._partitions.values(), self.coordinator, self.clock)
        self.sync(self._partitions.values())
        self.coordinator.rewrite(all_marked=True)
        if self._durability == "os":
            self._barriers = Barriers(
                self._barrier_file, self.clock, self.coordinator.log, self._partitions, self._sync_to_disk
            )
            self._barriers.write()
            self.coordinator.defer_syncs(self._barriers)
            if self._pool is not None:
                self._barriers.start()

    def _open_partition(self, topic: Topic, index: int, known: PartitionCheckpoint | None) -> Partition:
        return open_partition(
            self._fs,
            self._partition_path(topic.name, index),
            topic,
            index,
            known=known if known is not None and known.topic_id == topic.topic_id else None,
            log_start=self.coordinator.log_start(topic.topic_id, index),
        )

    def _partition_path(self, name: str, index: int) -> str:
        return f"{self.path}/{name}-{index}"

    def _remove_unfinished(self) -> None:
        for topic in self._topics.unfinished():
            self.coordinator.write(TopicForgotten(topic=topic.name, topic_id=topic.topic_id))
            self._make_durable(())
            try:
                for index in range(topic.partition_count):
                    self._fs.remove(self._partition_path(topic.name, index))
            except OSError as error:
                raise LogError(f"topic {topic.name} could not be removed", detail=str(error)) from error
            self._topics.drop(topic.name)

    def _checkpoint(self) -> None:
        partitions = list(self._partitions.values())
        heads = [partition.head() for partition in partitions]
        # Once synced, every marker that those heads count is durable, so that no recovery can miss one.
        self._make_durable(partitions)
        write_checkpoint(
            self._fs,
            f"{self.path}/checkpoint",
            {
                str(partition.tp): PartitionCheckpoint(partition.topic_id, stable_offset, aborted)
                for partition, (stable_offset, aborted) in zip(partitions, heads, strict=True)
            },
        )

    def _release(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        for partition in self._partitions.values():
            partition.close()
        self.coordinator.close()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None
