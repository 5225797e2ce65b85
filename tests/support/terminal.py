"""A command on a terminal of its own."""

import os
import pty
import re
import subprocess
from pathlib import Path

from command_line import COMMAND, SECONDS, environment

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLUMNS = "250"
"""Wide enough that no line is cut."""


def on_terminal(*arguments: str, cwd: Path) -> list[str]:
    """Run a command that must succeed on a terminal; return the lines that it showed, each as often as it changed."""
    ours, theirs = pty.openpty()
    set_up = {**environment(), "TERM": "xterm", "COLUMNS": _COLUMNS}
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=cwd, env=set_up, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := _piece(ours):
            shown += piece
    finally:
        os.close(ours)
        code = process.wait(SECONDS)
    lines = [line.strip() for line in _CONTROL.sub("", shown.decode()).replace("\r", "\n").split("\n")]
    assert code == 0, lines
    return [line for line in lines if line]


def _piece(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        # Linux says so when the last one who has the other side is gone.
        return b""
