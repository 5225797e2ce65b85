"""Jobs that have run in a directory, and changelogs that were harmed after the fact."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import orjson
from scenarios import SCENARIOS, Rows

from streamkit import Job
from streamkit.broker import LAST_STABLE, Broker, open_broker
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions, Summary, Worker
from streamkit.runtime.comparing import unread_places
from streamkit.runtime.position import Position
from streamkit.runtime.reading import read_to
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.state import POSITION_KEY, Digest, EntriesDigest, store_key
from streamkit.topology import Topology, compile_graph

Entry = tuple[bytes | None, bytes | None, int]

ROWS: list[Rows] = [
    [("abcdefgh"[n % 8], n % 7 - 3, 7 * n) for n in range(60)],
    [("efghijkl"[n % 8], n % 5 - 2, 5 * n) for n in range(50)],
]


class Ran:
    """A job that runs in a directory; each call of `run` is a bounded run of one worker."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.scenario = SCENARIOS[name]
        self.job: Job = self.scenario.build()
        self.topology: Topology = compile_graph(self.job.build())
        self.broker: Broker = open_broker(f"log://{directory}")
        self.state_dir = str(directory / "state")

    def reopen(self) -> None:
        """Let the process die, and another one begin."""
        self.broker.close()
        self.broker = open_broker(f"log://{self.directory}")

    def fill(self, topic: str, partitions: list[Rows]) -> None:
        if topic not in self.broker.admin.describe_topics():
            self.broker.admin.create_topic(topic, len(partitions))
        producer = self.broker.producer()
        for partition, rows in enumerate(partitions):
            for sensor, value, ts in rows:
                key = f"{sensor}{partition}".encode()
                line = b'{"sensor":"%s","value":%d,"ts":%d}' % (sensor.encode(), value, ts)
                records = EncodedRecords.to_append(timestamps_ms=[ts], keys=[key], values=[line])
                producer.send(TopicPartition(topic, partition), records)
        producer.flush()
        producer.close()

    def run(self, *, go_on: bool = False, commit_bytes_max: int = 300, bounded: bool = True) -> Summary:
        """Run to the end; an unbounded run until nothing is left to read."""
        options = RunOptions(
            bounded=bounded,
            go_on=go_on,
            state_dir=self.state_dir,
            commit_bytes_max=commit_bytes_max,
            fetch_bytes_max=200,
        )
        worker = Worker(self.topology, self.broker, options=options, fs=SystemFileSystem(), clock=SystemClock())
        stop, ended = threading.Event(), threading.Event()
        if not bounded:
            threading.Thread(target=self._stop_when_read, args=(stop, ended)).start()
        try:
            return worker.run(stop)
        finally:
            ended.set()

    def _stop_when_read(self, stop: threading.Event, ended: threading.Event) -> None:
        sources = dict.fromkeys(
            (
                TopicPartition(topic, partition)
                for topic in self.scenario.sources
                for partition in range(self.broker.admin.describe_topics()[topic].partition_count)
            ),
            LAST_STABLE,
        )
        while not ended.wait(0.02):
            committed = self.broker.group(self.topology.job).committed()
            ends = self.broker.admin.list_offsets(sources)
            read = all(place in committed and committed[place].offset >= end for place, end in ends.items())
            if read and not unread_places(self.topology, self.broker):
                stop.set()
                return


def entries(broker: Broker, place: TopicPartition) -> list[Entry]:
    """Return the committed records of a partition."""
    with contextlib.closing(broker.fetcher()) as fetcher:
        return [
            entry
            for records in read_to(broker, fetcher, place, None)
            for entry in zip(records.keys, records.values, records.timestamps_ms.tolist(), strict=True)
        ]


def rewrite(broker: Broker, harmed: TopicPartition, harm: Callable[[list[Entry]], list[Entry]]) -> None:
    """Make a topic anew with the same records, but for one partition, whose records `harm` changes."""
    described = broker.admin.describe_topics()[harmed.topic]
    places = [TopicPartition(harmed.topic, partition) for partition in range(described.partition_count)]
    kept = {place: entries(broker, place) for place in places}
    kept[harmed] = harm(kept[harmed])
    broker.admin.delete_topic(harmed.topic)
    broker.admin.create_topic(harmed.topic, described.partition_count, described.config)
    producer = broker.producer()
    for place, some in kept.items():
        if some:
            keys, values, stamps = zip(*some, strict=True)
            producer.send(place, EncodedRecords.to_append(timestamps_ms=stamps, keys=keys, values=values))
    producer.flush()
    producer.close()


def first_entry(some: list[Entry]) -> int:
    return next(index for index, (key, _, _) in enumerate(some) if key != POSITION_KEY)


def flipped(some: list[Entry]) -> list[Entry]:
    at = first_entry(some)
    key, value, stamp = some[at]
    assert value is not None
    return [*some[:at], (key, value[:-1] + bytes([value[-1] ^ 1]), stamp), *some[at + 1 :]]


def in_a_pair(some: list[Entry]) -> int:
    """Return where an entry stands that is not alone in its transaction."""
    return next(index for index in range(len(some) - 1) if POSITION_KEY not in (some[index][0], some[index + 1][0]))


def dropped(some: list[Entry]) -> list[Entry]:
    at = in_a_pair(some)
    return some[:at] + some[at + 1 :]


def doubled(some: list[Entry]) -> list[Entry]:
    at = first_entry(some)
    return [*some[: at + 1], *some[at:]]


def doubled_later(some: list[Entry]) -> list[Entry]:
    """An entry again in the next transaction, where it changes nothing."""
    at = first_entry(some)
    position = next(index for index, (key, _, _) in enumerate(some) if index > at and key == POSITION_KEY)
    return [*some[: position + 1], some[at], *some[position + 1 :]]


def reordered(some: list[Entry]) -> list[Entry]:
    at = in_a_pair(some)
    return [*some[:at], some[at + 1], some[at], *some[at + 2 :]]


def position_dropped(some: list[Entry]) -> list[Entry]:
    at = next(index for index, (key, _, _) in enumerate(some) if key == POSITION_KEY)
    return some[:at] + some[at + 1 :]


def last_position_dropped(some: list[Entry]) -> list[Entry]:
    return some[:-1]


def transactions_swapped(some: list[Entry]) -> list[Entry]:
    first, second = [index for index, (key, _, _) in enumerate(some) if key == POSITION_KEY][:2]
    return [*some[first + 1 : second + 1], *some[: first + 1], *some[second + 1 :]]


def transaction_doubled(some: list[Entry]) -> list[Entry]:
    first = next(index for index, (key, _, _) in enumerate(some) if key == POSITION_KEY)
    return [*some[: first + 1], *some]


HARMS: list[Callable[[list[Entry]], list[Entry]]] = [
    flipped,
    dropped,
    doubled,
    doubled_later,
    reordered,
    position_dropped,
    last_position_dropped,
    transactions_swapped,
    transaction_doubled,
]


def write_changelog(directory: Path, topic: str, *, index: int, store: str, key_count: int) -> None:
    """Write a changelog of one partition, of a task that never ran: each key twice, and every tenth removed again."""
    broker = open_broker(f"log://{directory}?durability=os")
    broker.admin.create_topic(topic, 1, {"cleanup.policy": "compact"})
    producer, contents, digest = broker.producer("task"), dict[bytes, bytes](), Digest()
    for transaction in range(1, 6):
        changed: dict[bytes, bytes | None] = {
            store_key(index, b"%08d" % number): b"%d of %d" % (transaction, number)
            for number in range(key_count)
            if number % 4 == transaction % 4
        }
        if transaction == 5:
            changed |= {store_key(index, b"%08d" % number): None for number in range(0, key_count, 10)}
        keys = list(changed)
        digest.replace(keys, [contents.get(key) for key in keys], list(changed.values()))
        contents = {key: value for key, value in (contents | changed).items() if value is not None}  # type: ignore[operator]  # wider, then narrower
        entries = EntriesDigest()
        entries.add(keys, list(changed.values()))
        position = Position(
            transaction=transaction, digests={store: digest.to_text()}, entries={store: entries.to_text()}
        )
        producer.begin()
        records = EncodedRecords.to_append(
            timestamps_ms=[0] * (len(keys) + 1),
            keys=[*keys, POSITION_KEY],
            values=[*changed.values(), orjson.dumps(position.to_json())],
        )
        producer.send(TopicPartition(topic, 0), records)
        producer.commit()
    producer.close()
    broker.close()
