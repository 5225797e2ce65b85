"""A workload of the embedded broker that dies before any one of its changes to the file system, and its judge."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from streamkit.broker import EARLIEST, LAST_STABLE, LATEST, Broker, CommittedOffset, Producer
from streamkit.broker.open import open_broker
from streamkit.errors import ProducerFencedError
from streamkit.log.codec import decode
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.seams import Clock, ManualClock, MemoryFileSystem, SeededRng

PARTITIONS = [TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)]
INPUT = TopicPartition("input", 0)
Keep = Callable[[str, int], int]


class PowerCut(BaseException):
    """The machine is gone; no handler of the library may go on after it."""


class Power:
    """Counts changes to the file system and cuts the power before a given one, for good."""

    def __init__(self) -> None:
        self.changes = 0
        self.cut_at: int | None = None

    def __call__(self, change: str) -> None:
        self.changes += 1
        if self.cut_at is not None and self.changes >= self.cut_at:
            raise PowerCut


class BusyClock(ManualClock):
    """Time passes whenever somebody looks, so that a barrier is due at every fourth acknowledgement or so."""

    def monotonic_ms(self) -> float:
        self.advance(250)
        return super().monotonic_ms()


@dataclass
class Told:
    """What the broker told its user before the power was cut."""

    committed: dict[str, int] = field(default_factory=dict)
    """With the barrier that was on the disk when the commit was acknowledged."""
    never_committed: set[str] = field(default_factory=set)
    attempted: list[str] = field(default_factory=list)
    barrier: Callable[[], int] = lambda: 0

    def after(self, names: set[str]) -> "Told":
        """Return what holds once the log was opened again and had these transactions."""
        return Told(dict.fromkeys(names, 0), set(self.never_committed), [*self.attempted])


def opened(fs: MemoryFileSystem, url: str = "memory://", clock: Clock | None = None) -> Broker:
    return open_broker(url, fs=fs, clock=clock or ManualClock(1_000_000), rng=SeededRng(1))


def set_up(power: Power, url: str = "memory://", clock: Clock | None = None) -> tuple[MemoryFileSystem, Broker]:
    fs = MemoryFileSystem(power)
    broker = opened(fs, url, clock)
    for topic, count in (("a", 2), ("b", 1), ("input", 1)):
        broker.admin.create_topic(topic, count, {"segment.bytes": "2000"})
    return fs, broker


def send(producer: Producer, name: str) -> None:
    """Write three records named after the transaction into each partition, and its name into the offsets' note."""
    for tp in PARTITIONS:
        for part in range(3):
            values = [f"{name}/{tp}/{part}".encode()]
            producer.send(tp, EncodedRecords.to_append(timestamps_ms=[part], keys=[None], values=values))
    number = int(name.rsplit(" ", 1)[1])
    producer.send_offsets("group", {INPUT: CommittedOffset(offset=number, metadata=name)})


def commit(producer: Producer, name: str, told: Told) -> None:
    told.attempted.append(name)
    producer.begin()
    send(producer, name)
    producer.commit()
    told.committed[name] = told.barrier()


def abort(producer: Producer, name: str, told: Told) -> None:
    told.never_committed.add(name)
    producer.begin()
    send(producer, name)
    producer.abort()


def workload(broker: Broker, told: Told) -> None:
    """Commits, aborts, a transaction of another producer across them, and a fenced one."""
    task, other = broker.producer("task"), broker.producer("other")
    commit(task, "task 1", told)
    told.never_committed.add("other 2")
    other.begin()
    send(other, "other 2")
    commit(task, "task 3", told)
    abort(task, "task 4", told)
    commit(task, "task 5", told)
    other.abort()
    told.never_committed.add("task 6")
    task.begin()
    send(task, "task 6")
    successor = broker.producer("task")
    with pytest.raises(ProducerFencedError):
        task.commit()
    commit(successor, "task 7", told)
    commit(other, "other 8", told)


def visible(broker: Broker, tp: TopicPartition) -> list[str]:
    """Return what a read-committed reader sees, and check that positions lead it to the very end."""
    fetcher, values, position = broker.fetcher(), list[str](), broker.admin.list_offsets({tp: EARLIEST})[tp]
    while fetched := fetcher.fetch({tp: position}, wait_ms=0, bytes_max=1000):
        position = fetched[0].next_offset
        if fetched[0].record_batches:
            values += [value.decode() for value in decode(fetched[0].record_batches).values if value is not None]
    assert position == broker.admin.list_offsets({tp: LATEST})[tp]
    return values


def judge(broker: Broker, told: Told) -> set[str]:
    """Check all or nothing, in every partition and in the offsets; return the transactions that are there."""
    seen = {tp: visible(broker, tp) for tp in PARTITIONS}
    names = {value.split("/")[0] for value in seen[PARTITIONS[0]]}
    order = [name for name in told.attempted if name in names]
    for tp in PARTITIONS:
        assert seen[tp] == [f"{name}/{tp}/{part}" for name in order for part in range(3)], "torn or reordered"
        offsets = broker.admin.list_offsets({tp: LAST_STABLE}), broker.admin.list_offsets({tp: LATEST})
        assert offsets[0] == offsets[1], "a transaction was left open"
    assert told.committed.keys() <= names, "an acknowledged transaction is lost"
    assert not names & told.never_committed, "an aborted or fenced transaction is visible"
    group = broker.group("group").committed()
    if order:
        assert group[INPUT].metadata == order[-1]
    else:
        assert group == {}
    return names


def goes_on(broker: Broker, told: Told) -> None:
    """The log can be used after the crash: the next transactions of the same producers work and end well."""
    for name in ("task 91", "other 92"):
        producer = broker.producer(name.split(" ", maxsplit=1)[0])
        commit(producer, name, told)
        producer.close()
    judge(broker, told)


def keepers(seed: int) -> Iterator[tuple[str, Keep | None]]:
    chance = random.Random(seed)
    yield "nothing", None
    yield "everything", lambda path, extra_bytes: extra_bytes
    yield "a part", lambda path, extra_bytes: chance.randint(0, extra_bytes)
    yield "one file only", lambda path, extra_bytes: extra_bytes if len(path) % 2 else 0
