"""How a Kafka cluster is reached, and how long anything may take."""

import re
from dataclasses import dataclass, field
from typing import Final

from streamkit.broker.security import KafkaSecurity
from streamkit.errors import ConfigError

__all__ = ["KafkaSettings"]

_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[a-zA-Z0-9._-]+)(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """What a client of one cluster needs to know.

    Args:
        bootstrap: Addresses to begin with, `host:port,host:port`; the port is 9092 where none stands.
        request_timeout_ms: Deadline of one call, retries included; a single answer is waited for a third of it.
        transaction_timeout_ms: After it the cluster ends a transaction whose producer is silent.
        session_timeout_ms: A worker that the group does not hear for so long loses its tasks to the others.
        replication_factor: Of topics that are created; -1 leaves it to the cluster.
        min_insync_replicas: Of topics that are created; None leaves it to the cluster.
        security: Whom the client trusts, and how it proves who it is.
    """

    bootstrap: str
    request_timeout_ms: int = 30_000
    transaction_timeout_ms: int = 30_000
    session_timeout_ms: int = 10_000
    replication_factor: int = -1
    min_insync_replicas: int | None = None
    security: KafkaSecurity = field(default_factory=KafkaSecurity)

    def __post_init__(self) -> None:
        """Refuse addresses that are none, or that would be spoken to in clear.

        Raises:
            ConfigError: An address is not `host` or `host:port`, or its connection must be encrypted.
        """
        if "@" in self.bootstrap:
            # Not shown: what stands before it may be a password.
            raise ConfigError(
                "a Kafka URL takes no user and no password", hint="they belong into streamkit.toml or the environment"
            )
        for address in self.bootstrap.split(","):
            if _ADDRESS.fullmatch(address) is None:
                raise ConfigError(
                    f"{address!r} is no address of a Kafka broker",
                    hint="use kafka://host:9092, or several as kafka://one:9092,two:9092",
                )
        for address in self.bootstrap.split(","):
            self.security.check_address(re.sub(r":[0-9]{1,5}$", "", address))

    @property
    def answer_timeout_ms(self) -> int:
        """How long one answer is waited for, so that a call can ask again within its deadline."""
        return max(1, self.request_timeout_ms // 3)
