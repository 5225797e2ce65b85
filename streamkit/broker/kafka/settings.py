"""How a Kafka cluster is reached, and how long anything may take."""

import re
from dataclasses import dataclass, fields
from typing import Final

from streamkit.broker.connection import KafkaConnection
from streamkit.errors import ConfigError

__all__ = ["KafkaSettings"]

_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[a-zA-Z0-9._-]+)(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings(KafkaConnection):
    """What a client of one cluster needs to know.

    Args:
        bootstrap: Addresses to begin with, `host:port,host:port`; the port is 9092 where none stands.

    The rest is `KafkaConnection`'s.
    """

    bootstrap: str

    @classmethod
    def of(cls, bootstrap: str, connection: KafkaConnection) -> "KafkaSettings":
        """Return what a user has set, with an address."""
        return cls(
            bootstrap=bootstrap, **{field.name: getattr(connection, field.name) for field in fields(KafkaConnection)}
        )

    def __post_init__(self) -> None:
        """Refuse addresses that are none, or that would be spoken to in clear.

        Raises:
            ConfigError: An address is not `host` or `host:port`, its connection must be encrypted, or a number is
                out of its range.
        """
        KafkaConnection.__post_init__(self)
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
