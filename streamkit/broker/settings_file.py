"""`streamkit.toml` and the environment: how Kafka is reached. Nothing of it is an option of a command line."""

import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from streamkit.broker.connection import KafkaConnection, parse_connection
from streamkit.broker.open import open_broker
from streamkit.broker.protocols import Broker
from streamkit.broker.security import SECRETS, Secret
from streamkit.errors import ConfigError
from streamkit.seams.private_file import check_private, read_private, read_small

__all__ = ["kafka_connection", "open_with_settings"]

_CONFIG_VARIABLE: Final = "STREAMKIT_CONFIG"
_CONFIG_FILE: Final = "streamkit.toml"
_TABLE: Final = "kafka"


def open_with_settings(url: str) -> Broker:
    """Open the broker that a URL names, a Kafka cluster as the file and the environment say.

    Args:
        url: As for `open_broker`.

    Raises:
        StreamkitError: As `open_broker` and `kafka_connection` do.
    """
    return open_broker(url, connection=kafka_connection() if url.startswith("kafka://") else None)


def kafka_connection(environment: Mapping[str, str] = os.environ) -> KafkaConnection:
    """Read the settings of the Kafka connection: the file's table `kafka`, and over it the environment.

    Args:
        environment: The variables; `STREAMKIT_CONFIG` names another file than `streamkit.toml` in this directory.

    Raises:
        ConfigError: The file does not read, or a setting is wrong, or others can read a secret. No secret is in the
            message.
    """
    path = environment.get(_CONFIG_VARIABLE) or _CONFIG_FILE
    table: dict[str, Any] = {}
    if environment.get(_CONFIG_VARIABLE) or os.path.lexists(path):
        table = _table(path)
    return parse_connection(table, environment, lambda name: Secret(read_private(name)))


def _table(path: str) -> dict[str, Any]:
    text, mode = read_small(path)
    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line \d+", str(error))
        # Neither the message nor the cause: both may carry a piece of the file.
        raise ConfigError(f"{path} is no TOML{f', see {line[0]}' if line else ''}") from None
    for name in whole:
        if name != _TABLE:
            raise ConfigError(f"{path} has {name!r}, which is not known", hint=f"settings stand below [{_TABLE}]")
    table = whole.get(_TABLE, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{_TABLE} in {path} is no table", hint=f"settings stand below [{_TABLE}]")
    if any(name in table for name in SECRETS):
        check_private(path, mode)
    directory = os.path.dirname(path)
    return {
        # A file is named as seen from the file that names it.
        name: os.path.join(directory, value) if name.endswith("_file") and isinstance(value, str) and value else value
        for name, value in table.items()
    }
