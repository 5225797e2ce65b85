"""`streamkit replay` killed at drawn moments: the same command ends with the outputs and the digests of a calm one."""

import contextlib
import random
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from changelogs import Entry, entries
from command_line import ROOT, environment

from streamkit.broker import open_broker
from streamkit.records import EncodedRecords, TopicPartition

SEED = 20_261_126
KILLS = 14
LINES = 30_000

pytestmark = [pytest.mark.process, pytest.mark.slow]


def fill(directory: Path) -> None:
    rng = random.Random(SEED)
    words = [f"w{number}" for number in range(3000)]
    with contextlib.closing(open_broker(f"log://{directory}")) as broker:
        broker.admin.create_topic("lines", 3)
        producer = broker.producer()
        for number in range(30):
            lines = [" ".join(rng.choices(words, k=10)).encode() for _ in range(LINES // 30)]
            records = EncodedRecords.to_append(timestamps_ms=[0] * len(lines), keys=[None] * len(lines), values=lines)
            producer.send(TopicPartition("lines", number % 3), records)
        producer.flush()
        producer.close()


def started(command: str, directory: Path, *flags: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "streamkit", command, "jobs/word_count.py", "--broker", f"log://{directory}"]
    return subprocess.Popen(
        [*arguments, *flags], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(command: str, directory: Path, *flags: str) -> bytes:
    process = started(command, directory, *flags)
    printed, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints.decode()
    return printed


def outputs(directory: Path) -> list[Entry]:
    with contextlib.closing(open_broker(f"log://{directory}")) as broker:
        assert "word_count-replay" not in broker.admin.describe_topics()
        count = broker.admin.describe_topics()["word_counts"].partition_count
        return sorted(entry for part in range(count) for entry in entries(broker, TopicPartition("word_counts", part)))


@pytest.mark.timeout(600)
def test_a_killed_replay_ends_as_a_calm_one(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    directory = tmp_path / "log"
    fill(directory)
    ended("run", directory, "--bounded")
    before = outputs(directory)
    told = [orjson.loads(line) for line in ended("replay", directory, "--yes", "--json").splitlines()]
    calm = {one["task"]: one["digest"] for one in told[-1]["comparisons"]}
    assert {one["equal"] for one in told[-1]["comparisons"]} == {True}
    assert outputs(directory) == before
    killed = 0
    while killed < KILLS:
        process = started("replay", directory, "--yes")
        try:
            _, complaints = process.communicate(timeout=rng.uniform(0.3, 2.5))
            assert process.returncode == 0, complaints.decode()
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
    told = [orjson.loads(line) for line in ended("replay", directory, "--yes", "--json").splitlines()]
    assert {one["equal"] for one in told[-1]["comparisons"]} == {True}
    assert {one["task"]: one["digest"] for one in told[-1]["comparisons"]} == calm
    assert outputs(directory) == before
    assert b"24 equal, 0 different" in ended("verify", directory)
