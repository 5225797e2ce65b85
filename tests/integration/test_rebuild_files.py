"""Restore, verify and replay of runs over files, and of runs with files beside topics."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from command_line import COMMAND, ROOT, consumed, done, environment, produce, streamkit

pytestmark = [pytest.mark.process, pytest.mark.slow]

WORD_COUNT = str(ROOT / "jobs" / "word_count.py")
TEXT = b"to be or not to be\nthat is the question\n" * 50
COUNTS = {"to": 100, "be": 100, "or": 50, "not": 50, "that": 50, "is": 50, "the": 50, "question": 50}
BOUND = ("--input", "lines=in.txt", "--output", "word_counts=out.jsonl")
MERGED = '''
"""Counts the rows of each key of two streams."""

import msgspec

from streamkit import Job


class Row(msgspec.Struct):
    key: str


job = Job("merged")
old = job.stream("old", key=str, value=Row)
new = job.stream("new", key=str, value=Row)
old.merge(new).group_by_key().count(name="counts").to("counts")
'''


def computed(directory: Path, *command: str) -> None:
    """Run a job over files that is killed once it has computed everything, before it says so."""
    program = [sys.executable, str(ROOT / "tests" / "support" / "killed_command.py"), "os.rename", "published.new", "1"]
    ended = subprocess.run(
        [*program, "run", *command], cwd=directory, env=environment(), capture_output=True, check=False, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def caught_up(directory: Path, count: int, *command: str) -> None:
    """Run a job until it has read that many records, and stop it."""
    process = subprocess.Popen(
        [*COMMAND, "run", *command, "--json"],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        told = orjson.loads(line)
        if told["records_in"] == count and "lag" in told:
            process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0, process.stderr.read().decode()
    process.stdout.close()
    process.stderr.close()


def rows(keys: str) -> bytes:
    return b"".join(b'{"key": "%s"}\n' % key.encode() for key in keys)


def counts(path: Path) -> dict[str, int]:
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return {row["key"]: row["value"] for row in rows}


def answers(command: str, *arguments: str, cwd: Path) -> set[tuple[str, object]]:
    """Return what `verify` or `replay` says of each side."""
    told = orjson.loads(done(command, *arguments, "--json", cwd=cwd).splitlines()[-1])
    return {(one["side"], one["equal"]) for one in told["comparisons"]}


EQUAL = {(side, True) for side in ("changelog", "state", "replay")}


def test_a_run_over_files_is_restored_verified_and_replayed(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(TEXT)
    computed(tmp_path, WORD_COUNT, *BOUND)
    assert answers("verify", WORD_COUNT, *BOUND, cwd=tmp_path) == EQUAL
    (run,) = (tmp_path / ".streamkit" / "files").iterdir()
    (run / "state").rename(run / "lost")
    told = orjson.loads(done("restore", WORD_COUNT, *BOUND, "--json", cwd=tmp_path).splitlines()[-1])
    assert sum(store["keys"] for store in told["stores"]) == len(COUNTS)
    assert answers("verify", WORD_COUNT, *BOUND, cwd=tmp_path) == EQUAL
    assert not (tmp_path / "out.jsonl").exists()
    assert answers("replay", WORD_COUNT, *BOUND, "--yes", cwd=tmp_path) == {("replay", True)}
    assert counts(tmp_path / "out.jsonl") == COUNTS, "a run that is done puts its outputs in their places"
    assert not run.exists()


@pytest.mark.parametrize("command", [("restore",), ("verify",), ("replay", "--yes")], ids=lambda command: command[0])
def test_a_run_that_is_done_is_refused_and_the_message_says_what_to_do(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "in.txt").write_bytes(TEXT)
    done("run", WORD_COUNT, *BOUND, cwd=tmp_path)
    before = sorted(tmp_path.rglob("*"))
    ended = streamkit(*command, WORD_COUNT, *BOUND, cwd=tmp_path)
    said = ended.stderr.decode()
    assert (ended.returncode, "has no run with these files that has begun and is not done" in said) == (2, True), said
    assert "streamkit run computes it anew" in said
    assert sorted(tmp_path.rglob("*")) == before, "nothing is made"


@pytest.mark.parametrize("command", [("restore",), ("verify",), ("replay", "--yes")], ids=lambda command: command[0])
def test_a_run_that_is_being_published_is_left_to_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "in.txt").write_bytes(TEXT)
    program = [sys.executable, str(ROOT / "tests" / "support" / "killed_command.py"), "os.rename", ".partial", "1"]
    run = [*program, "run", WORD_COUNT, *BOUND]
    subprocess.run(run, cwd=tmp_path, env=environment(), capture_output=True, check=False, timeout=120)
    ended = streamkit(*command, WORD_COUNT, *BOUND, cwd=tmp_path)
    assert (ended.returncode, b"streamkit run with the same" in ended.stderr) == (2, True), ended.stderr.decode()
    done("run", WORD_COUNT, *BOUND, cwd=tmp_path)
    assert counts(tmp_path / "out.jsonl") == COUNTS


def test_a_replay_of_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(TEXT)
    computed(tmp_path, WORD_COUNT, *BOUND)
    (tmp_path / "in.txt").write_bytes(TEXT + b"more\n")
    ended = streamkit("replay", WORD_COUNT, *BOUND, "--yes", cwd=tmp_path)
    assert (ended.returncode, b"has changed since the run began" in ended.stderr) == (2, True), ended.stderr.decode()
    (tmp_path / "in.txt").write_bytes(TEXT)


def test_the_second_part_of_a_file_is_no_source_whose_start_was_removed(tmp_path: Path) -> None:
    with (tmp_path / "in.txt").open("wb") as file:
        for number in range(700):
            file.write(b"%d" % (number % 7) * 100_000 + b" x\n")
    (tmp_path / "job.py").write_text(
        "from streamkit import Job\n\n"
        'job = Job("begins")\n'
        'lines = job.stream("lines", value=str)\n'
        "begins = lines.map(lambda line: line[0], name='begin')\n"
        "begins.group_by(str, name='by_begin', shards=2).count(name='counts').to('counts')\n"
    )
    bound = ("--input", "lines=in.txt", "--output", "counts=out.jsonl")
    computed(tmp_path, "job.py", *bound)
    assert answers("verify", "job.py", *bound, cwd=tmp_path) == EQUAL
    assert answers("replay", "job.py", *bound, "--yes", cwd=tmp_path) == {("replay", True)}
    assert counts(tmp_path / "out.jsonl") == {str(digit): 100 for digit in range(7)}


def test_a_run_with_files_beside_topics_is_restored_verified_replayed_and_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(MERGED)
    (tmp_path / "old.jsonl").write_bytes(rows("aba"))
    produce("new", rows("bc").splitlines(), "--key-field", "key", cwd=tmp_path)
    command = ("job.py", "--input", "old=old.jsonl")
    caught_up(tmp_path, 5, *command)
    written = {str(row["key"]): row["value"] for row in consumed("counts", cwd=tmp_path)}
    assert answers("verify", *command, cwd=tmp_path) == EQUAL
    (run,) = (tmp_path / ".streamkit" / "files").iterdir()
    (run / "state").rename(run / "lost")
    told = orjson.loads(done("restore", *command, "--json", cwd=tmp_path).splitlines()[-1])
    assert sum(store["keys"] for store in told["stores"]) == 3
    assert answers("verify", *command, cwd=tmp_path) == EQUAL
    refused = streamkit("replay", *command, cwd=tmp_path)
    assert (refused.returncode, b"this removes the records of counts" in refused.stderr) == (2, True)
    assert answers("replay", *command, "--yes", cwd=tmp_path) == {("replay", True)}
    latest = {str(row["key"]): row["value"] for row in consumed("counts", cwd=tmp_path)}
    assert latest == written == {"a": 2, "b": 2, "c": 1}
    produce("new", rows("c").splitlines(), "--key-field", "key", cwd=tmp_path)
    caught_up(tmp_path, 1, *command)
    latest = {str(row["key"]): row["value"] for row in consumed("counts", cwd=tmp_path)}
    assert latest == {"a": 2, "b": 2, "c": 2}, "the run goes on where the replay ended"


SEED = 20_261_127
KILLS = 6


@pytest.mark.timeout(600)
def test_a_killed_replay_of_a_run_with_files_beside_topics_ends_as_a_calm_one(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    (tmp_path / "job.py").write_text(MERGED)
    keys = "abcdefghijklmnopqrstuvwxyz"
    (tmp_path / "old.jsonl").write_bytes(rows("".join(rng.choices(keys, k=30_000))))
    produce("new", rows("".join(rng.choices(keys, k=10_000))).splitlines(), "--key-field", "key", cwd=tmp_path)
    command = ("job.py", "--input", "old=old.jsonl")
    caught_up(tmp_path, 40_000, *command)
    calm = digests(*command, cwd=tmp_path)
    killed = 0
    while killed < KILLS:
        process = subprocess.Popen(
            [*COMMAND, "replay", *command, "--yes"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            _, complaints = process.communicate(timeout=rng.uniform(0.5, 4))
            assert process.returncode == 0, complaints.decode()
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
    assert digests(*command, cwd=tmp_path) == calm
    assert answers("verify", *command, cwd=tmp_path) == EQUAL
    assert sum(int(str(row["value"])) for row in latest_of(consumed("counts", cwd=tmp_path))) == 40_000


def digests(*command: str, cwd: Path) -> dict[str, str]:
    """Replay, and return the digest of each store; each is what it was."""
    told = orjson.loads(done("replay", *command, "--yes", "--json", cwd=cwd).splitlines()[-1])
    assert {one["equal"] for one in told["comparisons"]} == {True}
    return {one["task"]: one["digest"] for one in told["comparisons"]}


def latest_of(records: list[dict[str, object]]) -> list[dict[str, object]]:
    return list({record["key"]: record for record in records}.values())
