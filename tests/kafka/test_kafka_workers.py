"""`streamkit run --workers N` as a user runs it: processes on a real Kafka."""

import re
import signal
import subprocess
import uuid
from pathlib import Path

import orjson
import pytest
from command_line import COMMAND, SECONDS, consumed, done, environment, processes_in, produce, streamkit
from held_imports import HELD, hear, pipes
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


@pytest.mark.parametrize(("bounded", "code"), [([], 0), (["--bounded"], 130)])
def test_ctrl_c_while_the_children_import_is_a_stop_like_any_other(
    bounded: list[str], code: int, kafka: str, name: str, tmp_path: Path
) -> None:
    produce(f"{name}-lines", [b"a b c"], "--partitions", "2", "--broker", f"kafka://{kafka}", cwd=tmp_path)
    (tmp_path / "job.py").write_text(HELD + JOB.format(name=name), encoding="utf-8")
    command = [*COMMAND, *run(kafka, "--workers", "2", "--json", *bounded)]
    with (
        pipes(tmp_path) as told,
        subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as parent,
    ):
        hear(told, b"ii")
        parent.send_signal(signal.SIGINT)
        printed, said = parent.communicate(timeout=SECONDS)
    assert (parent.returncode, said) == (code, b"")
    assert (b'"finished":false' in printed) == (code == 0)
    assert not processes_in(tmp_path)
    (tmp_path / "job.py").write_text(JOB.format(name=name), encoding="utf-8")
    done(*run(kafka, "--workers", "2", "--bounded"), cwd=tmp_path)
    assert latest(name, kafka, tmp_path) == {"a": 1, "b": 1, "c": 1}


def handles_sigterm(process: int) -> bool:
    """Return whether it does something of its own when it is asked to stop."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
