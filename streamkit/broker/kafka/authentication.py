"""From security settings to the arguments of aiokafka's client.

TLS is 1.2 or later, and a broker's certificate is checked, against its host name too. A SCRAM server that asks for few
iterations is refused: who plays the broker would learn what a dictionary turns into the password.
"""

import asyncio
import ssl
from typing import Any, Final

from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider

from streamkit.broker.security import KafkaSecurity
from streamkit.errors import ConfigError
from streamkit.seams.private_file import read_private

__all__ = ["ITERATION_COUNT_MIN", "client_arguments"]

ITERATION_COUNT_MIN: Final = 4096
"""RFC 5802's least, and Kafka's own."""

ITERATION_COUNT_MAX: Final = 1_000_000
"""Half a second of work; more would stop the client."""


def client_arguments(security: KafkaSecurity) -> dict[str, Any]:
    """Return the arguments of `AIOKafkaClient` for these settings; secrets are revealed here.

    Raises:
        ConfigError: A certificate or key does not load, or is readable by others.
    """
    arguments: dict[str, Any] = {"security_protocol": security.security_protocol}
    if security.encrypted:
        arguments["ssl_context"] = _context(security)
    if security.sasl:
        arguments["sasl_mechanism"] = security.sasl_mechanism
        if security.sasl_mechanism == "OAUTHBEARER":
            arguments["sasl_oauth_token_provider"] = _Token(security)
        else:
            assert security.sasl_password is not None, "checked when the settings were made"
            arguments["sasl_plain_username"] = security.sasl_username
            arguments["sasl_plain_password"] = security.sasl_password.reveal()
            _install_checked_scram()
    return arguments


def _context(security: KafkaSecurity) -> ssl.SSLContext:
    what = security.ssl_ca_file
    try:
        context = ssl.create_default_context(cafile=security.ssl_ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if security.ssl_certificate_file is not None:
            assert security.ssl_key_file is not None, "checked when the settings were made"
            read_private(security.ssl_key_file)
            what = f"{security.ssl_certificate_file} with {security.ssl_key_file}"
            password = security.ssl_key_password
            # Without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(
                security.ssl_certificate_file,
                security.ssl_key_file,
                password=lambda: password.reveal() if password is not None else "",
            )
    except OSError as error:
        raise ConfigError(f"{what} does not load", detail=error.strerror or type(error).__name__) from error
    return context


class _Token(AbstractTokenProvider):
    """Gives each connection the token; one in a file may have been renewed."""

    def __init__(self, security: KafkaSecurity) -> None:
        self._security = security

    async def token(self) -> str:
        path, token = self._security.sasl_token_file, self._security.sasl_token
        if path is not None:
            return await asyncio.get_running_loop().run_in_executor(None, read_private, path)
        assert token is not None, "checked when the settings were made"
        return token.reveal()


class CheckedScram(conn.ScramAuthenticator):
    """aiokafka's SCRAM, which accepts any number of iterations, with bounds on it."""

    def create_salted_password(self, salt: bytes, iterations: int) -> None:
        """Take the server's salt and its number of iterations.

        Raises:
            ConfigError: They are too few, or too many. No proof was sent.
        """
        if not ITERATION_COUNT_MIN <= iterations <= ITERATION_COUNT_MAX:
            raise ConfigError(
                f"the Kafka broker asks for {iterations} SCRAM iterations",
                detail=f"from {ITERATION_COUNT_MIN} to {ITERATION_COUNT_MAX} are accepted",
                hint="see whether the address is right; or set the password anew, with iterations=8192",
            )
        make: Any = super().create_salted_password
        make(salt, iterations)


def _install_checked_scram() -> None:
    # The client makes its connections by a function that takes no class; a connection looks in its module for this.
    module: Any = conn
    module.ScramAuthenticator = CheckedScram
