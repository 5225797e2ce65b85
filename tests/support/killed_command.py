"""A command that kills itself (SIGKILL) before one of its changes to the file system.

`python killed_command.py EVENT TEXT NUMBER ARGUMENT...` runs `streamkit ARGUMENT...` and dies before the event of that
name (see Python's table of audit events) whose arguments contain TEXT, when it comes for the NUMBERth time.
"""

import os
import signal
import sys
from typing import Any

from streamkit.cli import main

_event, _text, _number, *_arguments = sys.argv[1:]
_left = [int(_number)]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == _event and any(_text in str(argument) for argument in arguments):
        _left[0] -= 1
        if not _left[0]:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.addaudithook(_watch)
    sys.argv = ["streamkit", *_arguments]
    main()
