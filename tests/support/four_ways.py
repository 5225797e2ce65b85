"""The same records through the same job in four ways, and what is left after each: all of it must be equal.

Live: records come while the job runs, then its input ends. Bounded: all are there before. Files: they are lines, read
in place. Replayed: the run is broken off, everything is computed anew, and then the run goes on.
"""

import itertools
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from drawn_jobs import DrawnJob, SourceKind
from hypothesis import strategies as st
from machine import Crashed, Machine

from streamkit.broker import Broker
from streamkit.broker.partitioner import partition_of
from streamkit.files.broker import FileBroker
from streamkit.files.fetcher import FileTopic
from streamkit.files.plan import FilePartition, Part
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime.comparing import Past
from streamkit.runtime.options import RunOptions
from streamkit.runtime.replay import REPLAY_STEPS, Replay, ReplayEnvironment
from streamkit.runtime.stores import MemoryStores
from streamkit.seams import MemoryFileSystem
from streamkit.seams.user_files import FileFacts, facts_of

__all__ = [
    "DrawnRecords",
    "FilesMachine",
    "Outcome",
    "ReplayedMachine",
    "bounded",
    "differences",
    "fill",
    "live",
    "outcome",
    "record_lists",
    "replayed",
]

FIRST_STAMP_MS, SECOND_STAMP_MS = 35, 80
"""Timestamps of the records themselves: those of a partition are in two files, and these are the files' times."""
NUMBERS = (0.5, 0.1, 0.2, 1e16, -1e16, -0.0, 0.0, 3.0, 1e-320)

Line = tuple[bytes | None, bytes, int]
"""Key, value and timestamp (ms)."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One record before it is a line."""

    key: int
    shop: str
    n: int
    x: float
    m: int | None
    ts: int


rows = st.builds(
    Drawn,
    key=st.integers(0, 2),
    shop=st.sampled_from("abc"),
    n=st.integers(0, 6),
    x=st.sampled_from(NUMBERS),
    m=st.none() | st.integers(0, 4),
    ts=st.integers(0, 120),
)
record_lists = st.integers(1, 3).flatmap(
    lambda count: st.tuples(*[st.lists(st.lists(rows, max_size=12), min_size=count, max_size=count) for _ in range(2)])
)
"""Of two sources with as many partitions."""


def keys_of(partition: int, count: int, key_type: Any) -> list[bytes]:
    """Return three keys that belong into a partition."""
    every = (str(number).encode() if key_type is int else b"k%d" % number for number in itertools.count())
    return list(itertools.islice((key for key in every if partition_of(key, count) == partition), 3))


@dataclass(frozen=True, kw_only=True)
class DrawnRecords:
    """The records of each source, by partition, as lines; `cuts` say where the second file of each begins."""

    lines: Mapping[str, Sequence[Sequence[Line]]]
    cut: int

    @classmethod
    def of(cls, kinds: Sequence[SourceKind], drawn: Sequence[Sequence[Sequence[Drawn]]], cut: int) -> "DrawnRecords":
        lines = {}
        for number, (kind, partitions) in enumerate(zip(kinds, drawn, strict=False)):
            lines[f"source_{number}"] = [
                _lines(some, keys_of(partition, len(partitions), kind.key), kind.key, cut)
                for partition, some in enumerate(partitions)
            ]
        return cls(lines=lines, cut=cut)

    @property
    def partition_counts(self) -> dict[str, int]:
        return {topic: len(partitions) for topic, partitions in self.lines.items()}

    def places(self) -> dict[TopicPartition, Sequence[Line]]:
        return {
            TopicPartition(topic, partition): some
            for topic, partitions in self.lines.items()
            for partition, some in enumerate(partitions)
        }

    def write(self, directory: Path) -> tuple[dict[str, tuple[FilePartition, ...]], dict[str, FileFacts]]:
        """Write two files a partition."""
        facts: dict[str, FileFacts] = {}
        made: dict[str, list[FilePartition]] = {topic: [] for topic in self.lines}
        for place, some in self.places().items():
            parts: list[Part] = []
            for number, (stamp_ms, of_file) in enumerate(
                ((FIRST_STAMP_MS, some[: self.cut]), (SECOND_STAMP_MS, some[self.cut :]))
            ):
                path = directory / f"{place.topic}-{place.partition}-{number}.jsonl"
                path.write_bytes(b"".join(value + b"\n" for _, value, _ in of_file))
                os.utime(path, ns=(stamp_ms * 1_000_000,) * 2)
                found = facts_of(str(path))
                assert found is not None
                facts[found.path] = found
                offset = parts[-1].end_offset if parts else 0
                parts.append(Part(path=found.path, begin=0, end=found.size_bytes, offset=offset))
            made[place.topic].append(FilePartition(parts=tuple(parts)))
        return {topic: tuple(partitions) for topic, partitions in made.items()}, facts


def _lines(some: Sequence[Drawn], keys: Sequence[bytes], key_type: Any, cut: int) -> list[Line]:
    lines = []
    for number, row in enumerate(some):
        value = {"shop": row.shop, "n": row.n, "x": row.x, "m": row.m, "ts": row.ts}
        key = None
        if key_type is not None:
            key = keys[row.key]
            value["key"] = int(key) if key_type is int else key.decode()
        lines.append((key, orjson.dumps(value), FIRST_STAMP_MS if number < cut else SECOND_STAMP_MS))
    return lines


class FilesMachine(Machine):
    """A machine whose sources are files."""

    def __init__(self, drawn: DrawnJob, kinds: Sequence[SourceKind], records: DrawnRecords, directory: Path) -> None:
        partitions, self._facts = records.write(directory)
        self._topics = {
            topic: FileTopic(
                partitions=partitions[topic],
                key_type=kind.key,
                value_type=drawn.value_type(kind),
            )
            for topic, kind in zip(records.lines, kinds, strict=True)
        }
        super().__init__(drawn.job, {})

    def boot(self) -> None:
        super().boot()
        self.broker: Broker = FileBroker(self.broker, self._topics, self._facts)


class _MemoryReplay(Replay):
    """A replay of stores in memory: nothing of them is on a disk, and the property compares them itself."""

    def _stores_before(self, obstacle: str) -> list[Any]:
        return []


class ReplayedMachine(Machine):
    """A machine whose job is replayed, over every crash."""

    keep_state = False
    """Whether the stores outlive the replay, as on a machine that it does not reach."""

    def replay(self, rng: random.Random) -> str:
        """Replay the job; return why what it is then cannot be what it was, empty if it must be."""
        while True:
            try:
                return self._replayed(rng)
            except Crashed:
                self.crash()

    def _replayed(self, rng: random.Random) -> str:
        environment = ReplayEnvironment(
            broker=self.broker,
            state_dir="state",
            options=RunOptions(),
            fs=MemoryFileSystem(),
            clock=self.clock,
        )
        replay = _MemoryReplay(self.topology, environment)
        for step in REPLAY_STEPS:
            self._observe(step.__name__)
            if step is Replay.run_inputs:
                self._rerun(replay._known.past, rng)
            elif step is not Replay.compare:
                step(replay)
            if step is Replay.remove_state and not replay._journal.reset and not self.keep_state:
                self.stores = MemoryStores()
        replay._open_producer.close()
        return replay._known.past.obstacle

    def _rerun(self, past: Past, rng: random.Random) -> None:
        self.open(bounded=past.bounded, replayed=past)
        self.check_digests()
        if past.finished:
            self.finish(rng)
        else:
            self.drain(rng)
        self.close()


def fill(machine: Machine, records: DrawnRecords, rng: random.Random) -> None:
    """Send all records, some at a time."""
    for place, lines in records.places().items():
        ahead = list(lines)
        while ahead:
            count = rng.randint(1, len(ahead))
            send(machine, place, ahead[:count])
            del ahead[:count]


def send(machine: Machine, place: TopicPartition, lines: Sequence[Line]) -> None:
    keys, values, stamps = zip(*lines, strict=True)
    producer = machine.broker.producer()
    producer.send(place, EncodedRecords.to_append(timestamps_ms=stamps, keys=keys, values=values))
    producer.flush()
    producer.close()


def bounded(drawn: DrawnJob, records: DrawnRecords, rng: random.Random) -> Machine:
    """Run over all records to their end."""
    machine = Machine(drawn.job, records.partition_counts)
    fill(machine, records, rng)
    machine.run_bounded(rng)
    return machine


def live(drawn: DrawnJob, records: DrawnRecords, rng: random.Random) -> Machine:
    """Let records come while the job runs, some here and some there; then end."""
    machine = Machine(drawn.job, records.partition_counts)
    machine.open(bounded=False)
    ahead = {place: list(lines) for place, lines in records.places().items() if lines}
    while ahead:
        if rng.random() < 0.3:
            place = rng.choice(list(ahead))
            count = rng.randint(1, len(ahead[place]))
            send(machine, place, ahead[place][:count])
            del ahead[place][:count]
            if not ahead[place]:
                del ahead[place]
        else:
            machine.step(rng)
    machine.drain(rng)
    machine.close()
    machine.check_digests()
    machine.run_bounded(rng)
    return machine


def replayed(machine: ReplayedMachine, rng: random.Random, *, is_bounded: bool) -> Machine:
    """Run until it crashes, or to the end; replay; go on to the end."""
    try:
        machine.open(bounded=is_bounded)
        if is_bounded:
            machine.finish(rng)
        else:
            machine.drain(rng)
        machine.close()
    except Crashed:
        machine.crash()
    crash_at, machine.crash_at = machine.crash_at, lambda step: None
    machine.open(bounded=is_bounded)
    machine.close()
    before = machine.state()
    machine.crash_at = crash_at
    obstacle = machine.replay(rng)
    assert obstacle or machine.state() == before
    machine.run(rng, bounded=is_bounded)
    if not is_bounded:
        machine.run_bounded(rng)
    return machine


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is left after a run.

    Args:
        facts: How often each record stands in each topic of facts.
        in_order: The records of each key, where they have one order.
        latest: The last value of each key and window, in each topic of updates.
        contents: Of each store, all shards together; without the number of the run that changed a value.
        digests: Of each store, as its positions say.
    """

    facts: Mapping[str, Counter[Any]]
    in_order: Mapping[str, Mapping[bytes | None, Sequence[Any]]]
    latest: Mapping[str, Mapping[Any, bytes | None]]
    contents: Mapping[str, Mapping[bytes, bytes]]
    digests: Mapping[str, str]


def outcome(machine: Machine, drawn: DrawnJob) -> Outcome:
    """Read all that is left; every key must be in its partition."""
    read: dict[str, list[Any]] = {}
    for topic in sorted({topic for sub in machine.topology.sub_topologies for topic in sub.sink_topics}):
        partitions = machine.read_partitions(topic)
        for partition, some in enumerate(partitions):
            assert {partition_of(key, len(partitions)) for key, _, _ in some if key is not None} <= {partition}
        read[topic] = [row for some in partitions for row in some]
    in_order: dict[str, dict[bytes | None, list[Any]]] = {topic: {} for topic in drawn.in_order}
    for topic, of_key in in_order.items():
        for key, value, stamp in read[topic]:
            of_key.setdefault(key, []).append((value, stamp))
    latest: dict[str, dict[Any, bytes | None]] = {topic: {} for topic in drawn.updates}
    for topic, last in latest.items():
        for key, value, _ in read[topic]:
            parsed = orjson.loads(value or b"null")
            last[key, parsed.get("window_start") if isinstance(parsed, dict) else None] = value
    contents, digests = machine.contents()
    return Outcome(
        facts={topic: Counter(some) for topic, some in read.items() if topic not in drawn.updates},
        in_order=in_order,
        latest=latest,
        contents=contents,
        digests=digests,
    )


def differences(made: Outcome, expected: Outcome) -> list[str]:
    """Return what differs, by topic or store."""
    found = []
    for name in ("facts", "in_order", "latest", "contents", "digests"):
        one, other = getattr(made, name), getattr(expected, name)
        found += [
            f"{name} of {at}: {one.get(at)!r}, and not {other.get(at)!r}"
            for at in sorted(one.keys() | other.keys())
            if one.get(at) != other.get(at)
        ]
    return found
