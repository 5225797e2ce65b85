"""The embedded broker: the same semantics as Kafka's in a directory, without a server.

Thin doors over a `LogDirectory`. One process uses a directory at a time; within it everything is safe from several
threads, except that a producer belongs to one thread at a time.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from streamkit.broker.coordinator import check_offsets, check_text
from streamkit.broker.embedded_fetcher import EmbeddedFetcher
from streamkit.broker.embedded_membership import EmbeddedMemberships
from streamkit.broker.embedded_producer import EmbeddedProducer
from streamkit.broker.log_directory import Durability, LogDirectory
from streamkit.broker.protocols import (
    EARLIEST,
    LAST_STABLE,
    LATEST,
    Admin,
    Assign,
    CommittedOffset,
    Fetcher,
    Group,
    Isolation,
    Member,
    Membership,
    OffsetSpec,
    Producer,
    TopicDescription,
)
from streamkit.errors import ConfigError
from streamkit.records import TopicPartition
from streamkit.seams import Clock, FileSystem, Rng

__all__ = ["EmbeddedBroker"]

SYNC_THREADS_COUNT: Final = 8


class EmbeddedBroker:
    """A log in a directory; see the `Broker` protocol.

    Everything acknowledged is on the disk (fsync), unless `durability` is `os`. After an fsync error the broker
    refuses to go on; opened again, it has what was acknowledged, with `os` up to the last barrier if the machine
    went down.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        *,
        clock: Clock,
        rng: Rng,
        sync_threads_count: int = SYNC_THREADS_COUNT,
        durability: Durability = "fsync",
    ) -> None:
        """Open the log in `directory`, or make it; a crash that it finds is recovered from.

        Args:
            fs: Where the directory is.
            directory: Its path; made if missing.
            clock: Gives markers their timestamps, and waits.
            rng: Gives the log and its topics their ids.
            sync_threads_count: How many partitions are synced at a time; 0 for none but the caller's thread.
            durability: `os` acknowledges what the operating system has, and syncs everything every second: a power
                cut may take back the last second, of all partitions and groups together. Lossy, so only on demand.

        Raises:
            LogLockedError: Another process uses the directory.
            CorruptBatchError: Something that was acknowledged is damaged. Nothing was cut.
        """
        self._directory = LogDirectory(
            fs, directory, clock=clock, rng=rng, sync_threads_count=sync_threads_count, durability=durability
        )
        self._admin = _EmbeddedAdmin(self._directory)
        self._memberships = EmbeddedMemberships()

    @property
    def admin(self) -> Admin:
        """Topics and offsets."""
        return self._admin

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        """Return a new fetcher."""
        return EmbeddedFetcher(self._directory, isolation)

    def producer(self, transactional_id: str | None = None) -> Producer:
        """Return a new producer; with an id, fence the predecessor and end its open transaction first."""
        if transactional_id is not None:
            check_text("a transactional id", transactional_id)
        return EmbeddedProducer(self._directory, transactional_id)

    def group(self, name: str) -> Group:
        """Return the consumer group of that name (it need not exist)."""
        check_text("a group's name", name)
        return _EmbeddedGroup(self._directory, self._memberships, name)

    def join(self, group: str, topics: Sequence[str], member: Member, assign: Assign) -> Membership:  # noqa: ARG002  # a log knows its topics
        """Become a member, beside those who joined through this broker; the assignment is there at once."""
        check_text("a group's name", group)
        return self._memberships.join(group, member, assign)

    def close(self) -> None:
        """Sync and close everything and give the directory back; closing twice does nothing.

        Transactions that are still open are aborted when the directory is opened next.
        """
        self._directory.close()


class _EmbeddedAdmin:
    """Topics and their offsets; see the `Admin` protocol."""

    def __init__(self, directory: LogDirectory) -> None:
        self._directory = directory

    def create_topic(self, name: str, partition_count: int, config: Mapping[str, str] | None = None) -> None:
        self._directory.create_topic(name, partition_count, config or {})

    def delete_topic(self, name: str) -> None:
        self._directory.delete_topic(name)

    def describe_topics(self) -> Mapping[str, TopicDescription]:
        return {topic.name: topic.describe() for topic in self._directory.topics()}

    def list_offsets(self, specs: Mapping[TopicPartition, OffsetSpec]) -> Mapping[TopicPartition, int]:
        return {tp: self._offset(tp, spec) for tp, spec in specs.items()}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        self._directory.delete_records(before)

    def log_id(self) -> str:
        return self._directory.log_id

    def _offset(self, tp: TopicPartition, spec: OffsetSpec) -> int:
        partition = self._directory.partition(tp)
        if spec == EARLIEST:
            return partition.start_offset
        if spec == LATEST:
            return partition.end_offset
        if spec == LAST_STABLE:
            self._directory.end_abandoned([tp])
            return partition.last_stable_offset
        if spec >= 0:
            return partition.offset_for_time(spec)
        raise ConfigError(f"{spec} is not an offset spec", hint="EARLIEST, LATEST, LAST_STABLE or a timestamp in ms")


class _EmbeddedGroup:
    """The committed offsets of one group; see the `Group` protocol."""

    def __init__(self, directory: LogDirectory, memberships: EmbeddedMemberships, name: str) -> None:
        self._directory, self._memberships, self._name = directory, memberships, name

    def members(self) -> Sequence[Member]:
        return self._memberships.members(self._name)

    def committed(self) -> Mapping[TopicPartition, CommittedOffset]:
        return self._directory.coordinator.committed(self._name)

    def commit(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        check_offsets(offsets)
        for tp in offsets:
            self._directory.partition(tp)
        if offsets:
            self._directory.coordinator.commit_offsets(self._name, offsets)
