"""Ports for servers that are started a little later, and stopped and started again on the same ones."""

import contextlib
import random
import socket
from typing import Final

DRAWN_FROM: Final = range(10_000, 22_000)
"""Below those that Linux gives to connections, of which other tests have many; 10,000 above them is still below."""
TRIES_MAX: Final = 1000


def free_ports(count: int) -> list[int]:
    """Return different ports of loopback that nobody has now, and that no connection is given meanwhile."""
    rng, found = random.SystemRandom(), list[int]()
    for _ in range(TRIES_MAX):
        port = rng.choice(DRAWN_FROM)
        if port not in found and is_free(port):
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
