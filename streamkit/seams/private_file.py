"""Files that hold secrets: read only if nobody but their owner can."""

import os
import stat
from typing import Final

from streamkit.errors import ConfigError

__all__ = ["check_private", "read_private", "read_small"]

_OTHERS: Final = 0o077
_BYTES_MAX: Final = 1 << 20


def read_small(path: str) -> tuple[str, int]:
    """Return what a file of settings holds, and the mode that it had when it was read.

    Raises:
        ConfigError: It cannot be read, is larger than 1 MiB, or no UTF-8. What it holds is not in the message.
    """
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", detail=error.strerror or "") from error
    if len(data) > _BYTES_MAX:
        raise ConfigError(f"{path} is larger than {_BYTES_MAX} bytes")
    try:
        return data.decode("utf-8"), mode
    except UnicodeDecodeError:
        # The cause would carry the bytes.
        raise ConfigError(f"{path} is no UTF-8 text") from None


def read_private(path: str) -> str:
    """Return the secret that a file holds, without the line break at its end.

    Raises:
        ConfigError: Others than its owner can read or write it, it is empty, or it cannot be read.
    """
    text, mode = read_small(path)
    check_private(path, mode)
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ConfigError(f"{path} is empty")
    return secret


def check_private(path: str, mode: int) -> None:
    """Refuse a mode that lets others than the owner at a file.

    Raises:
        ConfigError: It does; the hint is the command that mends it.
    """
    if mode & _OTHERS:
        raise ConfigError(
            f"{path} holds a secret, and others than its owner can get at it: its mode is {mode:04o}",
            hint=f"chmod 600 {path}",
        )
