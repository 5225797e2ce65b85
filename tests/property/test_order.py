"""Nodes that depend on the order of their rows have one answer: the one that sorting all records by their turn gives.

The model here knows nothing of tasks: a record's turn is (largest timestamp of its partition so far, topic, partition,
offset). What the machine makes of it, under drawn schedules and crashes, must be equal.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, after
from scenarios import FINE

from streamkit import Job

INTERLEAVINGS = 1000 if settings().max_examples >= 500 else 100
"""Of each job, at least; two schedules of an example are two of them."""


class Note(msgspec.Struct):
    """A record: whose it is, and a text that tells it from all others."""

    who: str
    text: str
    ts: int


def both(one: Note, other: Note) -> Note:
    return Note(one.who, one.text + other.text, other.ts)


def noted(texts: list[str], note: Note) -> list[str]:
    return [*texts, note.text]


def by_who(note: Note) -> str:
    return note.who


def in_place(job: Job, topics: list[str]) -> None:
    """Keyed at the source, so each partition has its own order."""
    first, *others = [job.stream(topic, key=str, value=Note, timestamp="ts") for topic in topics]
    stream = first.merge(*others)
    stream.group_by_key().reduce(both, commutative=False, name="folded").to("folded")
    stream.group_by_key().window(FINE).aggregate(noted, initial=list[str], name="listed").to("listed")


def shuffled(job: Job, topics: list[str]) -> None:
    """Keyed anew, so that the rows of all partitions come together."""
    first, *others = [job.stream(topic, key=str, value=Note, timestamp="ts") for topic in topics]
    stream = first.merge(*others) if others else first
    grouped = stream.group_by(by_who, shards=2)
    grouped.reduce(both, commutative=False, name="folded").to("folded")
    grouped.window(FINE).aggregate(noted, initial=list[str], name="listed").to("listed")


Records = Mapping[tuple[str, int], list[Note]]
"""The records of each partition."""


@dataclass(frozen=True)
class Row:
    turn: tuple[int, str, int, int]
    late: bool
    note: Note


def rows_in_turn(records: Records) -> list[Row]:
    """Return all records in their order, each with whether its window of FINE is closed when it comes."""
    rows = []
    for (topic, partition), notes in records.items():
        time_ms = -(2**62)
        for offset, note in enumerate(notes):
            end_ms = note.ts - note.ts % FINE.size_ms + FINE.size_ms
            late = time_ms >= end_ms + FINE.grace_ms
            time_ms = max(time_ms, note.ts)
            rows.append(Row((time_ms, topic, partition, offset), late, note))
    return sorted(rows, key=lambda row: row.turn)


def model(records: Records, key_of: Callable[[Row], str]) -> tuple[dict[str, str], dict[tuple[str, int], list[str]]]:
    """Return what the fold makes of each key, and what the windows list."""
    folded: dict[str, str] = defaultdict(str)
    listed: dict[tuple[str, int], list[str]] = defaultdict(list)
    for row in rows_in_turn(records):
        folded[key_of(row)] += row.note.text
        if not row.late:
            listed[key_of(row), row.note.ts - row.note.ts % FINE.size_ms].append(row.note.text)
    return dict(folded), dict(listed)


def texts_of(stamps: Mapping[tuple[str, int], list[tuple[str, int]]]) -> Records:
    """Give each record a text of its own."""
    return {
        place: [Note(who, f"<{place[0]}{place[1]}:{number}>", ts) for number, (who, ts) in enumerate(rows)]
        for place, rows in stamps.items()
    }


def place_key(place: tuple[str, int], who: str) -> str:
    return f"{place[1]}{who}"


def run(define: Callable[[Job, list[str]], None], records: Records, seed: int, gaps: list[int]) -> Machine:
    topics = sorted({topic for topic, _ in records})
    job = Job("job")
    define(job, topics)
    count = 1 + max(partition for _, partition in records)
    machine = Machine(job, dict.fromkeys(topics, count))
    for (topic, partition), notes in records.items():
        rows = [(place_key((topic, partition), note.who).encode(), msgspec.json.encode(note), 0) for note in notes]
        machine.send(topic, partition, rows)
    machine.crash_at = after(gaps)
    machine.run_bounded(random.Random(seed))
    return machine


def read(machine: Machine) -> tuple[dict[str, str], dict[tuple[str, int], list[str]]]:
    folded = {(key or b"").decode(): orjson.loads(value or b"")["text"] for key, value, _ in machine.read("folded")}
    listed = {}
    for key, value, stamp in machine.read("listed"):
        listed[(key or b"").decode(), stamp + 1 - FINE.size_ms] = orjson.loads(value or b"")["value"]
    return folded, listed


def topics_of(names: list[str], partitions: int) -> st.SearchStrategy[Records]:
    rows = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), max_size=8)
    places = [(name, partition) for name in names for partition in range(partitions)]
    return st.fixed_dictionaries(dict.fromkeys(places, rows)).map(texts_of)


JOBS = {
    "two inputs in place": (in_place, ["a", "b"], 2),
    "three inputs in place": (in_place, ["a", "b", "c"], 1),
    "two partitions shuffled": (shuffled, ["a"], 2),
    "two inputs shuffled": (shuffled, ["a", "b"], 2),
    "three inputs shuffled": (shuffled, ["a", "b", "c"], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_every_interleaving_gives_what_sorting_by_turn_gives(name: str) -> None:
    define, names, partitions = JOBS[name]

    @settings(max_examples=INTERLEAVINGS // (2 * len(JOBS)))
    @given(topics_of(names, partitions), st.integers(0, 2**32), st.lists(st.integers(1, 40), max_size=3))
    def check(records: Records, seed: int, gaps: list[int]) -> None:
        if define is in_place:
            by_place = {note.text: place_key(place, note.who) for place, notes in records.items() for note in notes}
            expected = model(records, lambda row: by_place[row.note.text])
        else:
            expected = model(records, lambda row: row.note.who)
        for gaps_now in ([], gaps):
            made = read(run(define, records, seed + len(gaps_now), gaps_now))
            assert made == expected

    check()
