"""Worker processes that are asked to stop while they import, which is before they listen to signals."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import SECONDS, environment, processes_in
from held_imports import HELD, hear, pipes

pytestmark = [pytest.mark.process, pytest.mark.slow]

PARENT = """
import sys

from streamkit.cli.progress import reporter_for
from streamkit.cli.workers import run_workers
from streamkit.seams import SystemClock

bounded = "--bounded" in sys.argv
arguments = ["run", "job.py", "--child", "--broker", "log://nothing", *sys.argv[1:]]
with reporter_for("held", as_json=True, ends=bounded) as reporter:
    code = run_workers(arguments, ["one", "two"], reporter, SystemClock(), bounded=bounded)
sys.exit(code)
"""
DEAF = """
import os, signal

def hear(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.write(os.open("importing", os.O_WRONLY), b"h")

signal.signal(signal.SIGTERM, hear)
"""
"""Does not end by the first signal."""


@contextmanager
def importing(
    directory: Path, module: str, text: str, *options: str
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Start two workers, and wait until both import the module; yield the parent, and what its children tell."""
    (directory / module).write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", PARENT, *options]
    surroundings = environment() | {"PYTHONPATH": os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])])}
    with (
        pipes(directory) as told,
        subprocess.Popen(
            command, cwd=directory, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as parent,
    ):
        try:
            hear(told, b"ii")
            yield parent, told
        finally:
            for process in processes_in(directory):
                os.kill(process, signal.SIGKILL)


def ended(parent: "subprocess.Popen[bytes]", directory: Path) -> tuple[int, bytes, bytes]:
    printed, said = parent.communicate(timeout=SECONDS)
    assert not processes_in(directory)
    return parent.returncode, printed, said


@pytest.mark.parametrize("module", ["job.py", "sitecustomize.py"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_that_are_stopped_while_they_import_end_as_a_run_does(tmp_path: Path, number: int, module: str) -> None:
    with importing(tmp_path, module, HELD) as (parent, _):
        parent.send_signal(number)
        code, printed, said = ended(parent, tmp_path)
    assert (code, said) == (0, b"")
    assert b'"finished":false' in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_bounded_run_that_is_stopped_while_they_import_is_cut_short(tmp_path: Path, number: int) -> None:
    with importing(tmp_path, "job.py", HELD, "--bounded") as (parent, _):
        parent.send_signal(number)
        assert ended(parent, tmp_path) == (128 + number, b"", b"")


def test_a_second_signal_kills_workers_that_do_not_end_by_the_first(tmp_path: Path) -> None:
    with importing(tmp_path, "job.py", DEAF + HELD) as (parent, told):
        parent.send_signal(signal.SIGINT)
        hear(told, b"hh")
        parent.send_signal(signal.SIGINT)
        assert ended(parent, tmp_path) == (130, b"", b"")
