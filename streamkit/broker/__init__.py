"""A Kafka-compatible log behind small protocols: topics, fetching, producing, groups."""

from streamkit.broker.open import open_broker
from streamkit.broker.protocols import (
    EARLIEST,
    LAST_STABLE,
    LATEST,
    Admin,
    Appended,
    Broker,
    CommittedOffset,
    Fetched,
    Fetcher,
    Group,
    Isolation,
    OffsetSpec,
    Producer,
    TopicDescription,
)

__all__ = [
    "EARLIEST",
    "LAST_STABLE",
    "LATEST",
    "Admin",
    "Appended",
    "Broker",
    "CommittedOffset",
    "Fetched",
    "Fetcher",
    "Group",
    "Isolation",
    "OffsetSpec",
    "Producer",
    "TopicDescription",
    "open_broker",
]
