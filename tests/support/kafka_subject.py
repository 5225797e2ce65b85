"""A Kafka for tests written for a log that is as prompt as its caller: names apart, and every call awaited.

What Kafka does a moment after it answered is waited for here, by asking it: that records sent are there, that markers
are written, that offsets of a transaction are seen, that a deleted topic's offsets are gone. Nothing else is changed,
and errors pass as they come.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from streamkit.broker import (
    LAST_STABLE,
    LATEST,
    Appended,
    Broker,
    CommittedOffset,
    Fetched,
    Fetcher,
    Group,
    Isolation,
    OffsetSpec,
    Producer,
    TopicDescription,
)
from streamkit.broker.protocols import Assign, Member, Membership
from streamkit.records import EncodedRecords, TopicPartition

_APART = itertools.count()
WAIT_SECONDS = 120.0


def until(true: Callable[[], bool]) -> None:
    """Ask until it is so; every question is a request to a broker, which takes its time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline, "Kafka never did it"


class Names:
    """The names of one test, which no other test on the same cluster has."""

    def __init__(self, run: str) -> None:
        self.prefix = f"{run}-{next(_APART)}-"
        self.groups: set[str] = set()
        self.open: dict[object, set[TopicPartition]] = {}

    def out(self, tp: TopicPartition) -> TopicPartition:
        return TopicPartition(self.prefix + tp.topic, tp.partition)

    def back(self, tp: TopicPartition) -> TopicPartition:
        return TopicPartition(tp.topic.removeprefix(self.prefix), tp.partition)


class PromptKafka:
    """The `Broker` of one test."""

    def __init__(self, broker: Broker, names: Names) -> None:
        self._broker, self._names = broker, names
        self.admin = PromptAdmin(broker, names)

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        return ApartFetcher(self._broker.fetcher(isolation), self._names)

    def producer(self, transactional_id: str | None = None) -> Producer:
        if transactional_id is None:
            return ApartProducer(self._broker.producer(), self._names)
        inner = self._broker.producer(self._names.prefix + transactional_id)
        return PromptProducer(inner, self._names, self._broker)

    def group(self, name: str) -> Group:
        self._names.groups.add(self._names.prefix + name)
        return ApartGroup(self._broker.group(self._names.prefix + name), self._names)

    def join(self, group: str, topics: Sequence[str], member: Member, assign: Assign) -> Membership:
        there = [self._names.out(TopicPartition(topic, 0)).topic for topic in topics]
        return self._broker.join(self._names.prefix + group, there, member, assign)

    def close(self) -> None:
        self._broker.close()

    def settle(self) -> None:
        """Return when the transactions that the last broker left open have ended."""
        touched = set().union(*self._names.open.values())
        self._names.open.clear()
        until(lambda: stable(self._broker, touched))


class PromptAdmin:
    def __init__(self, broker: Broker, names: Names) -> None:
        self._broker, self._names = broker, names

    def create_topic(self, name: str, partition_count: int, config: Mapping[str, str] | None = None) -> None:
        apart = self._names.prefix + name if name.isascii() and name.isalnum() and len(name) < 200 else name
        self._broker.admin.create_topic(apart, partition_count, config)

    def delete_topic(self, name: str) -> None:
        apart = self._names.prefix + name
        self._broker.admin.delete_topic(apart)
        groups = [self._broker.group(group) for group in self._names.groups]
        until(lambda: not any(tp.topic == apart for group in groups for tp in group.committed()))

    def describe_topics(self) -> Mapping[str, TopicDescription]:
        return {
            (own := name.removeprefix(self._names.prefix)): replace(topic, name=own)
            for name, topic in self._broker.admin.describe_topics().items()
            if name.startswith(self._names.prefix)
        }

    def list_offsets(self, specs: Mapping[TopicPartition, OffsetSpec]) -> Mapping[TopicPartition, int]:
        offsets = self._broker.admin.list_offsets({self._names.out(tp): spec for tp, spec in specs.items()})
        return {self._names.back(tp): offset for tp, offset in offsets.items()}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        self._broker.admin.delete_records({self._names.out(tp): offset for tp, offset in before.items()})

    def log_id(self) -> str:
        return self._broker.admin.log_id()


class ApartFetcher:
    def __init__(self, inner: Fetcher, names: Names) -> None:
        self._inner, self._names = inner, names

    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        apart = {self._names.out(tp): position for tp, position in positions.items()}
        fetched = self._inner.fetch(apart, wait_ms=wait_ms, bytes_max=bytes_max)
        return [replace(one, topic_partition=self._names.back(one.topic_partition)) for one in fetched]

    def close(self) -> None:
        self._inner.close()


class ApartGroup:
    def __init__(self, inner: Group, names: Names) -> None:
        self._inner, self._names = inner, names

    def committed(self) -> Mapping[TopicPartition, CommittedOffset]:
        return {self._names.back(tp): at for tp, at in self._inner.committed().items()}

    def commit(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        self._inner.commit({self._names.out(tp): at for tp, at in offsets.items()})


class ApartProducer:
    def __init__(self, inner: Producer, names: Names) -> None:
        self._inner, self._names = inner, names

    def committed(self, group: str, place: TopicPartition) -> Mapping[TopicPartition, CommittedOffset]:
        committed = self._inner.committed(self._names.prefix + group, self._names.out(place))
        return {self._names.back(tp): at for tp, at in committed.items()}

    def begin(self) -> None:
        self._inner.begin()

    def send(self, to: TopicPartition, records: EncodedRecords) -> None:
        self._inner.send(self._names.out(to), records)

    def send_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        self._inner.send_offsets(
            self._names.prefix + group, {self._names.out(tp): offset for tp, offset in offsets.items()}
        )

    def commit(self) -> Mapping[TopicPartition, Appended]:
        return {self._names.back(tp): appended for tp, appended in self._inner.commit().items()}

    def abort(self) -> None:
        self._inner.abort()

    def flush(self) -> Mapping[TopicPartition, Appended]:
        return {self._names.back(tp): appended for tp, appended in self._inner.flush().items()}

    def close(self) -> None:
        self._inner.close()


class PromptProducer(ApartProducer):
    """A transactional producer whose calls return when a reader sees what they did."""

    def __init__(self, inner: Producer, names: Names, broker: Broker) -> None:
        super().__init__(inner, names)
        self._broker = broker
        self._ends: dict[TopicPartition, int] = {}
        self._offsets: dict[str, dict[TopicPartition, CommittedOffset]] = {}

    def send(self, to: TopicPartition, records: EncodedRecords) -> None:
        """Return when the records are in the log; what became of them on the way is raised here."""
        apart = self._names.out(to)
        try:
            before = end_of(self._broker, apart)
        except Exception:
            self._inner.send(apart, records)
            raise
        self._inner.send(apart, records)
        nothing = EncodedRecords.to_append(timestamps_ms=[], keys=[], values=[])

        def landed() -> bool:
            self._inner.send(apart, nothing)
            return end_of(self._broker, apart) >= before + len(records)

        until(landed)
        self._ends[apart] = end_of(self._broker, apart)
        self._names.open.setdefault(self, set()).add(apart)

    def send_offsets(self, group: str, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        super().send_offsets(group, offsets)
        self._offsets.setdefault(self._names.prefix + group, {}).update(
            {self._names.out(tp): at for tp, at in offsets.items()}
        )

    def commit(self) -> Mapping[TopicPartition, Appended]:
        appended = super().commit()
        self._await_markers()
        for group, offsets in self._offsets.items():
            until(lambda group=group, offsets=offsets: offsets.items() <= self._broker.group(group).committed().items())
        self._offsets.clear()
        return appended

    def abort(self) -> None:
        self._offsets.clear()
        super().abort()
        self._await_markers()

    def close(self) -> None:
        super().close()
        self._await_markers()

    def _await_markers(self) -> None:
        touched = self._names.open.pop(self, set())
        if any(touched & others for others in self._names.open.values()):
            # Another transaction holds the last stable offset back; a marker takes an offset of its own.
            until(lambda: all(end_of(self._broker, tp) > self._ends[tp] for tp in touched))
        else:
            until(lambda: stable(self._broker, touched))


def end_of(broker: Broker, tp: TopicPartition) -> int:
    return broker.admin.list_offsets({tp: LATEST})[tp]


def stable(broker: Broker, tps: Iterable[TopicPartition]) -> bool:
    """Return whether no transaction is open in any of the partitions."""
    wanted = sorted(tps)
    return broker.admin.list_offsets(dict.fromkeys(wanted, LAST_STABLE)) == broker.admin.list_offsets(
        dict.fromkeys(wanted, LATEST)
    )
