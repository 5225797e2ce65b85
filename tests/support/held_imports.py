"""Worker processes that are held while they import, by named pipes in their directory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HELD = """
import os, sys

if "--child" in sys.orig_argv:
    os.write(os.open("importing", os.O_WRONLY), b"i")
    open("never").close()
"""
"""Tells that it is being imported, and waits for somebody who never comes."""


@contextmanager
def pipes(directory: Path) -> Iterator[int]:
    """Make the pipes; yield what is read from `importing`."""
    for name in ("importing", "never"):
        os.mkfifo(directory / name)
    # For writing too, so that it does not end between two children.
    told = os.open(directory / "importing", os.O_RDWR)
    try:
        yield told
    finally:
        os.close(told)


def hear(told: int, expected: bytes) -> None:
    """Wait until the children have told all of this."""
    heard = b""
    while len(heard) < len(expected):
        heard += os.read(told, len(expected) - len(heard))
    assert heard == expected
