"""`FileBroker`: a broker some of whose topics are files, read in place; everything else is the broker's beneath.

So a run over files is a run: engine, commit and recovery are the same, and there is no other way to compute. What a
group commits for a file needs a topic to be committed for: one without records, beneath, of the same name.
"""

from collections.abc import Mapping, Sequence

from streamkit.broker import (
    EARLIEST,
    Admin,
    Broker,
    Fetcher,
    Group,
    Isolation,
    OffsetSpec,
    Producer,
    TopicDescription,
)
from streamkit.broker.protocols import Assign, Member, Membership
from streamkit.files.content import LINE_BYTES_MAX
from streamkit.files.fetcher import FileFetcher, FileTopic
from streamkit.records import TopicPartition
from streamkit.seams.user_files import FileFacts

__all__ = ["FileBroker"]


class FileBroker:
    """One log with files beside it; see the `Broker` protocol.

    Args:
        beneath: Where everything is that is no input file. It is not closed with this one.
        topics: What is read from files.
        facts: What each file was when the run began, by its path.
    """

    def __init__(self, beneath: Broker, topics: Mapping[str, FileTopic], facts: Mapping[str, FileFacts]) -> None:
        """Make the topics that offsets are committed for, where they are missing."""
        self._beneath, self._topics, self._facts = beneath, topics, facts
        self._admin = _FileAdmin(beneath.admin, topics)
        for name, topic in topics.items():
            # Decides how large a dead letter may be.
            config = {"max.message.bytes": str(LINE_BYTES_MAX)}
            beneath.admin.create_topic(name, len(topic.partitions), config)

    @property
    def admin(self) -> Admin:
        """Topics and offsets."""
        return self._admin

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        """Return a new fetcher."""
        return FileFetcher(self._beneath.fetcher(isolation), self._topics, self._facts)

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
        """Close nothing: whoever opened the broker beneath closes it."""


class _FileAdmin:
    """Topics and their offsets; see the `Admin` protocol."""

    def __init__(self, beneath: Admin, topics: Mapping[str, FileTopic]) -> None:
        self._beneath, self._topics = beneath, topics

    def create_topic(self, name: str, partition_count: int, config: Mapping[str, str] | None = None) -> None:
        self._beneath.create_topic(name, partition_count, config)

    def delete_topic(self, name: str) -> None:
        self._beneath.delete_topic(name)

    def describe_topics(self) -> Mapping[str, TopicDescription]:
        return self._beneath.describe_topics()

    def list_offsets(self, specs: Mapping[TopicPartition, OffsetSpec]) -> Mapping[TopicPartition, int]:
        """Return an offset for each partition; a file's records all have one timestamp, which no spec is told of."""
        beneath = {place: spec for place, spec in specs.items() if place.topic not in self._topics}
        found = dict(self._beneath.list_offsets(beneath)) if beneath else {}
        for place, spec in specs.items():
            if place.topic in self._topics:
                partition = self._topics[place.topic].partitions[place.partition]
                begins = spec >= 0 or spec == EARLIEST
                found[place] = partition.begin_offset if begins else partition.end_offset
        return found

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        self._beneath.delete_records(before)

    def log_id(self) -> str:
        return self._beneath.log_id()
