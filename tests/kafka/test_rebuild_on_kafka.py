"""Restore, verify and replay on a real Kafka, as a user types them."""

import contextlib
import uuid
from pathlib import Path

import orjson
import pytest
from command_line import consumed, done, produce, streamkit

from streamkit.broker import Broker, open_broker
from streamkit.cli.load import load_job
from streamkit.runtime import RunOptions
from streamkit.runtime.replay import REPLAY_STEPS, Replay, ReplayEnvironment
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]


JOB = """
from streamkit import Job

job = Job("{name}")
lines = job.stream("{name}-lines", value=str)
words = lines.flat_map(str.split, name="words")
words.group_by(str, name="by_word", shards=3).count(name="counts").to("{name}-counts")
"""


def answers(command: str, broker: str, cwd: Path, *flags: str) -> dict[tuple[str, object], set[object]]:
    """Return the answers of `verify` and `replay`, by store and side."""
    told = orjson.loads(done(command, "job.py", "--json", "--broker", broker, *flags, cwd=cwd).splitlines()[-1])
    found: dict[tuple[str, object], set[object]] = {}
    for one in told["comparisons"]:
        found.setdefault((one["store"], one["side"]), set()).add(one["equal"])
    return found


def values(topic: str, broker: str, cwd: Path) -> list[tuple[object, object]]:
    return sorted((str(record["key"]), record["value"]) for record in consumed(topic, "--broker", broker, cwd=cwd))


def test_state_is_restored_verified_and_replayed(kafka: str, tmp_path: Path) -> None:
    name = f"words-{uuid.uuid4().hex[:8]}"
    broker = f"kafka://{kafka}"
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    lines = [b"to be or not to be %d" % (index % 7) for index in range(300)]
    produce(f"{name}-lines", lines, "--partitions", "2", "--broker", broker, cwd=tmp_path)
    assert streamkit("replay", "job.py", "--yes", "--broker", broker, cwd=tmp_path).returncode == 2
    done("run", "job.py", "--bounded", "--broker", broker, cwd=tmp_path)
    before = values(f"{name}-counts", broker, tmp_path)

    told = orjson.loads(done("restore", "job.py", "--json", "--broker", broker, cwd=tmp_path).splitlines()[-1])
    assert {store["equal"] for store in told["stores"] if store["transaction"] is not None} == {True}
    assert sum(store["keys"] for store in told["stores"]) == len(before) > 0

    sides = {("counts", side): {True} for side in ("changelog", "state", "replay")}
    assert answers("verify", broker, tmp_path) == sides
    assert answers("replay", broker, tmp_path, "--yes") == {("counts", "replay"): {True}}
    assert values(f"{name}-counts", broker, tmp_path) == before, "the outputs are not those that were there"
    assert answers("verify", broker, tmp_path) == sides

    produce(f"{name}-lines", lines, "--broker", broker, cwd=tmp_path)
    done("run", "job.py", "--bounded", "--continue", "--broker", broker, cwd=tmp_path)
    latest = {record["key"]: record["value"] for record in consumed(f"{name}-counts", "--broker", broker, cwd=tmp_path)}
    assert latest["to"] == 1200


def test_a_state_that_a_replay_made_from_a_time_on_is_verified_from_there(kafka: str, tmp_path: Path) -> None:
    name = f"words-{uuid.uuid4().hex[:8]}"
    broker = f"kafka://{kafka}"
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    produce(f"{name}-lines", [b"to be or not to be"] * 20, "--broker", broker, cwd=tmp_path)
    done("run", "job.py", "--bounded", "--broker", broker, cwd=tmp_path)
    begin = ("--yes", "--from", "2100-01-01T00:00:00Z")
    assert answers("replay", broker, tmp_path, *begin) == {("counts", "replay"): {None}}
    produce(f"{name}-lines", [b"that is"] * 20, "--broker", broker, cwd=tmp_path)
    done("run", "job.py", "--bounded", "--continue", "--broker", broker, cwd=tmp_path)
    sides = {("counts", side): {True} for side in ("changelog", "state", "replay")}
    assert answers("verify", broker, tmp_path) == sides
    assert answers("replay", broker, tmp_path, "--yes") == {("counts", "replay"): {None}}
    assert answers("verify", broker, tmp_path) == sides


def test_a_replay_that_dies_before_each_of_its_steps_comes_to_its_end(kafka: str, tmp_path: Path) -> None:
    name = f"words-{uuid.uuid4().hex[:8]}"
    broker = f"kafka://{kafka}"
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    lines = [b"to be or not to be %d" % (index % 7) for index in range(100)]
    produce(f"{name}-lines", lines, "--partitions", "2", "--broker", broker, cwd=tmp_path)
    done("run", "job.py", "--bounded", "--broker", broker, cwd=tmp_path)
    before = values(f"{name}-counts", broker, tmp_path)
    topology = compile_graph(load_job(str(tmp_path / "job.py")).build())
    for step in [*REPLAY_STEPS, None]:
        with contextlib.closing(open_broker(broker)) as opened:
            replay = Replay(topology, environment_of(opened, tmp_path, None if step is None else step.__name__))
            with contextlib.nullcontext() if step is None else pytest.raises(KilledReplay):
                comparisons = replay.run()
    assert {one.equal for one in comparisons} == {True}
    assert values(f"{name}-counts", broker, tmp_path) == before


class KilledReplay(BaseException):
    pass


def environment_of(broker: Broker, directory: Path, step: str | None) -> ReplayEnvironment:
    def observe(seen: str) -> None:
        if seen == step:
            raise KilledReplay

    return ReplayEnvironment(
        broker=broker,
        state_dir=str(directory / "elsewhere"),
        options=RunOptions(),
        fs=SystemFileSystem(),
        clock=SystemClock(),
        observe=observe,
    )
