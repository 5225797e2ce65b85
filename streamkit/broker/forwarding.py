"""A broker that hands everything on to another one; what stands between engine and log overrides what it changes."""

from collections.abc import Mapping, Sequence

from streamkit.broker.protocols import (
    Admin,
    Assign,
    Broker,
    Fetcher,
    Group,
    Isolation,
    Member,
    Membership,
    OffsetSpec,
    Producer,
    TopicDescription,
)
from streamkit.records import TopicPartition

__all__ = ["ForwardingAdmin", "ForwardingBroker"]


class ForwardingAdmin:
    """Topics and offsets of another admin; see the `Admin` protocol."""

    def __init__(self, beneath: Admin) -> None:
        """Ask nothing yet."""
        self._beneath = beneath

    def create_topic(self, name: str, partition_count: int, config: Mapping[str, str] | None = None) -> None:
        """Make a topic beneath."""
        self._beneath.create_topic(name, partition_count, config)

    def delete_topic(self, name: str) -> None:
        """Delete a topic beneath."""
        self._beneath.delete_topic(name)

    def describe_topics(self) -> Mapping[str, TopicDescription]:
        """Return the topics beneath."""
        return self._beneath.describe_topics()

    def list_offsets(self, specs: Mapping[TopicPartition, OffsetSpec]) -> Mapping[TopicPartition, int]:
        """Return the offsets beneath."""
        return self._beneath.list_offsets(specs)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete records beneath."""
        self._beneath.delete_records(before)

    def log_id(self) -> str:
        """Return the id of the log beneath."""
        return self._beneath.log_id()


class ForwardingBroker:
    """Another broker with an admin of its own; see the `Broker` protocol.

    Args:
        beneath: It is not closed with this one: that is for whoever opened it.
        admin: In place of its admin.
    """

    def __init__(self, beneath: Broker, admin: Admin) -> None:
        """Open nothing."""
        self._beneath, self._admin = beneath, admin

    @property
    def admin(self) -> Admin:
        """Topics and offsets."""
        return self._admin

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        """Return a new fetcher of the broker beneath."""
        return self._beneath.fetcher(isolation)

    def producer(self, transactional_id: str | None = None) -> Producer:
        """Return a new producer of the broker beneath."""
        return self._beneath.producer(transactional_id)

    def group(self, name: str) -> Group:
        """Return the consumer group of that name."""
        return self._beneath.group(name)

    def join(self, group: str, topics: Sequence[str], member: Member, assign: Assign) -> Membership:
        """Become a member of a group."""
        return self._beneath.join(group, topics, member, assign)

    def close(self) -> None:
        """Close nothing."""
