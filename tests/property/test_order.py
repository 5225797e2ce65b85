"""Nodes that depend on the order of their rows have one answer: the one that sorting all records by their turn gives.

The model here knows nothing of tasks: a record's turn is (largest timestamp of its partition so far, topic, partition,
offset). What the machine makes of it, under drawn schedules and crashes, must be equal.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, after
from scenarios import FINE

from streamkit import Context, Job, Record

INTERLEAVINGS = 1100 if settings().max_examples >= 500 else 100
"""Of all jobs together; each example is run under two schedules."""


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


def by_length(note: Note) -> str:
    return str(len(note.text) % 2)


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


def even(note: Note) -> Note:
    if note.ts % 2:
        raise ValueError("odd")
    return note


def lenient(job: Job, topics: list[str]) -> None:
    """Records are left out that a function does not take: they keep their turn, whenever that is found out."""
    first, *others = [job.stream(topic, key=str, value=Note, timestamp="ts", on_error="skip") for topic in topics]
    stream = first.map(even, name="of_first").merge(*(other.map(even) for other in others))
    stream.group_by(by_who, shards=2).reduce(both, commutative=False, name="folded").to("folded")


def joined(job: Job, topics: list[str]) -> None:
    """A stream and the table of a topic, with the keys that they have."""
    stream, *tables = topics
    rows = job.stream(stream, key=str, value=Note, timestamp="ts")
    for topic in tables:
        table = job.table(topic, key=str, value=Note, timestamp="ts")
        rows = rows.join(table, both, name=f"with_{topic}")
    rows.to("out")


def joined_behind(job: Job, topics: list[str]) -> None:
    """A stream and a table of folded rows, each behind a shuffle of its own."""
    one, other = [job.stream(topic, key=str, value=Note, timestamp="ts") for topic in topics]
    table = other.group_by(by_who, name="by_other", shards=2).reduce(both, commutative=False, name="folds")
    one.key_by(by_who, name="by_one", shards=2).join(table, both, name="pairs").to("out")


def processed_twice(job: Job, topics: list[str]) -> None:
    """State that every row adds to, under one key and, behind a second shuffle, under another."""
    first, *others = [job.stream(topic, key=str, value=Note, timestamp="ts") for topic in topics]
    stream = first.merge(*others) if others else first
    seen, later = job.store("seen", key=str, value=str), job.store("later", key=str, value=str)

    @stream.key_by(by_who, name="by_who", shards=2).process(stores=[seen])
    def so_far(ctx: Context, note: Record[str, Note]) -> Iterator[Record[str, Note]]:
        texts = (ctx.store(seen).get(note.key) or "") + note.value.text
        ctx.store(seen).put(note.key, texts)
        yield note.with_value(Note(note.key, texts, note.value.ts))

    again = so_far.key_by(by_length, name="by_length", shards=3)

    @again.process(stores=[later])
    def all_so_far(ctx: Context, note: Record[str, Note]) -> Iterator[Record[str, Note]]:
        texts = (ctx.store(later).get(note.key) or "") + note.value.text[-5:]
        ctx.store(later).put(note.key, texts)
        yield note.with_value(Note(note.key, texts, note.value.ts))

    all_so_far.to("out")


Records = Mapping[tuple[str, int], list[Note]]
"""The records of each partition."""
Made = Mapping[str, list[object]]
"""What is written under each key, in order."""


@dataclass(frozen=True)
class Row:
    """A record in its turn; its window of FINE may be closed when it comes."""

    topic: str
    key: str
    note: Note
    late: bool
    window_ms: int


def rows_in_turn(records: Records) -> list[Row]:
    """Return all records in their order."""
    rows = []
    for (topic, partition), notes in records.items():
        time_ms = -(2**62)
        for offset, note in enumerate(notes):
            window_ms = note.ts - note.ts % FINE.size_ms
            late = time_ms >= window_ms + FINE.size_ms + FINE.grace_ms
            time_ms = max(time_ms, note.ts)
            row = Row(topic, place_key(partition, note.who), note, late, window_ms)
            rows.append(((time_ms, topic, partition, offset), row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def folds(rows: list[Row], key_of: Callable[[Row], str]) -> dict[str, Made]:
    folded: dict[str, str] = defaultdict(str)
    listed: dict[tuple[str, int], list[str]] = defaultdict(list)
    for row in rows:
        folded[key_of(row)] += row.note.text
        if not row.late:
            listed[key_of(row), row.window_ms].append(row.note.text)
    windows: dict[str, list[object]] = defaultdict(list)
    for (key, _), texts in sorted(listed.items()):
        windows[key].append(texts)
    return {"folded": {key: [text] for key, text in folded.items()}, "listed": windows}


def taken(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.note.ts % 2 == 0]


def joins(rows: list[Row], topics: list[str]) -> dict[str, Made]:
    tables: dict[tuple[str, str], str] = {}
    out: dict[str, list[object]] = defaultdict(list)
    for row in rows:
        if row.topic != topics[0]:
            tables[row.topic, row.key] = row.note.text
        elif all((topic, row.key) in tables for topic in topics[1:]):
            out[row.key].append(row.note.text + "".join(tables[topic, row.key] for topic in topics[1:]))
    return {"out": out}


def joins_behind(rows: list[Row], topics: list[str]) -> dict[str, Made]:
    table: dict[str, str] = {}
    out: dict[str, list[object]] = defaultdict(list)
    for row in rows:
        if row.topic == topics[1]:
            table[row.note.who] = table.get(row.note.who, "") + row.note.text
        elif row.note.who in table:
            out[row.note.who].append(row.note.text + table[row.note.who])
    return {"out": out}


def twice(rows: list[Row]) -> dict[str, Made]:
    seen: dict[str, str] = defaultdict(str)
    later: dict[str, str] = defaultdict(str)
    out: dict[str, list[object]] = defaultdict(list)
    for row in rows:
        seen[row.note.who] += row.note.text
        key = by_length(Note("", seen[row.note.who], 0))
        later[key] += seen[row.note.who][-5:]
        out[key].append(later[key])
    return {"out": out}


def texts_of(stamps: Mapping[tuple[str, int], list[tuple[str, int]]]) -> Records:
    """Give each record a text of its own, of one length or another."""
    return {
        place: [
            Note(who, f"<{place[0]}{place[1]}{number}{'!' * (ts % 2)}>", ts) for number, (who, ts) in enumerate(rows)
        ]
        for place, rows in stamps.items()
    }


def place_key(partition: int, who: str) -> str:
    return f"{partition}{who}"


def run(define: Callable[[Job, list[str]], None], records: Records, seed: int, gaps: list[int]) -> Machine:
    topics = sorted({topic for topic, _ in records})
    job = Job("job")
    define(job, topics)
    count = 1 + max(partition for _, partition in records)
    machine = Machine(job, dict.fromkeys(topics, count))
    send(machine, records)
    machine.crash_at = after(gaps)
    machine.run_bounded(random.Random(seed))
    return machine


def send(machine: Machine, records: Records) -> None:
    for (topic, partition), notes in records.items():
        rows = [(place_key(partition, note.who).encode(), msgspec.json.encode(note), 0) for note in notes]
        machine.send(topic, partition, rows)


def read(machine: Machine, topic: str) -> Made:
    """Return what was written under each key; windows of one key close in the order of their ends."""
    made: dict[str, list[object]] = defaultdict(list)
    for key, value, _ in machine.read(topic):
        row = orjson.loads(value or b"")
        made[(key or b"").decode()].append(row["text"] if "text" in row else row["value"])
    return made


@dataclass(frozen=True)
class Case:
    """A job over some topics, and what it is to write."""

    define: Callable[[Job, list[str]], None]
    topics: list[str]
    partitions: int
    model: Callable[[list[Row]], dict[str, Made]]


CASES = {
    "folds over two inputs in place": Case(in_place, ["a", "b"], 2, lambda rows: folds(rows, lambda row: row.key)),
    "folds over three inputs in place": Case(
        in_place, ["a", "b", "c"], 1, lambda rows: folds(rows, lambda row: row.key)
    ),
    "folds behind a shuffle of two partitions": Case(
        shuffled, ["a"], 2, lambda rows: folds(rows, lambda row: row.note.who)
    ),
    "folds behind a shuffle of two inputs": Case(
        shuffled, ["a", "b"], 2, lambda rows: folds(rows, lambda row: row.note.who)
    ),
    "folds behind a shuffle of three inputs": Case(
        shuffled, ["a", "b", "c"], 1, lambda rows: folds(rows, lambda row: row.note.who)
    ),
    "folds without the records that a policy leaves out": Case(
        lenient,
        ["a", "b"],
        2,
        lambda rows: {
            "folded": folds([row for row in rows if row.note.ts % 2 == 0], lambda row: row.note.who)["folded"]
        },
    ),
    "a stream and a table": Case(joined, ["a", "b"], 2, lambda rows: joins(rows, ["a", "b"])),
    "a stream and two tables": Case(joined, ["a", "b", "c"], 1, lambda rows: joins(rows, ["a", "b", "c"])),
    "a join behind two shuffles": Case(joined_behind, ["a", "b"], 2, lambda rows: joins_behind(rows, ["a", "b"])),
    "process behind a shuffle, and behind a second one": Case(processed_twice, ["a", "b"], 2, twice),
    "process over three inputs, behind two shuffles": Case(processed_twice, ["a", "b", "c"], 1, twice),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_interleaving_gives_what_sorting_by_turn_gives(name: str) -> None:
    case = CASES[name]
    rows = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), max_size=8)
    places = [(topic, partition) for topic in case.topics for partition in range(case.partitions)]

    @settings(max_examples=INTERLEAVINGS // (2 * len(CASES)))
    @given(
        st.fixed_dictionaries(dict.fromkeys(places, rows)).map(texts_of),
        st.integers(0, 2**32),
        st.lists(st.integers(1, 40), max_size=3),
    )
    def check(records: Records, seed: int, gaps: list[int]) -> None:
        expected = case.model(rows_in_turn(records))
        for gaps_now in ([], gaps):
            machine = run(case.define, records, seed + len(gaps_now), gaps_now)
            assert {topic: read(machine, topic) for topic in expected} == expected

    check()


@pytest.mark.slow
def test_rows_of_a_second_bounded_run_take_turns_among_themselves() -> None:
    """A task that merged an early and a late input promised, at its end, nothing for the early one's next rows."""
    case = CASES["process behind a shuffle, and behind a second one"]
    first = {("a", 0): [Note("a", "<1>", 60)], ("b", 0): [Note("a", "<2>", 0)], ("a", 1): [], ("b", 1): []}
    second = {("a", 0): [], ("b", 0): [Note("a", "<3>", 20)], ("a", 1): [Note("a", "<4>", 40)], ("b", 1): []}
    expected = case.model([*rows_in_turn(first), *rows_in_turn(second)])
    for seed in range(20):
        machine = run(case.define, first, seed, [])
        send(machine, second)
        machine.run_bounded(random.Random(seed), go_on=True)
        assert {"out": read(machine, "out")} == expected
