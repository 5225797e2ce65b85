"""A job on Kafka as a user runs it, against the same job on the embedded log."""

import uuid
from pathlib import Path

import orjson
import pytest
from command_line import consumed, done, produce

from streamkit.broker import open_broker

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

JOB = """
import operator

from streamkit import Job

job = Job("{name}")
lines = job.stream("{name}-lines", value=str)


@lines.flat_map
def words(line: str) -> list[str]:
    return line.split()


@words.group_by
def by_word(word: str) -> str:
    return word


@by_word.aggregate(initial=int, merge=operator.add)
def counts(total: int, word: str) -> int:
    return total + 1


counts.to("{name}-counts")
"""


def latest(topic: str, broker: str, cwd: Path) -> dict[object, object]:
    return {record["key"]: record["value"] for record in consumed(topic, "--broker", broker, cwd=cwd)}


def test_a_job_on_kafka_has_the_results_that_it_has_on_the_embedded_log(kafka: str, tmp_path: Path) -> None:
    """Two bounded runs: the second restores the counts from the changelog on both."""
    name = f"words-{uuid.uuid4().hex[:8]}"
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    lines = [b"to be or not to be %d" % (index % 7) for index in range(300)]
    results = []
    for broker in (f"kafka://{kafka}", "log://log"):
        for half, options in ((lines[:150], []), (lines[150:], ["--continue"])):
            produce(f"{name}-lines", half, "--partitions", "2", "--broker", broker, cwd=tmp_path)
            done("run", "job.py", "--bounded", *options, "--broker", broker, cwd=tmp_path)
        results.append(latest(f"{name}-counts", broker, tmp_path))
    assert results[0] == results[1]
    assert results[0]["to"] == 600


def test_state_on_kafka_lies_below_the_id_of_the_cluster_unless_said(kafka: str, tmp_path: Path) -> None:
    """And `shards` looks for its size where `run` has put it."""
    name, place = f"words-{uuid.uuid4().hex[:8]}", ["--broker", f"kafka://{kafka}"]
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    produce(f"{name}-lines", [b"to be"], *place, cwd=tmp_path)
    done("run", "job.py", "--bounded", *place, cwd=tmp_path)
    broker = open_broker(f"kafka://{kafka}")
    cluster_id = broker.admin.log_id()
    broker.close()
    assert (tmp_path / ".streamkit" / "kafka" / cluster_id / name / "1_0").is_dir()
    rows = orjson.loads(done("shards", "job.py", "--json", *place, cwd=tmp_path))["shards"]
    stateful = {row["task"] for row in rows if row["state_bytes"] is not None}
    assert stateful == {row["task"] for row in rows if row["task"].startswith("1_")}
