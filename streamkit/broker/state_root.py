"""Where a job's state lies when nobody says: beside its log, or below a name of its cluster."""

import re
from typing import Final

from streamkit.broker.open import log_directory
from streamkit.broker.protocols import Broker
from streamkit.errors import ConfigError

__all__ = ["KAFKA_STATE", "state_root"]

KAFKA_STATE: Final = ".streamkit/kafka"
"""Below it a directory for each Kafka cluster, by its id."""

_KAFKA: Final = "kafka://"


def state_root(url: str, broker: Broker) -> str | None:
    """Return the root of the state of jobs on a broker; None keeps state in memory.

    Args:
        url: Names the broker, as for `open_broker`.
        broker: What it named, opened.

    Raises:
        ConfigError: The Kafka cluster's id is no name for a directory.
    """
    directory = log_directory(url)
    if directory is not None:
        return f"{directory}/state"
    if not url.startswith(_KAFKA):
        return None
    cluster_id = broker.admin.log_id()
    # It comes from another machine, and must not lead out of the directory.
    if re.fullmatch(r"[A-Za-z0-9_-]{1,100}", cluster_id) is None:
        raise ConfigError(
            f"the Kafka cluster's id {cluster_id[:100]!r} is no name for a directory",
            hint="name one: --state-dir of the command line, state_dir of a mounted job",
        )
    return f"{KAFKA_STATE}/{cluster_id}"
