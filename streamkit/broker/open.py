"""From a URL to a broker."""

from typing import Final

from streamkit.broker.connection import KafkaConnection
from streamkit.broker.embedded import EmbeddedBroker
from streamkit.broker.log_directory import Durability
from streamkit.broker.protocols import Broker
from streamkit.errors import ConfigError
from streamkit.seams import Clock, FileSystem, MemoryFileSystem, Rng, SystemClock, SystemFileSystem, SystemRng

__all__ = ["log_directory", "open_broker"]

MEMORY_DIRECTORY: Final = "log"
_LOG: Final = "log://"


def log_directory(url: str) -> str | None:
    """Return the directory of an embedded log, None for other brokers."""
    return url.removeprefix(_LOG).partition("?")[0] if url.startswith(_LOG) else None


def open_broker(
    url: str,
    *,
    fs: FileSystem | None = None,
    clock: Clock | None = None,
    rng: Rng | None = None,
    connection: KafkaConnection | None = None,
) -> Broker:
    """Open the broker that a URL names.

    Args:
        url: `log://DIR` for the log in a directory (made if missing), `memory://` for one that ends with it. After
            either, `?durability=os` acknowledges what is not on the disk yet: see `EmbeddedBroker`.
            `kafka://host:9092`, or several addresses with commas between, for a Kafka cluster.
        fs: The file system instead of the machine's (or of a new one in memory).
        clock: The clock instead of the machine's.
        rng: The source of ids instead of the machine's.
        connection: How a Kafka cluster is reached; without it in clear, which loopback alone allows.

    Raises:
        ConfigError: The URL is none of these.
        LogLockedError: Another process uses the directory.
        BrokerUnavailableError: No Kafka broker answers at the addresses.
        BrokerError: TLS or the login failed.
        CorruptBatchError: The log is damaged.
    """
    place, asked, option = url.partition("?")
    scheme, found, rest = place.partition("://")
    clock, rng = clock or SystemClock(), rng or SystemRng()
    if scheme == "log" and found and rest:
        durability = _durability(url, option) if asked else "fsync"
        return EmbeddedBroker(fs or SystemFileSystem(), rest, clock=clock, rng=rng, durability=durability)
    if scheme == "memory" and found and not rest:
        # Syncing costs nothing here, and without threads a test runs the same each time.
        return EmbeddedBroker(
            fs or MemoryFileSystem(),
            MEMORY_DIRECTORY,
            clock=clock,
            rng=rng,
            sync_threads_count=0,
            durability=_durability(url, option) if asked else "fsync",
        )
    if scheme == "kafka":
        # Here, so that whoever uses the embedded log does not load the client's protocol.
        from streamkit.broker.kafka import KafkaBroker, KafkaSettings

        return KafkaBroker(KafkaSettings.of(url.removeprefix("kafka://"), connection or KafkaConnection()))
    raise ConfigError(
        f"{url!r} does not name a broker",
        hint="use log://DIR, such as log://.streamkit, or kafka://host:9092, or memory://",
    )


def _durability(url: str, option: str) -> Durability:
    match option:
        case "durability=fsync":
            return "fsync"
        case "durability=os":
            return "os"
    raise ConfigError(
        f"{url!r} asks for {option!r}",
        hint="after the ? stands durability=fsync, the default, or durability=os, which may lose the last second"
        " at a power cut",
    )
