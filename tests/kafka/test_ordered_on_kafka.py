"""A join, a table and `process` on a real Kafka: a killed worker, verify and replay leave what sorting by turn gives.

`tests/property/test_order.py` does so over brokers in memory, under drawn schedules.
"""

import contextlib
import random
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from pathlib import Path

import orjson
import pytest
from command_line import ROOT, SECONDS, consumed, done, environment
from workers import send

from streamkit.broker import open_broker
from streamkit.broker.partitioner import partition_of
from streamkit.records import TopicPartition

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

PARTITION_COUNT = 2
ROWS_COUNT = 300
"""In each topic."""

JOB = """
from collections.abc import Iterator

import msgspec

from streamkit import Context, Job, Record


class Note(msgspec.Struct):
    at: str
    who: str
    text: str
    ts: int


job = Job("{name}")
one, other = [job.stream(f"{name}-{{topic}}", key=str, value=Note, timestamp="ts") for topic in "ab"]
seen = job.store("seen", key=str, value=str)
def both(one: Note, other: Note) -> Note:
    return Note(one.at, one.who, one.text + other.text, one.ts)


one.join(job.table("{name}-c", key=str, value=Note, timestamp="ts"), both, name="pairs").to("{name}-joined")


def by_who(note: Note) -> str:
    return note.who


@one.merge(other).key_by(by_who, name="by_who", shards=3).process(stores=[seen])
def so_far(ctx: Context, note: Record[str, Note]) -> Iterator[Record[str, Note]]:
    texts = ((ctx.store(seen).get(note.key) or "") + note.value.text)[-60:]
    ctx.store(seen).put(note.key, texts)
    yield note.with_value(Note(note.value.at, note.key, texts, note.value.ts))


so_far.to("{name}-processed")
"""

Note = dict[str, object]
Made = dict[object, list[object]]
"""The texts that are written under each key, in order."""


def notes(topic: str) -> list[Note]:
    rng = random.Random(topic)
    return [
        {"at": rng.choice("klmn"), "who": rng.choice("wxyz"), "text": f"<{topic}{number}>", "ts": number * 10 + late}
        for number in range(ROWS_COUNT)
        for late in [rng.randrange(-40, 40)]
    ]


def fill(url: str, topic: str, sent: list[Note]) -> None:
    """Send notes in small batches, as a fetch takes no less than a whole one."""
    with contextlib.closing(open_broker(url)) as broker:
        broker.admin.create_topic(topic, PARTITION_COUNT, {"retention.ms": "-1"})
        producer = broker.producer()
        for number, note in enumerate(sent):
            key = str(note["at"]).encode()
            send(producer, TopicPartition(topic, partition_of(key, PARTITION_COUNT)), key, orjson.dumps(note))
            if number % 30 == 0:
                producer.flush()
        producer.flush()
        producer.close()


def in_turn(topics: dict[str, list[Note]]) -> list[tuple[str, Note]]:
    """Sort by the largest timestamp of the partition so far, topic, partition, offset; return topic and note."""
    rows = []
    for topic, sent in topics.items():
        times_ms = [-(2**62)] * PARTITION_COUNT
        for offset, note in enumerate(sent):
            partition = partition_of(str(note["at"]).encode(), PARTITION_COUNT)
            times_ms[partition] = max(times_ms[partition], int(str(note["ts"])))
            rows.append(((times_ms[partition], topic, partition, offset), note))
    return [(turn[1], note) for turn, note in sorted(rows, key=lambda row: row[0])]


def joined(rows: list[tuple[str, Note]]) -> Made:
    latest: dict[object, str] = {}
    made: Made = defaultdict(list)
    for topic, note in rows:
        if topic == "c":
            latest[note["at"]] = str(note["text"])
        elif topic == "a" and note["at"] in latest:
            made[note["at"]].append(str(note["text"]) + latest[note["at"]])
    return made


def processed(rows: list[tuple[str, Note]]) -> Made:
    made: Made = defaultdict(list)
    for note in (note for topic, note in rows if topic != "c"):
        before = made[note["who"]][-1:] or [""]
        made[note["who"]].append((str(before[0]) + str(note["text"]))[-60:])
    return made


def texts(topic: str, broker: str, cwd: Path) -> Made:
    made: Made = defaultdict(list)
    for record in consumed(topic, "--broker", broker, cwd=cwd):
        assert isinstance(record["value"], dict)
        made[record["key"]].append(record["value"]["text"])
    return made


def count_of(made: Made) -> int:
    return sum(map(len, made.values()))


def compared(command: str, *arguments: str, cwd: Path) -> set[object]:
    told = orjson.loads(done(command, "job.py", "--json", *arguments, cwd=cwd).splitlines()[-1])
    return {one["equal"] for one in told["comparisons"]}


def test_what_depends_on_order_is_what_sorting_by_turn_gives(kafka: str, tmp_path: Path) -> None:
    name, url = f"ordered-{uuid.uuid4().hex[:8]}", f"kafka://{kafka}"
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    topics = {topic: notes(topic) for topic in "abc"}
    for topic, sent in topics.items():
        fill(url, f"{name}-{topic}", sent)
    rows = in_turn(topics)
    expected = {f"{name}-joined": joined(rows), f"{name}-processed": processed(rows)}

    program = [sys.executable, str(ROOT / "tests" / "support" / "killed_worker.py"), url, "state", "14"]
    dead = subprocess.run(program, cwd=tmp_path, env=environment(), capture_output=True, check=False, timeout=SECONDS)
    assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
    written = sum(count_of(texts(topic, url, tmp_path)) for topic in expected)
    assert 0 < written < sum(map(count_of, expected.values())), "the worker did not die halfway"

    where = ("--broker", url, "--state-dir", "state")
    done("run", "job.py", "--bounded", *where, cwd=tmp_path)
    assert {topic: texts(topic, url, tmp_path) for topic in expected} == expected
    assert compared("verify", *where, cwd=tmp_path) == {True}
    assert compared("replay", "--yes", *where, cwd=tmp_path) == {True}
    assert {topic: texts(topic, url, tmp_path) for topic in expected} == expected
