"""Ports for servers that are started a little later, and stopped and started again on the same ones."""

import contextlib
import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

DRAWN_FROM: Final = range(10_000, 22_000)
"""Below those that Linux gives to connections, of which other tests have many; 10,000 above them is still below."""
TRIES_MAX: Final = 1000


def free_ports(count: int) -> list[int]:
    """Return different ports of loopback that nobody has, and that no connection or other run is given meanwhile."""
    rng, found = random.SystemRandom(), list[int]()
    for _ in range(TRIES_MAX):
        port = rng.choice(DRAWN_FROM)
        if port not in found and is_free(port) and _is_ours(port):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"there are no {count} free ports in {DRAWN_FROM}")


def is_free(port: int) -> bool:
    """Return whether a server could have the port."""
    with socket.socket() as one, contextlib.suppress(OSError):
        one.bind(("127.0.0.1", port))
        return True
    return False


def _is_ours(port: int) -> bool:
    """Keep a port for this process until it ends, unless another one has it, if only for a broker that is down."""
    try:
        fcntl.lockf(_book(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@functools.cache
def _book() -> int:
    """Return an open file in which the byte at a port's number is locked by the process that has the port."""
    return os.open(Path(tempfile.gettempdir()) / f"streamkit-test-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o666)
