"""`FileBroker`: a broker some of whose topics are files, read in place; everything else is the broker's beneath.

So a run over files is a run: engine, commit and recovery are the same, and there is no other way to compute. What a
group commits for a file needs a topic to be committed for: one without records, beneath, of the same name.
"""

from collections.abc import Collection, Mapping
from typing import Final

from streamkit.broker import (
    EARLIEST,
    Admin,
    Broker,
    Fetcher,
    Isolation,
    OffsetSpec,
)
from streamkit.broker.forwarding import ForwardingAdmin, ForwardingBroker
from streamkit.files.content import LINE_BYTES_MAX
from streamkit.files.fetcher import FileFetcher, FileTopic
from streamkit.records import TopicPartition
from streamkit.seams.user_files import FileFacts

__all__ = ["FileBroker"]

_ROOM: Final = {"max.message.bytes": str(LINE_BYTES_MAX)}


class FileBroker(ForwardingBroker):
    """One log with files beside it; see the `Broker` protocol.

    Args:
        beneath: Where everything is that is no input file. It is not closed with this one.
        topics: What is read from files.
        facts: What each file was when the run began, by its path.
        sinks: Topics that become files: a row of one may be as large as a line that is read.
    """

    def __init__(
        self,
        beneath: Broker,
        topics: Mapping[str, FileTopic],
        facts: Mapping[str, FileFacts],
        sinks: Collection[str] = (),
    ) -> None:
        """Make the topics that offsets are committed for, where they are missing."""
        super().__init__(beneath, _FileAdmin(beneath.admin, topics, sinks))
        self._topics, self._facts = topics, facts
        for name, topic in topics.items():
            # Decides how large a dead letter may be.
            beneath.admin.create_topic(name, len(topic.partitions), _ROOM)

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        """Return a new fetcher."""
        return FileFetcher(self._beneath.fetcher(isolation), self._topics, self._facts)


class _FileAdmin(ForwardingAdmin):
    """Topics and their offsets; see the `Admin` protocol."""

    def __init__(self, beneath: Admin, topics: Mapping[str, FileTopic], sinks: Collection[str]) -> None:
        super().__init__(beneath)
        self._topics, self._sinks = topics, sinks

    def create_topic(self, name: str, partition_count: int, config: Mapping[str, str] | None = None) -> None:
        """Make a topic beneath, with room for large rows if it becomes a file."""
        super().create_topic(name, partition_count, {**(config or {}), **_ROOM} if name in self._sinks else config)

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
