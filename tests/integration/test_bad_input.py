"""What bad input gets: an exit code, a message that names the place, and nothing lost.

A job reads good records and commits; then something bad comes. The run stops with its place and its first bytes, what
was committed stays as it was, and the next run stops at the same record.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from command_line import consumed, done, streamkit
from workers import Read, read

from streamkit.broker import open_broker
from streamkit.errors import PREVIEW_BYTES
from streamkit.records import EncodedRecords, TopicPartition

pytestmark = [pytest.mark.process, pytest.mark.slow]

JOB = '''
"""Totals by name: a typed value, a declared key, an event time, a sum."""
import msgspec
from streamkit import Job, agg

class Sale(msgspec.Struct):
    name: str
    amount: int
    ts: int

job = Job("totals")
sales = job.stream("sales", key=int, value=Sale, timestamp="ts")
sales.map(lambda sale: sale.name * (sale.amount if sale.amount < 0 else 1)).to("names")
sales.group_by("name", type=str, name="by_name", shards=2).agg({"total": agg.sum("amount")}, name="total").to("totals")
'''

UNTYPED = '''
"""A timestamp that the engine itself must judge."""
from streamkit import Job

job = Job("totals")
job.stream("sales", timestamp="ts").map(lambda sale: sale["name"]).to("names")
'''

LONG = '''
"""One output over the limit."""
from streamkit import Job

job = Job("totals")
job.stream("sales").map(lambda sale: sale["name"] * sale["amount"]).to("names")
'''

GOOD = [(b"1", b'{"name": "a", "amount": 1, "ts": 1}'), (b"2", b'{"name": "b", "amount": 2, "ts": 2}')]


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One bad record, and what the error says of it."""

    key: bytes | None = b"3"
    value: bytes
    says: tuple[str, ...]
    job: str = JOB


BAD_RECORDS = {
    "undecodable JSON": Bad(
        value=b'{"name": "c", "amount": ', says=("does not decode as Sale", '{"name": "c", "amount": ')
    ),
    "undecodable JSON of many bytes": Bad(
        value=b'{"name": "' + b"x" * 5000, says=("does not decode as Sale", "x" * 150)
    ),
    "a missing field": Bad(value=b'{"name": "c", "ts": 3}', says=("amount", '{"name": "c", "ts": 3}')),
    "a timestamp that is no number": Bad(
        value=b'{"name": "c", "amount": 3, "ts": "noon"}', says=("ts", "int", '"ts": "noon"')
    ),
    "an untyped timestamp that is no number": Bad(
        value=b'{"name": "c", "amount": 3, "ts": "noon"}', says=("timestamp", "noon"), job=UNTYPED
    ),
    "an untyped timestamp that is missing": Bad(value=b'{"name": "c"}', says=("timestamp", "None"), job=UNTYPED),
    "a key of the wrong type": Bad(key=b"three", value=b'{"name": "c", "amount": 3, "ts": 3}', says=("key", "three")),
    "a null key where one is declared": Bad(
        key=None, value=b'{"name": "c", "amount": 3, "ts": 3}', says=("key", "null")
    ),
    "an output over the limit": Bad(
        value=b'{"name": "toolong", "amount": 200000}', says=("takes 14000", "1048588", "toolong" * 20), job=LONG
    ),
}


def append(directory: Path, *records: tuple[bytes | None, bytes]) -> None:
    """Append records to the only partition of `sales`."""
    broker = open_broker(f"log://{directory / '.streamkit'}")
    broker.admin.create_topic("sales", 1)
    producer = broker.producer()
    for key, value in records:
        producer.send(
            TopicPartition("sales", 0), EncodedRecords.to_append(timestamps_ms=[0], keys=[key], values=[value])
        )
    producer.flush()
    producer.close()
    broker.close()


def committed_offset(directory: Path) -> int:
    """Return the committed offset of the source."""
    broker = open_broker(f"log://{directory / '.streamkit'}")
    at = broker.group("totals").committed()[TopicPartition("sales", 0)].offset
    broker.close()
    return at


def outputs(directory: Path) -> list[Read]:
    """Return the committed records of the sinks that exist."""
    broker = open_broker(f"log://{directory / '.streamkit'}")
    there = broker.admin.describe_topics()
    found = [read(broker, topic) for topic in ("names", "totals") if topic in there]
    broker.close()
    return found


@pytest.mark.parametrize("bad", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_stops_the_run_at_its_place_and_loses_nothing(tmp_path: Path, bad: Bad) -> None:
    (tmp_path / "job.py").write_text(bad.job)
    append(tmp_path, *GOOD)
    done("run", "job.py", "--bounded", cwd=tmp_path)
    before, offset = outputs(tmp_path), committed_offset(tmp_path)
    assert before[0], "the good records were published"
    assert offset == 2
    append(tmp_path, GOOD[0], (bad.key, bad.value), GOOD[1])
    messages = []
    for _ in range(2):
        ended = streamkit("run", "job.py", "--bounded", "--continue", cwd=tmp_path)
        assert ended.returncode == 1
        messages.append(ended.stderr.decode())
        assert "Traceback" not in messages[-1]
        after = outputs(tmp_path)
        assert [rows[: len(was)] for rows, was in zip(after, before, strict=True)] == before
        assert 2 <= committed_offset(tmp_path) <= 3, "nothing at or after the bad record is committed"
    assert messages[0] == messages[1], "the next run stops at the same record"
    assert "record sales-0 offset 3" in messages[0]
    for part in bad.says:
        assert part in messages[0], messages[0]
    assert len(max(messages[0].splitlines(), key=len)) < PREVIEW_BYTES + 200, "only the first bytes are shown"


def test_an_integer_sum_that_leaves_64_bits_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    """The sum is over its bound in a merge behind the shuffle, so the place is the group."""
    (tmp_path / "job.py").write_text(JOB)
    append(tmp_path, (b"1", b'{"name": "a", "amount": 9223372036854775807, "ts": 1}'))
    done("run", "job.py", "--bounded", cwd=tmp_path)
    before = outputs(tmp_path)
    append(tmp_path, GOOD[0])
    messages = []
    for _ in range(2):
        ended = streamkit("run", "job.py", "--bounded", "--continue", cwd=tmp_path)
        assert ended.returncode == 1
        messages.append(ended.stderr.decode())
        assert outputs(tmp_path)[1] == before[1]
    assert messages[0] == messages[1]
    assert "an integer sum leaves 64 bits" in messages[0]
    assert "node total" in messages[0]
    assert "a" in messages[0]


@pytest.mark.parametrize("arguments", [(), ("--key-field", "name")], ids=["without keys", "with keys"])
def test_a_record_over_the_limit_is_not_produced_and_a_file_not_at_all(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    lines = [orjson.dumps({"name": "a"}), orjson.dumps({"name": "y" * 1_048_588}), orjson.dumps({"name": "b"})]
    (tmp_path / "file.jsonl").write_bytes(b"\n".join(lines))
    ended = streamkit("produce", "sales", "file.jsonl", *arguments, cwd=tmp_path)
    message = ended.stderr.decode()
    assert ended.returncode == 1
    for part in ("line 2 takes", "sales's max.message.bytes of 1048588", '{"name":"yyyy'):
        assert part in message
    assert len(message) < 1000
    assert consumed("sales", cwd=tmp_path) == []


MODULES = {
    "a module that raises at import": ("1 / 0\n", ("ZeroDivisionError", "job.py, line 1")),
    "a module that does not parse": ("job = Job(\n", ("SyntaxError", "job.py, line 1")),
    "a module that imports what is not there": ("import no_such_module\n", ("no_such_module", "job.py, line 1")),
    "a module without a job": ("x = 1\n", ("has no job",)),
    "two jobs in one module": (
        'from streamkit import Job\none = Job("one")\ntwo = Job("two")\n',
        ("2 jobs", "one = Job('one')", "two = Job('two')"),
    ),
    "a name used twice": (
        'from streamkit import Job\njob = Job("twice")\n'
        'lines = job.stream("lines", value=str)\n'
        'lines.group_by(str, name="by").count(name="n").to("a")\n'
        'lines.group_by(str, name="by2").count(name="n").to("b")\n',
        ("two nodes named 'n'", "job.py, line 5"),
    ),
    "a field that the type does not have": (
        "import msgspec\nfrom streamkit import Job\n\nclass Bid(msgspec.Struct):\n    price: int\n\n"
        'job = Job("fields")\njob.stream("bids", value=Bid, timestamp="at").to("out")\n',
        ("'at'", "Bid", "price", "job.py, line 8"),
    ),
    "a column that the rows do not have": (
        "import msgspec\nfrom streamkit import Job, agg\n\nclass Bid(msgspec.Struct):\n    price: int\n\n"
        'job = Job("fields")\nbids = job.stream("bids", value=Bid)\n'
        'bids.group_by("price", name="by").agg({"best": agg.max("prize")}, name="best").to("out")\n',
        ("'prize'", "price", "job.py, line 9"),
    ),
}


@pytest.mark.parametrize(("source", "says"), MODULES.values(), ids=MODULES)
def test_a_wrong_module_is_refused_before_anything_is_touched(
    tmp_path: Path, source: str, says: tuple[str, ...]
) -> None:
    (tmp_path / "job.py").write_text(source)
    ended = streamkit("run", "job.py", "--bounded", cwd=tmp_path)
    message = ended.stderr.decode()
    assert ended.returncode == 2
    assert "Traceback" not in message
    for part in says:
        assert part in message, message
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["job.py"]


def test_an_unknown_topic_is_refused_and_no_topic_is_made(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    done("topics", "create", "sale", cwd=tmp_path)
    ended = streamkit("run", "job.py", "--bounded", cwd=tmp_path)
    assert ended.returncode == 2
    for part in ("'sales'", "sale", "streamkit produce sales FILE"):
        assert part in ended.stderr.decode()
    assert done("topics", "list", cwd=tmp_path) == "sale\n"
    assert streamkit("consume", "sales", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "job.py", "--bouned"),
        ("run", "job.py", "--continue"),
        ("run", "job.py", "--guarantee", "at-most-once"),
        ("run",),
        ("run", "nowhere.py"),
        ("run", "no.such.module"),
        ("run", "job.py", "--broker", "kafak://x"),
        ("run", "job.py", "--broker", "log://nowhere"),
        ("consume", "sales", "--form", "latest"),
        ("topics", "create", "no/slash"),
        ("topics", "create", "x", "--partitions", "0"),
        ("produce", "x", "no-such-file"),
        ("log", "dump", "job.py"),
        ("frobnicate",),
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_refused_and_touches_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "job.py").write_text(JOB)
    ended = streamkit(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert b"Error: " in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert not (tmp_path / "nowhere").exists()


def test_a_log_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    append(tmp_path, *GOOD)
    broker = open_broker(f"log://{tmp_path / '.streamkit'}")
    ended = streamkit("topics", "list", cwd=tmp_path)
    assert ended.returncode == 3
    assert "in use by another process" in ended.stderr.decode()
    broker.close()
    assert done("topics", "list", cwd=tmp_path) == "sales\n"


def test_a_state_directory_in_use_or_of_another_job_is_refused(tmp_path: Path) -> None:
    """Two logs, so that the log itself is not what is in use."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.py").write_text(JOB)
        append(tmp_path / name, *GOOD)
    state = tmp_path / "state"
    done("run", "job.py", "--bounded", "--state-dir", str(state), cwd=tmp_path / "one")
    kept = sorted(path.name for path in (state / "totals").iterdir())

    from streamkit.seams import SystemFileSystem

    lock = SystemFileSystem().lock(str(state / "totals" / "1_0.lock"))
    assert lock is not None
    append(tmp_path / "one", *GOOD)
    ended = streamkit("run", "job.py", "--bounded", "--continue", "--state-dir", str(state), cwd=tmp_path / "one")
    assert ended.returncode == 3
    assert f"{state}/totals/1_0 is in use" in ended.stderr.decode()
    lock.close()

    moved = tmp_path / "moved"
    (state / "totals").rename(moved)
    (state / "other").mkdir()
    for path in list(moved.iterdir()):
        path.rename(state / "other" / path.name)
    (tmp_path / "one" / "other.py").write_text(JOB.replace('Job("totals")', 'Job("other")'))
    ended = streamkit("run", "other.py", "--bounded", "--state-dir", str(state), cwd=tmp_path / "one")
    assert ended.returncode == 3
    # Tasks open concurrently: either is the first to be refused.
    assert re.search("belongs to task 1_[01] of job totals", ended.stderr.decode())
    assert sorted(path.name for path in (state / "other").iterdir()) == kept, "nothing was set aside or removed"
