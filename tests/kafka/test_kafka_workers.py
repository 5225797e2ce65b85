"""`streamkit run --workers N` as a user runs it: processes on a real Kafka."""

import contextlib
import re
import signal
import subprocess
import uuid
from pathlib import Path

import orjson
import pytest
from command_line import COMMAND, SECONDS, consumed, done, environment, produce, streamkit
from workers import until

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

JOB = """
import operator

from streamkit import Job

job = Job("{name}")
lines = job.stream("{name}-lines", value=str)


@lines.flat_map
def words(line: str) -> list[str]:
    if line == "bad":
        raise ValueError(line)
    return line.split()


@words.group_by
def by_word(word: str) -> str:
    return word


@by_word.aggregate(initial=int, merge=operator.add)
def counts(total: int, word: str) -> int:
    return total + 1


counts.to("{name}-counts")
"""


@pytest.fixture
def name(tmp_path: Path) -> str:
    made = f"words-{uuid.uuid4().hex[:8]}"
    (tmp_path / "job.py").write_text(JOB.format(name=made), encoding="utf-8")
    return made


def run(kafka: str, *options: str) -> list[str]:
    return ["run", "job.py", "--broker", f"kafka://{kafka}", "--state-dir", "state", *options]


def latest(name: str, kafka: str, cwd: Path) -> dict[object, object]:
    records = consumed(f"{name}-counts", "--broker", f"kafka://{kafka}", cwd=cwd)
    return {record["key"]: record["value"] for record in records}


def test_two_processes_finish_a_bounded_run_and_print_one_summary(kafka: str, name: str, tmp_path: Path) -> None:
    """And a second run of theirs goes on from it; a third finds nothing to do."""
    for half in range(2):
        lines = [b"to be or not to be %d" % (index % 7) for index in range(150)]
        produce(f"{name}-lines", lines, "--partitions", "4", "--broker", f"kafka://{kafka}", cwd=tmp_path)
        more = ["--continue"] if half else []
        printed = done(*run(kafka, "--bounded", "--workers", "2", "--json", *more), cwd=tmp_path)
        summary = orjson.loads(printed.splitlines()[-1])
        assert summary["finished"]
        assert summary["records_in"] == 150
    assert latest(name, kafka, tmp_path)["to"] == 600
    assert (tmp_path / "state" / name).is_dir()
    again = done(*run(kafka, "--bounded", "--workers", "2"), cwd=tmp_path)
    assert "this bounded run is finished, nothing was read" in again


def test_an_error_of_one_process_stops_the_others_and_is_the_exit_code(kafka: str, name: str, tmp_path: Path) -> None:
    produce(f"{name}-lines", [b"good", b"bad"], "--partitions", "2", "--broker", f"kafka://{kafka}", cwd=tmp_path)
    ended = streamkit(*run(kafka, "--workers", "3"), cwd=tmp_path)
    assert ended.returncode == 1
    assert b"ValueError: bad" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_parent_ends_the_children(number: int, kafka: str, name: str, tmp_path: Path) -> None:
    """Asked to stop, it is done when they are; killed, they notice."""
    produce(f"{name}-lines", [b"a b c"], "--partitions", "2", "--broker", f"kafka://{kafka}", cwd=tmp_path)
    command = [*COMMAND, *run(kafka, "--workers", "2", "--json")]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        while orjson.loads(parent.stdout.readline())["records_in"] < 1:
            pass
        # One of them may have read it before the other has heard of signals.
        until(lambda: len(found := processes_in(tmp_path)) == 3 and all(map(handles_sigterm, found)))
        parent.send_signal(number)
        parent.stdout.read()
        assert parent.wait(SECONDS) == (0 if number != signal.SIGKILL else -number)
    until(lambda: not processes_in(tmp_path))


def handles_sigterm(process: int) -> bool:
    """Return whether it does something of its own when it is asked to stop."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def processes_in(directory: Path) -> set[int]:
    """Return the processes that run in a directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == directory:
                found.add(int(entry.name))
    return found
