"""One opened broker for everything in this process that names the same log.

A log directory has one user at a time, and that is a process: what a host runs beside a job must share what is opened.
The first lease of a log opens it, the last one given back closes it.

Not here: what a URL may say (`streamkit.broker.open`).
"""

import os
import threading
from types import TracebackType
from typing import Final, Self

from streamkit.broker import Broker
from streamkit.broker.open import log_directory
from streamkit.broker.settings_file import open_with_settings
from streamkit.errors import BrokerError, ConfigError

__all__ = ["Lease", "lease"]

_SCHEME: Final = "log://"


class _Shared:
    """One opened broker, the URL that opened it, and how many leases of it are out."""

    __slots__ = ("broker", "lease_count", "url")

    def __init__(self, url: str, broker: Broker) -> None:
        self.url, self.broker, self.lease_count = url, broker, 0


_lock: Final = threading.Lock()
_shared: Final[dict[str, _Shared]] = {}


class Lease:
    """The right to use a shared broker until it is given back; also a context manager.

    Args:
        name: What all URLs of this log have in common.
        shared: The opened broker.
    """

    def __init__(self, name: str, shared: _Shared) -> None:
        """Count this lease; only with the registry locked."""
        self._name, self._shared, self._released = name, shared, False
        shared.lease_count += 1

    @property
    def broker(self) -> Broker:
        """The broker that is shared. Nobody but the last lease closes it.

        Raises:
            BrokerError: The lease was given back.
        """
        if self._released:
            raise BrokerError("the lease of this broker was given back")
        return self._shared.broker

    def release(self) -> None:
        """Give the lease back; the last one closes the broker. Twice does nothing. Blocks while it closes."""
        with _lock:
            if self._released:
                return
            self._released = True
            self._shared.lease_count -= 1
            if not self._shared.lease_count:
                del _shared[self._name]
                self._shared.broker.close()

    def __enter__(self) -> Self:
        """Return the lease."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back."""
        self.release()


def lease(url: str) -> Lease:
    """Lease the broker that a URL names, opened now or shared with who leased it before.

    Two URLs are of one log if their directories are one directory, however it is written.

    Args:
        url: As for `open_broker`.

    Raises:
        ConfigError: The URL names no broker, this process opened the same log with other options, or the settings of
            the Kafka connection (`streamkit.toml`, `STREAMKIT_KAFKA_*`) are wrong.
        LogLockedError: Another process uses the directory.
        CorruptBatchError: The log is damaged.

    Cost: blocks while a log is opened or closed, whichever one it is.
    """
    directory = log_directory(url)
    name = url.partition("?")[0] if directory is None else f"{_SCHEME}{os.path.realpath(directory)}"
    with _lock:
        shared = _shared.get(name)
        if shared is None:
            shared = _shared[name] = _Shared(url, open_with_settings(url))
        elif _options(shared.url) != _options(url):
            raise ConfigError(
                f"this process uses the log as {shared.url!r}, and cannot use it as {url!r} too",
                hint="give both the same options",
            )
        return Lease(name, shared)


def _options(url: str) -> str:
    return url.partition("?")[2].replace("durability=fsync", "")
