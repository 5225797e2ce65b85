"""A command that kills itself (SIGKILL) when one of its functions returns.

`python killed_call.py FUNCTION ARGUMENT...` runs `streamkit ARGUMENT...` and dies when the function of that name (of a
method, with its class) returns, in whatever thread.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from streamkit.cli import main

_function, *_arguments = sys.argv[1:]


def _watch(frame: FrameType, event: str, _value: Any) -> None:
    if event == "return" and frame.f_code.co_qualname == _function:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.setprofile(_watch)
    sys.setprofile(_watch)
    sys.argv = ["streamkit", *_arguments]
    main()
