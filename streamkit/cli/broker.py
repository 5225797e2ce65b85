"""The option `--broker`, and opening what it names."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import click

from streamkit.broker import Broker, TopicDescription
from streamkit.broker.open import log_directory
from streamkit.broker.settings_file import open_with_settings
from streamkit.broker.state_root import KAFKA_STATE
from streamkit.errors import ConfigError, UnknownTopicError
from streamkit.seams import SystemFileSystem

__all__ = ["broker_option", "described", "opened", "state_dir_option"]

broker_option: Callable[[Any], Any] = click.option(
    "--broker",
    "url",
    metavar="URL",
    envvar="STREAMKIT_BROKER",
    default="log://.streamkit",
    show_default=True,
    show_envvar=True,
    help="Where the topics are: log://DIR, log://DIR?durability=os (lossy), or kafka://HOST:9092.",
)

state_dir_option: Callable[[Any], Any] = click.option(
    "--state-dir",
    metavar="DIR",
    help=f"Root of the state.  [default: DIR/state of log://DIR; {KAFKA_STATE}/ID of the Kafka cluster with that id]",
)


@contextlib.contextmanager
def opened(url: str, *, make: bool = False) -> Iterator[Broker]:
    """Open a broker and close it afterwards.

    Args:
        url: What `--broker` said.
        make: Whether a log directory that does not exist is made; reading from one that is not there is a mistake.

    Raises:
        ConfigError: The URL names no broker, or a directory without a log.
    """
    directory = log_directory(url)
    if directory and not make and "log_id" not in SystemFileSystem().list(directory):
        raise ConfigError(
            f"there is no log in {directory!r}",
            hint="streamkit produce and streamkit topics create make one; --broker or STREAMKIT_BROKER name another",
        )
    broker = open_with_settings(url)
    try:
        yield broker
    finally:
        broker.close()


def described(broker: Broker, topic: str) -> TopicDescription:
    """Return what a topic is.

    Raises:
        UnknownTopicError: There is none of that name.
    """
    topics = broker.admin.describe_topics()
    if topic not in topics:
        raise UnknownTopicError(
            f"topic {topic!r} does not exist",
            detail=f"there are: {', '.join(sorted(topics)) or 'none'}",
            hint="streamkit topics create and streamkit produce make topics",
        )
    return topics[topic]
