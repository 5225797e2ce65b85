"""How a Kafka client proves who it is and whom it trusts: one value, read from a table and the environment.

A combination that would send a password, a token or records in clear to another machine is refused here, before
anything is connected. Nothing here opens a file: what reads one is an argument.

Not here: TLS contexts and aiokafka's arguments (`kafka.authentication`), where the table lies (`broker.settings_file`).
"""

import difflib
import hmac
import ipaddress
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, NoReturn

from streamkit.errors import ConfigError

__all__ = ["ENVIRONMENT_PREFIX", "SECRETS", "KafkaSecurity", "Secret", "parse_security"]

ENVIRONMENT_PREFIX: Final = "STREAMKIT_KAFKA_"
"""What stands before the name of a setting, in capitals, as the name of its variable."""

SECRETS: Final = ("sasl_password", "sasl_token", "ssl_key_password")
"""The settings whose values nobody is shown; `NAME_file` names a file that holds the value instead."""

_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_MECHANISMS: Final = ("PLAIN", *_SCRAM, "OAUTHBEARER")
_FLAG: Final = "allow_insecure_transport"
_HOST_CHECKS: Final = ("ssl_check_hostname", "ssl_endpoint_identification_algorithm")


class Secret:
    """A text that shows itself to nobody but `reveal`: not to `repr`, `str`, a format, JSON or a pickle."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Keep the text."""
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the one call that needs it."""
        return self._text

    def __repr__(self) -> str:
        """Return what everybody may see."""
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        """Compare without telling by the time it takes how much was equal."""
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        """Return the same for all: a hash tells something of what was hashed."""
        return hash(Secret)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """What a client needs to reach a secured cluster; the names are Kafka's where Kafka has one.

    Args:
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        ssl_ca_file: PEM file of the authorities that are trusted; the machine's where none is given.
        ssl_certificate_file: PEM file of the client's certificate and its chain.
        ssl_key_file: PEM file of its key, readable by its owner alone.
        ssl_key_password: Of that key.
        sasl_mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.
        sasl_username: For PLAIN and SCRAM.
        sasl_password: For PLAIN and SCRAM.
        sasl_token: For OAUTHBEARER.
        sasl_token_file: The same, read anew for each connection.
        allow_insecure_transport: Whether another machine may be spoken to in clear. It never allows that for PLAIN or
            OAUTHBEARER, which send what they are to prove as it is.
    """

    security_protocol: str = "PLAINTEXT"
    ssl_ca_file: str | None = None
    ssl_certificate_file: str | None = None
    ssl_key_file: str | None = None
    ssl_key_password: Secret | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: Secret | None = None
    sasl_token: Secret | None = None
    sasl_token_file: str | None = None
    allow_insecure_transport: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            ConfigError: A value is none of those known, a setting lacks another, or has no effect.
        """
        _one_of("security_protocol", self.security_protocol, _PROTOCOLS)
        if self.sasl:
            _one_of("sasl_mechanism", self.sasl_mechanism, _MECHANISMS)
        self._check_names()
        if (self.ssl_certificate_file is None) != (self.ssl_key_file is None):
            raise ConfigError("ssl_certificate_file and ssl_key_file go together", hint="set both, or neither")
        if self.sasl_token is not None and self.sasl_token_file is not None:
            raise ConfigError("sasl_token and sasl_token_file are both set", hint="set one of them")
        if self.sasl_mechanism == "OAUTHBEARER" and self.sasl_token is None and self.sasl_token_file is None:
            raise ConfigError("OAUTHBEARER needs a token", hint="set sasl_token_file, or sasl_token")

    @property
    def encrypted(self) -> bool:
        """Whether connections are TLS."""
        return self.security_protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """Whether the client logs in."""
        return self.security_protocol.startswith("SASL")

    def check_address(self, host: str) -> None:
        """Refuse to speak in clear to another machine; cheap, and needed for every address that a broker advertises.

        Raises:
            ConfigError: The connection would not be encrypted, and `host` is not this machine.
        """
        if self.encrypted or _loopback(host):
            return
        if self.sasl and self.sasl_mechanism not in _SCRAM:
            raise ConfigError(
                f"{self.sasl_mechanism} would send its secret in clear to {host}",
                hint="use security_protocol SASL_SSL, or a SCRAM mechanism; nothing else allows it",
            )
        if not self.allow_insecure_transport:
            raise ConfigError(
                f"the connection to {host} would not be encrypted: security_protocol is {self.security_protocol}",
                hint=f"set security_protocol to {'SASL_SSL' if self.sasl else 'SSL'}, or {_FLAG} to true, in"
                f" streamkit.toml or as {ENVIRONMENT_PREFIX}...: see docs/security.md",
            )

    def _check_names(self) -> None:
        uses, needs = set[str](), set[str]()
        if self.encrypted:
            uses |= {"ssl_ca_file", "ssl_certificate_file", "ssl_key_file", "ssl_key_password"}
        if self.sasl:
            named = {"sasl_username", "sasl_password"}
            needs = {"sasl_mechanism"} | (set() if self.sasl_mechanism == "OAUTHBEARER" else named)
            uses |= needs | ({"sasl_token", "sasl_token_file"} if self.sasl_mechanism == "OAUTHBEARER" else set())
        known = {field.name for field in fields(self)} - {"security_protocol", _FLAG}
        found = {name for name in known if getattr(self, name) is not None}
        way = self.security_protocol + (f" with {self.sasl_mechanism}" if self.sasl else "")
        for name in sorted(found - uses):
            raise ConfigError(f"{name} has no effect with {way}", hint="leave it out, or set security_protocol")
        for name in sorted(needs - found):
            other = f", or {name}_file" if name in SECRETS else ""
            raise ConfigError(f"{name} is missing for {way}", hint=f"set {name}{other}")


def parse_security(
    table: Mapping[str, object],
    environment: Mapping[str, str],
    read_secret: Callable[[str], Secret],
    others: Collection[str] = (),
) -> KafkaSecurity:
    """Make the security of a Kafka connection from a config file's table and the environment, which wins.

    Args:
        table: The settings by name; secrets may stand as `NAME_file` instead.
        environment: All variables; those that begin with `ENVIRONMENT_PREFIX` are settings, empty ones are not set.
        read_secret: Returns what a file holds that only its owner can read.
        others: The names of settings that are read elsewhere, for hints.

    Raises:
        ConfigError: A setting is unknown, of the wrong type, or does not fit with the others. No value of a secret is
            in the message.
    """
    from_environment: dict[str, object] = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): text
        for name, text in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and text
    }
    merged: dict[str, object] = {name: value for name, value in table.items() if not _replaced(name, from_environment)}
    for source in (merged, from_environment):
        for name in SECRETS:
            if name in source and f"{name}_file" in source:
                raise ConfigError(f"{name} and {name}_file are both set", hint="set one of them")
    settings: dict[str, Any] = {}
    for name, value in {**merged, **from_environment}.items():
        _check_known(name, others)
        plain = name.removesuffix("_file")
        if name == _FLAG:
            settings[name] = _flag(value)
        elif not isinstance(value, str) or not value:
            raise ConfigError(f"{name} takes a text that is not empty")
        elif name in SECRETS:
            settings[name] = Secret(value)
        elif plain in SECRETS and name != "sasl_token_file":
            settings[plain] = read_secret(value)
        else:
            settings[name] = value
    return KafkaSecurity(**settings)


def _replaced(name: str, by: Mapping[str, object]) -> bool:
    """Return whether the environment sets it, or the same secret in its other form."""
    plain = name.removesuffix("_file")
    return name in by or (plain in SECRETS and (plain in by or f"{plain}_file" in by))


def _check_known(name: str, others: Collection[str]) -> None:
    known = [*(field.name for field in fields(KafkaSecurity)), *(f"{secret}_file" for secret in SECRETS)]
    if name in known:
        return
    known += others
    if name in _HOST_CHECKS:
        raise ConfigError(f"{name} is not known", hint="a broker's certificate is always checked against its host name")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(set(known)))}"
    raise ConfigError(f"the Kafka setting {name[:80]!r} is not known", hint=hint)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ConfigError(f"{_FLAG} takes true or false")


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        stated = f"cannot be {value!r}" if value is not None else "is missing"
        raise ConfigError(f"{name} {stated}", hint=f"it takes {', '.join(known[:-1])} or {known[-1]}")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
