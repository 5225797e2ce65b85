"""The topics of a log directory: their names, configs and ids, in one file that is replaced whole.

Not here: the partitions' records (`partition`).
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from streamkit.broker.protocols import TopicDescription
from streamkit.broker.whole_file import read_whole, write_whole
from streamkit.errors import ConfigError, CorruptBatchError, LogError, UnknownTopicError
from streamkit.log import Compression
from streamkit.log.header import COMPRESSIONS
from streamkit.seams import FileSystem

__all__ = ["INTERNAL_SUFFIXES", "Topic", "TopicTable", "check_same", "check_topic", "unknown_topic"]

INTERNAL_SUFFIXES: Final = ("-repartition", "-changelog")
PARTITION_COUNT_MAX: Final = 10_000
_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def _integer(low: int, high: int) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        valid = re.fullmatch(r"-?[0-9]{1,19}", text) is not None and low <= int(text) <= high
        return None if valid else f"an integer from {low} to {high}"

    return check


def _number(low: float, high: float) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        valid = re.fullmatch(r"[0-9]*\.?[0-9]+", text) is not None and low <= float(text) <= high
        return None if valid else f"a number from {low} to {high}"

    return check


def _words(*words: str) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        valid = all(word in words for word in text.split(","))
        return None if valid else f"{' or '.join(words)}"

    return check


def _word(*words: str) -> Callable[[str], str | None]:
    return lambda text: None if text in words else f"{', '.join(words[:-1])} or {words[-1]}"


_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1

_CONFIGS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "cleanup.policy": _words("delete", "compact"),
    "compression.type": _word("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
    "delete.retention.ms": _integer(0, _INT64_MAX),
    "index.interval.bytes": _integer(0, _INT32_MAX),
    "max.compaction.lag.ms": _integer(1, _INT64_MAX),
    "max.message.bytes": _integer(1, 64 * 1024 * 1024),
    "message.timestamp.type": _words("CreateTime"),
    "min.cleanable.dirty.ratio": _number(0, 1),
    "min.compaction.lag.ms": _integer(0, _INT64_MAX),
    "retention.bytes": _integer(-1, _INT64_MAX),
    "retention.ms": _integer(-1, _INT64_MAX),
    "segment.bytes": _integer(14, _INT32_MAX),
    "segment.ms": _integer(1, _INT64_MAX),
}
"""Kafka's names of the topic configs that are understood, each with a check that returns what it takes."""


def check_topic(name: str, partition_count: int, config: Mapping[str, str]) -> None:
    """Raise unless a topic may be called that and have such a count and config.

    Raises:
        ConfigError: The name, count or config is not valid.
    """
    _check_name(name)
    if not 1 <= partition_count <= PARTITION_COUNT_MAX:
        raise ConfigError(
            f"topic {name} cannot have {partition_count} partitions",
            hint=f"a topic has 1 to {PARTITION_COUNT_MAX} partitions",
        )
    for key, value in config.items():
        _check_config(name, key, value)


def check_same(existing: TopicDescription, partition_count: int, config: Mapping[str, str]) -> None:
    """Raise unless a topic that is there is the one that was asked for.

    Raises:
        ConfigError: Its count or config differs.
    """
    if existing.partition_count != partition_count:
        raise ConfigError(
            f"topic {existing.name} has {existing.partition_count} partitions, not {partition_count}",
            hint="leave the count out or pass the one that it has: keys would land elsewhere with another",
        )
    if existing.config != dict(config):
        raise ConfigError(
            f"topic {existing.name} exists with another config",
            detail=f"has {existing.config}, asked for {dict(config)}",
            hint="delete the topic first, or create it with the config that it has",
        )


def _check_name(name: str) -> None:
    """Raise unless `name` is one that Kafka allows; such a name is also a safe name of a directory."""
    if _NAME.fullmatch(name) is None or name in {".", ".."}:
        raise ConfigError(
            f"{name[:80]!r} is not a topic name",
            hint="a name has 1 to 249 letters, digits, dots, underscores and dashes, and is not . or ..",
        )


def unknown_topic(what: object) -> UnknownTopicError:
    """Return the error for a topic or partition that does not exist."""
    return UnknownTopicError(
        f"{what} does not exist", hint="create it with `streamkit topics create` or `streamkit produce`"
    )


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic. `topic_id` tells it from an earlier topic of the same name.

    An `unfinished` one is being made or deleted: users do not see it, and what there is of it is to be removed.
    """

    name: str
    topic_id: str
    partition_count: int
    config: dict[str, str]
    unfinished: bool = False

    def describe(self) -> TopicDescription:
        """Return it as users see it; what streamkit's own naming marks as its own is internal."""
        return TopicDescription(
            name=self.name,
            partition_count=self.partition_count,
            config=dict(self.config),
            internal=self.name.endswith(INTERNAL_SUFFIXES),
        )

    def as_unfinished(self) -> "Topic":
        """Return it as it is before it is there, and on its way out."""
        return msgspec.structs.replace(self, unfinished=True)

    @property
    def compression(self) -> Compression:
        """The codec of its record batches; `producer` is what producers send, and they send none."""
        wanted = self.config.get("compression.type", "producer")
        return next((codec for codec in COMPRESSIONS if codec == wanted), "none")

    def config_int(self, name: str, default: int) -> int:
        """Return an integer config."""
        return int(self.config.get(name, default))


class _TopicsFile(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    topics: list[Topic]


class TopicTable:
    """The topics by name; every change is durable before it is seen. The caller serialises changes."""

    def __init__(self, fs: FileSystem, path: str) -> None:
        """Read the file at `path`; without one there are no topics, and `found` is false.

        Raises:
            CorruptBatchError: The file is damaged.
        """
        self._fs, self._path = fs, path
        self._topics: dict[str, Topic] = {}
        body = read_whole(fs, path)
        self.found = body is not None
        if body is not None:
            try:
                read = msgspec.json.decode(body, type=_TopicsFile)
            except msgspec.DecodeError as error:
                raise CorruptBatchError(f"the list of topics does not decode: {error}", file=path) from error
            self._topics = {topic.name: topic for topic in read.topics}

    def all(self) -> list[Topic]:
        """Return the topics, sorted by name."""
        topics = [topic for topic in self._topics.values() if not topic.unfinished]
        return sorted(topics, key=lambda topic: topic.name)

    def unfinished(self) -> list[Topic]:
        """Return the topics of which something is to be removed."""
        return [topic for topic in self._topics.values() if topic.unfinished]

    def get(self, name: str) -> Topic | None:
        """Return the topic of that name, None if there is none."""
        topic = self._topics.get(name)
        return None if topic is None or topic.unfinished else topic

    def save(self) -> None:
        """Write the file as it is known."""
        self._save(self._topics)

    def put(self, topic: Topic) -> None:
        """Add or replace a topic."""
        self._save({**self._topics, topic.name: topic})

    def drop(self, name: str) -> None:
        """Take a topic off the list."""
        self._save({other: topic for other, topic in self._topics.items() if other != name})

    def check_new(self, name: str, partition_count: int, config: Mapping[str, str]) -> Topic | None:
        """Raise unless such a topic may be created; return it if it is there already.

        Raises:
            ConfigError: The name, count or config is not valid, or differs from the existing topic's.
        """
        check_topic(name, partition_count, config)
        existing = self.get(name)
        if existing is not None:
            check_same(existing.describe(), partition_count, config)
            return existing
        for other in self._topics:
            # The directories of `Orders` and `orders` are one on a file system that ignores case.
            if other != name and other.lower() == name.lower():
                raise ConfigError(f"topic {name} differs from topic {other} in case only", hint="choose another name")
        return None

    def _save(self, topics: dict[str, Topic]) -> None:
        body = msgspec.json.encode(_TopicsFile(format=1, topics=list(topics.values())))
        try:
            write_whole(self._fs, self._path, msgspec.json.format(body, indent=1))
        except OSError as error:
            raise LogError("the list of topics could not be written", detail=f"{self._path}: {error}") from error
        self._topics = topics


def _check_config(topic: str, key: str, value: str) -> None:
    check = _CONFIGS.get(key)
    if check is None:
        near = difflib.get_close_matches(key, _CONFIGS, n=1)
        raise ConfigError(
            f"topic config {key} is not known",
            detail=f"topic {topic}",
            hint=f"did you mean {near[0]}?" if near else f"known are {', '.join(_CONFIGS)}",
        )
    takes = check(value)
    if takes is not None:
        raise ConfigError(f"topic config {key} cannot be {value!r}", detail=f"topic {topic}", hint=f"it takes {takes}")
