"""Runs over files on Kafka: what they make there is gone when they are done."""

import signal
import subprocess
import sys
import uuid
from pathlib import Path

import orjson
import pytest
from command_line import ROOT, consumed, done, environment, produce

from streamkit.broker import open_broker

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

JOB = """
from streamkit import Job

job = Job("{name}")
lines = job.stream("{name}-lines", value=str)


@lines.group_by
def by_line(line: str) -> str:
    return line


by_line.count(name="counts").to("{name}-counts")
"""


def test_files_are_read_and_written_on_kafka_as_on_the_embedded_log(kafka: str, tmp_path: Path) -> None:
    name, url = f"files-{uuid.uuid4().hex[:8]}", f"kafka://{kafka}"
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    (tmp_path / "in.txt").write_bytes(b"a\nb\na\n")
    read, written = ("--input", f"{name}-lines=in.txt"), ("--output", f"{name}-counts=out.jsonl")
    done("run", "job.py", *read, *written, "--broker", url, cwd=tmp_path)
    rows = [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert {row["key"]: row["value"] for row in rows} == {"a": 2, "b": 1}
    done("run", "job.py", *read, "--broker", url, cwd=tmp_path)
    counts = {row["key"]: row["value"] for row in consumed(f"{name}-counts", "--broker", url, cwd=tmp_path)}
    assert counts == {"a": 2, "b": 1}
    produce(f"{name}-lines", [b"c"], "--broker", url, cwd=tmp_path)
    done("run", "job.py", "--bounded", *written, "--overwrite", "--broker", url, cwd=tmp_path)
    (row,) = [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert (row["key"], row["value"]) == ("c", 1)
    broker = open_broker(url)
    try:
        left = [topic for topic in broker.admin.describe_topics() if topic.startswith(name)]
    finally:
        broker.close()
    assert sorted(left) == [f"{name}-counts", f"{name}-lines"]


def test_a_run_over_files_on_kafka_is_verified_restored_and_replayed(kafka: str, tmp_path: Path) -> None:
    name, url = f"files-{uuid.uuid4().hex[:8]}", f"kafka://{kafka}"
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    (tmp_path / "in.txt").write_bytes(b"a\nb\na\n" * 100)
    bound = ("job.py", "--input", f"{name}-lines=in.txt", "--output", f"{name}-counts=out.jsonl", "--broker", url)
    program = [sys.executable, str(ROOT / "tests" / "support" / "killed_command.py"), "os.rename", "published.new", "1"]
    dead = subprocess.run([*program, "run", *bound], cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
    told = orjson.loads(done("restore", *bound, "--json", cwd=tmp_path).splitlines()[-1])
    assert sum(store["keys"] for store in told["stores"]) == 2
    for command in (("verify",), ("replay", "--yes")):
        told = orjson.loads(done(*command, *bound, "--json", cwd=tmp_path).splitlines()[-1])
        assert {one["equal"] for one in told["comparisons"]} == {True}
    rows = [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert {row["key"]: row["value"] for row in rows} == {"a": 200, "b": 100}
    broker = open_broker(url)
    try:
        left = [topic for topic in broker.admin.describe_topics() if topic.startswith(name)]
    finally:
        broker.close()
    assert left == [], "what the run made on Kafka is gone with it"
