"""Runs over files that are killed with SIGKILL: the same command does what is left, and no output is ever half."""

import signal
import subprocess
import sys
from pathlib import Path

import orjson
import polars as pl
import pytest
from command_line import ROOT, done, environment, streamkit

pytestmark = [pytest.mark.process, pytest.mark.slow]

WORD_COUNT = str(ROOT / "jobs" / "word_count.py")
TEXT = b"to be or not to be\nthat is the question\n" * 50
COUNTS = {"to": 100, "be": 100, "or": 50, "not": 50, "that": 50, "is": 50, "the": 50, "question": 50}
PARTIAL, DIRECTORY = ".partial", ".streamkit/files/"

DEATHS = {
    "before it is said that it is written": ("os.rename", "published.new", 1),
    "when some of it is written": ("open", ".partial", 1),
    "before the rename": ("os.rename", PARTIAL, 1),
    "after the rename": ("shutil.rmtree", "/log", 1),
    "while the log is removed, after the rename": ("os.rmdir", "", 1),
    "before the plan is removed, after the rename": ("os.remove", "/plan", 2),
    "before the rest is removed, after the rename": ("os.remove", "published", 2),
}


def killed(directory: Path, event: tuple[str, str, int], *arguments: str) -> None:
    """Run a command that kills itself before an event, and see that it did."""
    name, text, number = event
    program = [sys.executable, str(ROOT / "tests" / "support" / "killed_command.py"), name, text, str(number)]
    ended = subprocess.run(
        [*program, *arguments], cwd=directory, env=environment(), capture_output=True, check=False, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def counts(path: Path) -> dict[str, int]:
    match path.suffix:
        case ".jsonl":
            rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        case ".csv":
            rows = pl.read_csv(path).to_dicts()
        case _:
            rows = pl.read_parquet(path).to_dicts()
    assert len(rows) == len({row["key"] for row in rows}), "each key once"
    return {row["key"]: row["value"] for row in rows}


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
@pytest.mark.parametrize("death", list(DEATHS))
def test_an_output_is_as_it_was_or_complete_and_the_same_command_completes_it(
    tmp_path: Path, name: str, death: str
) -> None:
    (tmp_path / "in.txt").write_bytes(TEXT)
    output = tmp_path / name
    output.write_bytes(b"as it was")
    command = ("run", WORD_COUNT, "--input", "lines=in.txt", "--output", f"word_counts={name}")
    killed(tmp_path, DEATHS[death], *command, "--overwrite")
    renamed = "after the rename" in death
    assert counts(output) == COUNTS if renamed else output.read_bytes() == b"as it was"
    done(*command, cwd=tmp_path)
    assert counts(output) == COUNTS
    left = [path.name for path in tmp_path.iterdir() if path.is_file()]
    assert sorted(left) == ["in.txt", name], "nothing that was begun is left"
    assert [path.name for path in (tmp_path / DIRECTORY).iterdir()] == []


LINES = 700
JOB = '''
"""Counts the lengths of lines; dies after as many lines as the environment says."""

import os
import signal

from streamkit import Job

job = Job("lengths")
lines = job.stream("lines", value=str)
left = [int(os.environ.get("DIE_AFTER", "-1"))]


@lines.map
def length(line: str) -> str:
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return str(len(line) % 7)


@length.group_by
def by_length(length: str) -> str:
    return length


by_length.count(name="lengths").to("lengths")
'''


def begun(directory: Path) -> tuple[str, ...]:
    """Begin a run that is killed after its first commit; return the command."""
    (directory / "job.py").write_text(JOB)
    # Two partitions, a long one and a short one, which is done and committed long before.
    (directory / "in.txt").write_bytes(b"".join(b"x" * (100_000 + n % 7) + b"\n" for n in range(LINES)))
    command = ("run", "job.py", "--input", "lines=in.txt", "--output", "lengths=out.csv", "--json")
    dying = subprocess.run(
        [sys.executable, "-m", "streamkit", *command],
        cwd=directory,
        env={**environment(), "DIE_AFTER": str(LINES - 50)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert dying.returncode == -signal.SIGKILL, dying.stderr.decode()
    assert not (directory / "out.csv").exists()
    return command


def test_the_same_command_goes_on_where_the_run_was(tmp_path: Path) -> None:
    command = begun(tmp_path)
    summary = orjson.loads(done(*command, cwd=tmp_path).splitlines()[-1])
    assert summary["finished"]
    assert 0 < summary["records_in"] < LINES, "what was committed is not read again"
    lengths = [str((100_000 + n % 7) % 7) for n in range(LINES)]
    assert counts_of(tmp_path / "out.csv") == {length: lengths.count(length) for length in set(lengths)}


def counts_of(path: Path) -> dict[str, int]:
    return {str(row["key"]): row["value"] for row in pl.read_csv(path).to_dicts()}


def test_a_file_that_changed_is_refused_until_the_run_is_given_up(tmp_path: Path) -> None:
    command = begun(tmp_path)
    with (tmp_path / "in.txt").open("ab") as file:
        file.write(b"more\n")
    ended = streamkit(*command, cwd=tmp_path)
    said = ended.stderr.decode()
    assert (ended.returncode, "in.txt' has changed since the run began" in said) == (2, True), said
    (directory,) = (tmp_path / DIRECTORY).iterdir()
    assert f"rm -r .streamkit/files/{directory.name}" in said
    done("run", "job.py", "--input", "lines=in.txt", "--output", "lengths=other.csv", cwd=tmp_path)
    assert sum(counts_of(tmp_path / "other.csv").values()) == LINES + 1, "other bindings are another run"
