"""The command line as a user types it: a process of its own, in a directory of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
from click.testing import CliRunner

from streamkit.cli.main import streamkit as verbs

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "streamkit"]
SECONDS = 300
"""How long a command may take on a slow and busy machine."""


def environment() -> dict[str, str]:
    """Return the environment of a user who has set nothing of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STREAMKIT_")}


def streamkit(*arguments: str, cwd: Path, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run a command to its end."""
    command = [*COMMAND, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(), input=given, capture_output=True, check=False, timeout=SECONDS
    )


def done(*arguments: str, cwd: Path, given: bytes = b"") -> str:
    """Run a command that must succeed; return what it printed."""
    ended = streamkit(*arguments, cwd=cwd, given=given)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()


def produce(topic: str, lines: Sequence[bytes], *arguments: str, cwd: Path) -> None:
    """Append lines to a topic."""
    here("produce", topic, *arguments, cwd=cwd, given=b"".join(line + b"\n" for line in lines))


def consumed(topic: str, *arguments: str, cwd: Path) -> list[dict[str, object]]:
    """Return the committed records of a topic."""
    printed = here("consume", topic, "--until-end", "--json", *arguments, cwd=cwd)
    return [orjson.loads(line) for line in printed.splitlines()]


def here(*arguments: str, cwd: Path, given: bytes = b"") -> str:
    """Run a command that must succeed in this process, as a start takes half a second; return what it printed."""
    unset = {name: None for name in os.environ if name.startswith("STREAMKIT_")}
    with contextlib.chdir(cwd):
        ended = CliRunner(env=unset).invoke(verbs, arguments, input=given, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def processes_in(directory: Path) -> set[int]:
    """Return the processes that run in a directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == directory:
                found.add(int(entry.name))
    return found
