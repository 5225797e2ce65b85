"""Dead letters on the command line; and SIGKILL at steps of a job that writes them, and of sending them back."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from command_line import ROOT, consumed, done, environment, produce, streamkit

pytestmark = [pytest.mark.process, pytest.mark.slow]

JOB = '''
"""Halves of even numbers."""
from streamkit import Job

job = Job("halves", on_error="dead_letter")
numbers = job.stream("numbers", value=int)

@numbers.map
def half(number: int) -> int:
    """Refuse an odd one."""
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2

half.to("halves")
'''
MENDED = JOB.replace("if number % 2:", "if number == 5:")


def test_letters_are_listed_shown_and_sent_back(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    produce("numbers", [b"2", b"3", b"seven", b"4", b"5"], cwd=tmp_path)
    assert done("dead-letters", "job.py", "list", cwd=tmp_path) == "halves: no dead letters\n"
    printed = done("run", "job.py", "--bounded", cwd=tmp_path)
    assert "5 records in, 2 out, 0 late, 3 skipped, 3 of them dead letters" in printed

    lines = done("dead-letters", "job.py", "list", cwd=tmp_path).splitlines()
    assert [line.split("\t")[:4] for line in lines] == [
        ["0:0", "numbers-0 offset 1", "half", "attempt 1"],
        ["0:1", "numbers-0 offset 2", "numbers", "attempt 1"],
        ["0:2", "numbers-0 offset 4", "half", "attempt 1"],
    ]
    assert lines[0].endswith("ValueError: 3 is odd")
    shown = done("dead-letters", "job.py", "show", "0:1", cwd=tmp_path)
    assert "value: seven\n" in shown
    assert "reason: the value does not decode as int" in shown

    (tmp_path / "job.py").write_text(MENDED)
    assert done("dead-letters", "job.py", "retry", "0:0", "0:2", cwd=tmp_path) == "halves: 2 sent back\n"
    assert done("dead-letters", "job.py", "retry", "0:0", cwd=tmp_path) == "halves: 0 sent back, 1 had been before\n"
    summary = orjson.loads(done("run", "job.py", "--bounded", "--continue", "--json", cwd=tmp_path).splitlines()[-1])
    assert (summary["records_in"], summary["skipped"], summary["dead_letters"]) == (2, 1, 1)
    assert [one["value"] for one in consumed("halves", cwd=tmp_path)] == [1, 2, 1]
    listed = done("dead-letters", "job.py", "list", "--all", "--json", cwd=tmp_path).splitlines()
    letters = {one["id"]: one for one in map(orjson.loads, listed)}
    assert {name for name, one in letters.items() if one["retried"]} == {"0:0", "0:2"}
    again = next(one for one in letters.values() if one["attempt"] == 2)
    assert (again["value"], again["topic"], again["offset"]) == ("5", "numbers", 6)


def test_a_replay_sets_aside_anew_what_is_still_bad(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    produce("numbers", [b"2", b"3", b"5"], cwd=tmp_path)
    done("run", "job.py", "--bounded", cwd=tmp_path)
    (tmp_path / "job.py").write_text(MENDED)
    done("replay", "job.py", "--yes", cwd=tmp_path)
    assert [one["value"] for one in consumed("halves", cwd=tmp_path)] == [1, 1]
    lines = done("dead-letters", "job.py", "list", cwd=tmp_path).splitlines()
    assert [line.split("\t")[1:4] for line in lines] == [["numbers-0 offset 2", "half", "attempt 1"]]


@pytest.mark.parametrize("arguments", [("retry",), ("retry", "0:1", "--all"), ("retry", "0:9"), ("show", "0:9")])
def test_a_retry_of_nothing_and_an_unknown_letter_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "job.py").write_text(JOB)
    produce("numbers", [b"2", b"3"], cwd=tmp_path)
    done("run", "job.py", "--bounded", cwd=tmp_path)
    refused = streamkit("dead-letters", "job.py", *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert b"Error: " in refused.stderr
    assert len(consumed("numbers", cwd=tmp_path)) == 2


def killed_at(directory: Path, action: str, change: int) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, str(ROOT / "tests" / "support" / "killed_at.py"), ".streamkit", action, str(change)]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}"}
    return subprocess.run(
        command, cwd=directory, env=environment() | paths, capture_output=True, check=False, timeout=120
    )


def changes_of(directory: Path, action: str) -> int:
    """Return how many changes to the disk it takes, done to a copy."""
    copy = directory.with_name(f"{directory.name}-calm")
    shutil.copytree(directory, copy)
    ended = killed_at(copy, action, 0)
    assert ended.returncode == 0, ended.stderr.decode()
    return int(ended.stdout)


def spread(count: int, parts: int) -> list[int]:
    return sorted({1 + (count - 1) * part // (parts - 1) for part in range(parts)})


def test_sigkill_while_a_job_writes_dead_letters_loses_and_doubles_none(tmp_path: Path) -> None:
    directory = tmp_path / "job"
    directory.mkdir()
    (directory / "job.py").write_text(JOB)
    numbers = [b"%d" % number for number in range(200)]
    for begin in range(0, len(numbers), 20):
        produce("numbers", numbers[begin : begin + 20], cwd=directory)
    # One kill after the other on one log, each later in what is left to do.
    for change in spread(changes_of(directory, "run"), 8):
        assert killed_at(directory, "run", change).returncode in (-signal.SIGKILL, 0)
    assert killed_at(directory, "run", 0).returncode == 0
    assert [one["value"] for one in consumed("halves", cwd=directory)] == list(range(100))
    listed = map(orjson.loads, done("dead-letters", "job.py", "list", "--json", cwd=directory).splitlines())
    assert [(one["offset"], one["value"]) for one in listed] == [(odd, str(odd)) for odd in range(1, 200, 2)]


def test_sigkill_while_letters_are_sent_back_sends_each_once(tmp_path: Path) -> None:
    directory = tmp_path / "job"
    directory.mkdir()
    (directory / "job.py").write_text(JOB)
    produce("numbers", [b"2", b"3", b"seven", b"4", b"5"], cwd=directory)
    done("run", "job.py", "--bounded", cwd=directory)
    for change in spread(changes_of(directory, "retry"), 8):
        copy = tmp_path / f"killed-{change}"
        shutil.copytree(directory, copy)
        assert killed_at(copy, "retry", change).returncode == -signal.SIGKILL
        assert killed_at(copy, "retry", 0).returncode == 0
        values = [one["value"] for one in consumed("numbers", cwd=copy)]
        assert sorted(map(str, values)) == sorted(["2", "3", "seven", "4", "5", "3", "seven", "5"])


def test_what_was_sent_back_before_a_replay_is_not_sent_back_again(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    produce("numbers", [b"2", b"3", b"5"], cwd=tmp_path)
    done("run", "job.py", "--bounded", cwd=tmp_path)
    assert done("dead-letters", "job.py", "retry", "0:0", cwd=tmp_path) == "halves: 1 sent back\n"
    done("run", "job.py", "--bounded", "--continue", cwd=tmp_path)
    for number in range(2):
        done("replay", "job.py", "--yes", cwd=tmp_path)
        lines = done("dead-letters", "job.py", "list", cwd=tmp_path).splitlines()
        # Of 3 both records are bad still; the first of them was sent back, as the second.
        assert [line.split("\t")[1:4] for line in lines] == [
            ["numbers-0 offset 2", "half", "attempt 1"],
            ["numbers-0 offset 3", "half", "attempt 2"],
        ], number
    assert done("dead-letters", "job.py", "retry", "--all", cwd=tmp_path) == "halves: 2 sent back\n"
    assert done("dead-letters", "job.py", "retry", "--all", cwd=tmp_path) == "halves: 0 sent back\n"
    assert [one["value"] for one in consumed("numbers", cwd=tmp_path)] == [2, 3, 5, 3, 5, 3]
