"""How a Kafka cluster is reached and what is asked of it, security and numbers; from a table and the environment."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streamkit.broker.security import ENVIRONMENT_PREFIX, KafkaSecurity, Secret, parse_security
from streamkit.errors import ConfigError
from streamkit.log.header import COMPRESSIONS, Compression

__all__ = ["KafkaConnection", "parse_connection"]

_CLUSTERS_OWN: Final = -1
_DECIMAL: Final = re.compile(r"-?[0-9]{1,18}")
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "request_timeout_ms": (100, 3_600_000),
    "transaction_timeout_ms": (1000, 3_600_000),
    "session_timeout_ms": (1000, 3_600_000),
    "replication_factor": (1, 32_767),
    "min_insync_replicas": (1, 32_767),
}
"""Least and most; a cluster may allow less, and says so."""
_COMPRESSION: Final = "compression_type"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConnection:
    """What a user may set of a Kafka connection, the address aside.

    Args:
        request_timeout_ms: Deadline of one call, retries included; a single answer is waited for a third of it.
        transaction_timeout_ms: After it the cluster ends a transaction whose producer is silent.
        session_timeout_ms: A worker that the group does not hear for so long loses its tasks to the others.
        replication_factor: Of topics that are created; -1 leaves it to the cluster.
        min_insync_replicas: Of topics that are created; None leaves it to the cluster.
        compression_type: How record batches are compressed before they are sent, to whatever topic; a topic with a
            `compression.type` of its own has the brokers compress them anew.
        security: Whom the client trusts, and how it proves who it is.
    """

    request_timeout_ms: int = 30_000
    transaction_timeout_ms: int = 30_000
    session_timeout_ms: int = 10_000
    replication_factor: int = _CLUSTERS_OWN
    min_insync_replicas: int | None = None
    compression_type: Compression = "none"
    security: KafkaSecurity = field(default_factory=KafkaSecurity)

    def __post_init__(self) -> None:
        """Refuse numbers that are out of range, or with which nothing could be written, and unknown codecs.

        Raises:
            ConfigError: One is, or more replicas must have a record than there are.
        """
        if self.compression_type not in COMPRESSIONS:
            raise ConfigError(
                f"{_COMPRESSION} cannot be {self.compression_type!r}",
                hint=f"it takes {', '.join(COMPRESSIONS[:-1])} or {COMPRESSIONS[-1]}",
            )
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            unset = value is None or (name == "replication_factor" and value == _CLUSTERS_OWN)
            if not unset and not least <= value <= most:
                raise _wrong(name, f", not {value}")
        needed = self.min_insync_replicas
        if needed is not None and _CLUSTERS_OWN != self.replication_factor < needed:
            raise ConfigError(
                f"min_insync_replicas is {needed}, more than the replication_factor of {self.replication_factor}",
                detail="nothing could be written to the topics that are created",
                hint="3 and 2 go on, without loss, when one broker is lost",
            )


def parse_connection(
    table: Mapping[str, object], environment: Mapping[str, str], read_secret: Callable[[str], Secret]
) -> KafkaConnection:
    """Make the settings of a Kafka connection from a config file's table and the environment, which wins.

    Args:
        table: The settings by name, those of `parse_security` among them.
        environment: All variables; those that begin with `ENVIRONMENT_PREFIX` are settings, empty ones are not set.
        read_secret: Returns what a file holds that only its owner can read.

    Raises:
        ConfigError: A setting is unknown, of the wrong type, out of its range, or does not fit with the others. No
            value of a secret is in the message.
    """
    variables = {name: f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in (*_RANGES, _COMPRESSION)}
    set_here = {name: environment.get(variable) or table.get(name) for name, variable in variables.items()}
    settings: dict[str, Any] = {
        name: value if name == _COMPRESSION else _number(name, value)
        for name, value in set_here.items()
        if value is not None
    }
    others = {name: value for name, value in table.items() if name not in variables}
    apart = {name: text for name, text in environment.items() if name not in variables.values()}
    return KafkaConnection(security=parse_security(others, apart, read_secret, list(variables)), **settings)


def _number(name: str, value: object) -> int:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    if type(value) is not int:
        raise _wrong(name)
    return value


def _wrong(name: str, but: str = "") -> ConfigError:
    least, most = _RANGES[name]
    return ConfigError(
        f"{name} takes a whole number from {least} to {most}{but}",
        hint="leave it out for the default",
    )
