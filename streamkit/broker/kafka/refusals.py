"""Why a connection to a broker failed: aiokafka logs the reason and goes on without it, so it is looked for by hand."""

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any, Final

from aiokafka.conn import create_conn
from aiokafka.errors import BrokerResponseError, KafkaError

from streamkit.broker.kafka.errors import AUTHENTICATION_REFUSED
from streamkit.errors import BrokerError

__all__ = ["refusal_of"]

_LOOK_SECONDS: Final = 5.0
_SAID_MAX: Final = 300


async def refusal_of(host: str, port: int, options: dict[str, Any]) -> BrokerError | None:
    """Connect once more, and return what a further attempt would not mend; None if there is no such thing.

    Args:
        host: Of the broker.
        port: Of the broker.
        options: What the client is made with; no secret among them gets into the error.

    Cost: one connection; at most 5 s.
    """
    arguments = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    make: Any = create_conn
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            connection = await make(host, port, **arguments)
    except (KafkaError, OSError, ValueError, KeyError) as error:
        # A timeout is an OSError. What a server that fails SCRAM makes of aiokafka is a ValueError or a KeyError.
        return _refusal(f"{host}:{port}", error, options)
    connection.close()
    return None


def _refusal(address: str, failure: BaseException, options: dict[str, Any]) -> BrokerError | None:
    for error in _chain(failure):
        if isinstance(error, ssl.SSLCertVerificationError):
            return BrokerError(
                f"the certificate of the Kafka broker at {address} is not accepted",
                detail=_said(error.verify_message, options),
                hint="see ssl_ca_file, and whether the certificate names this address",
            )
        if isinstance(error, ssl.SSLError):
            return BrokerError(
                f"TLS with the Kafka broker at {address} failed",
                detail=_said(error.reason or str(error), options),
                hint="see security_protocol; the broker may want a client certificate: ssl_certificate_file",
            )
        if isinstance(error, BrokerResponseError) and error.errno in AUTHENTICATION_REFUSED:
            return BrokerError(
                f"the Kafka broker at {address} refused the login",
                detail=f"Kafka answered {_said(str(error), options)}",
                hint="see sasl_mechanism, sasl_username and the password or token of this client",
            )
        if isinstance(error, ValueError | KeyError) and options.get("sasl_mechanism"):
            return BrokerError(
                f"the login at the Kafka broker at {address} failed",
                detail=f"its answer made no sense: {type(error).__name__}",
                hint="see whether the address is right: the broker may not know the password",
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _said(text: str, options: dict[str, Any]) -> str:
    """Return what the other side said, short and without the password."""
    password = options.get("sasl_plain_password")
    return (text.replace(password, "...") if password else text)[:_SAID_MAX]
