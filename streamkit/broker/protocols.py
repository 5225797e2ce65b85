"""What the engine asks of a log server: six small protocols, the same for the embedded log and for Kafka.

All calls block; a broker may run its client elsewhere. All are safe to call from several threads, except that
one `Producer` belongs to one thread at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from streamkit.records import EncodedRecords, PlacedRecords, TopicPartition

__all__ = [
    "EARLIEST",
    "LAST_STABLE",
    "LATEST",
    "Admin",
    "Appended",
    "Assign",
    "Assignment",
    "Broker",
    "CommittedOffset",
    "Fetched",
    "Fetcher",
    "Group",
    "Isolation",
    "Member",
    "Membership",
    "OffsetSpec",
    "Producer",
    "TopicDescription",
]

Isolation: TypeAlias = Literal["read_committed", "read_uncommitted"]

OffsetSpec: TypeAlias = int
"""EARLIEST, LATEST, LAST_STABLE, or a timestamp in ms (>= 0): the first offset whose timestamp is not below it."""

EARLIEST: Final[OffsetSpec] = -2
LATEST: Final[OffsetSpec] = -1
LAST_STABLE: Final[OffsetSpec] = -3


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDescription:
    """A topic as it is: its partition count and the configs that were set (Kafka's names and spelling)."""

    name: str
    partition_count: int
    config: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedOffset:
    """The next offset a group reads, and a note of at most 4,096 bytes that was committed with it."""

    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Whole record batches of one partition, control batches and aborted transactions already left out.

    `record_batches` are encoded v2 batches in offset order; the first may begin before the position asked for (a
    reader skips those records). `next_offset` is where to fetch next: it may lie beyond the last batch.
    `end_offset` is the last stable offset for a read-committed fetcher, else the durable end.

    Records that lie in a file of the user's are no record batches: they are `in_place`, and `record_batches` is empty.
    """

    topic_partition: TopicPartition
    record_batches: Sequence[bytes]
    next_offset: int
    end_offset: int
    in_place: PlacedRecords | None = None

    @property
    def size_bytes(self) -> int:
        """How much was fetched."""
        return sum(map(len, self.record_batches)) if self.in_place is None else self.in_place.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """The first and last offset given out to what one transaction or flush wrote in one partition (inclusive)."""

    base_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One worker, as it shows itself to the member that assigns.

    Args:
        id: Stable from one start of the worker to the next; it decides what a new group gives it.
        weight: How much it takes beside the others, at least 1.
        tasks: What it was assigned last.
        generation: Of that assignment; 0 if there was none.
    """

    id: str
    weight: int = 1
    tasks: tuple[str, ...] = ()
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The tasks of one member.

    Args:
        generation: Grows with each rebalance; by more than 1 if this member was not a part of one in between.
        tasks: Ids.
    """

    generation: int
    tasks: frozenset[str]


Assign: TypeAlias = Callable[[Sequence[Member]], Mapping[str, Sequence[str]]]
"""From all members of a generation to the tasks of each, by its id; pure, called on any thread of any member."""


class Admin(Protocol):
    """Topics and their offsets."""

    def create_topic(self, name: str, partition_count: int, config: Mapping[str, str] | None = None) -> None:
        """Create a topic durably. An existing one with the same count and config is fine.

        Raises:
            ConfigError: The name, count or config is not valid, or differs from the existing topic's.
        """
        ...

    def delete_topic(self, name: str) -> None:
        """Delete a topic and its records; what a group committed for it goes with it, on Kafka a moment later.

        Raises:
            UnknownTopicError: There is none.
        """
        ...

    def describe_topics(self) -> Mapping[str, TopicDescription]:
        """Return all topics by name."""
        ...

    def list_offsets(self, specs: Mapping[TopicPartition, OffsetSpec]) -> Mapping[TopicPartition, int]:
        """Return an offset for each partition; a timestamp beyond the last record gives the end offset."""
        ...

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Move the log start of each partition up to an offset; whole segments below it are removed."""
        ...

    def log_id(self) -> str:
        """Return the identity of this log or cluster; state stamped with another one is not its state."""
        ...


class Fetcher(Protocol):
    """Reads record batches by position; keeps no position of its own that a caller could see."""

    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        """Return what lies at the positions, at most about `bytes_max` per partition, at least one batch.

        Waits up to `wait_ms` when nothing is there; partitions without news are left out of the answer.

        Raises:
            OffsetOutOfRangeError: A position is before the log start or after the end.
            UnknownTopicError: A partition does not exist.
        """
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Producer(Protocol):
    """Appends records: idempotent without a transactional id, in transactions with one.

    With a transactional id, opening it fenced the predecessor and ended its open transaction.

    On Kafka a fence is noticed when a broker answers: the call that meets it may be a later one, `commit` at the
    latest. The transaction of a producer that was lost without `close` ends by its timeout; on the embedded log whoever
    it holds back ends it.
    """

    def committed(self, group: str, place: TopicPartition) -> Mapping[TopicPartition, CommittedOffset]:
        """Return a group's committed offsets, with all that was committed before this call. No transaction may be open.

        Args:
            group: Whose.
            place: A partition that the group reads; on Kafka a write that is taken back is made for it.

        Raises:
            ProducerFencedError: A newer producer has the id.
            BrokerUnavailableError: No answer within the deadline: throw this producer away. No offset was changed.

        Cost: on Kafka four requests, where `Group.committed` makes one.
        """
        ...

    def begin(self) -> None:
        """Open a transaction. Only for a transactional producer.

        Raises:
            ProducerFencedError: A newer producer has the id.
            BrokerError: A transaction is open already, or the producer has no transactional id.
        """
        ...

    def send(self, to: TopicPartition, records: EncodedRecords) -> None:
        """Append records, in order. They are visible to read-committed readers after `commit` (or `flush`).

        Kafka may show those of a plain producer before `flush`, once they are replicated.

        Raises:
            RecordTooLargeError: A record exceeds the topic's limit. Nothing of this call was appended; abort.
            ProducerFencedError: A newer producer has the id. The transaction is gone.
        """
        ...

    def send_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Make the group's offsets a part of the open transaction.

        Raises:
            ConfigError: An offset or its metadata is not valid.
            UnknownTopicError: A partition does not exist.
            ProducerFencedError: A newer producer has the id. The transaction is gone.
        """
        ...

    def commit(self) -> Mapping[TopicPartition, Appended]:
        """Make everything sent since `begin` durable and visible, all or nothing; on Kafka visible a few ms later.

        Raises:
            ProducerFencedError: Nothing of the transaction is visible.
            CommitFailedError: Unknown outcome: throw this producer away and read the committed offsets.
        """
        ...

    def abort(self) -> None:
        """Make everything sent since `begin` invisible to read-committed readers."""
        ...

    def flush(self) -> Mapping[TopicPartition, Appended]:
        """Return once everything sent since the last flush is durable. Only without a transactional id."""
        ...

    def close(self) -> None:
        """Abort an open transaction and give the id back; closing twice does nothing."""
        ...


class Group(Protocol):
    """Committed offsets of one consumer group."""

    def committed(self) -> Mapping[TopicPartition, CommittedOffset]:
        """Return the group's committed offsets.

        On Kafka those of a transaction are among them a few ms after its commit, and after an outage of all brokers the
        answer may be an older one for a while. `Producer.committed` is for decisions that must not rest on that.
        """
        ...

    def commit(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Commit offsets durably outside a transaction, all or none."""
        ...

    def members(self) -> Sequence[Member]:
        """Return the members with the tasks that each was assigned, none during a rebalance."""
        ...


class Membership(Protocol):
    """One worker's place in a group; heartbeats and rebalances go on by themselves until it leaves."""

    def assignment(self) -> Assignment | None:
        """Return the newest assignment; None before the first. Never waits.

        During a rebalance, and while the group cannot be reached, it is the last one. Others may run its tasks by
        then: the epoch of each task's producer decides, not this.

        Raises:
            BrokerError: The membership has failed for good; join again.
        """
        ...

    def leave(self) -> None:
        """Leave the group, so that the others get its tasks at once; leaving twice does nothing."""
        ...


class Broker(Protocol):
    """One log: the doors to it."""

    @property
    def admin(self) -> Admin:
        """Topics and offsets."""
        ...

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        """Return a new fetcher."""
        ...

    def producer(self, transactional_id: str | None = None) -> Producer:
        """Return a new producer; with an id, fence the predecessor and end its open transaction first."""
        ...

    def group(self, name: str) -> Group:
        """Return the consumer group of that name (it need not exist)."""
        ...

    def join(self, group: str, topics: Sequence[str], member: Member, assign: Assign) -> Membership:
        """Become a member of a group; the first assignment comes later.

        Args:
            group: The name of the group.
            topics: What its members read. Nothing is fetched for it.
            member: This worker. Two that bear one id are told apart.
            assign: Asked by one member for all; every member brings the same.
        """
        ...

    def close(self) -> None:
        """Close everything; closing twice does nothing."""
        ...
