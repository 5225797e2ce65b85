"""How a Kafka cluster is reached, and how long anything may take."""

import re
import ssl
from dataclasses import dataclass, field
from typing import Final

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
        replication_factor: Of topics that are created; -1 leaves it to the cluster.
        min_insync_replicas: Of topics that are created; None leaves it to the cluster.
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
        username: For SASL.
        password: For SASL; never shown.
        ssl_context: For SSL; made from the machine's authorities where none is given.
    """

    bootstrap: str
    request_timeout_ms: int = 30_000
    transaction_timeout_ms: int = 30_000
    replication_factor: int = -1
    min_insync_replicas: int | None = None
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        """Refuse addresses that are none.

        Raises:
            ConfigError: An address is not `host` or `host:port`.
        """
        for address in self.bootstrap.split(","):
            if _ADDRESS.fullmatch(address) is None:
                raise ConfigError(
                    f"{address!r} is no address of a Kafka broker",
                    hint="use kafka://host:9092, or several as kafka://one:9092,two:9092",
                )

    @property
    def answer_timeout_ms(self) -> int:
        """How long one answer is waited for, so that a call can ask again within its deadline."""
        return max(1, self.request_timeout_ms // 3)
