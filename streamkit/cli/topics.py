"""`streamkit topics`: create, list, describe, copy, delete."""

import click

from streamkit.broker import EARLIEST, LAST_STABLE, LATEST
from streamkit.cli.broker import broker_option, described, opened
from streamkit.cli.copy import copy
from streamkit.errors import ConfigError
from streamkit.records import TopicPartition

__all__ = ["topics"]


@click.group()
def topics() -> None:
    """Create, list, describe, copy and delete topics."""


topics.add_command(copy)


@topics.command()
@click.argument("topic")
@click.option("--partitions", type=click.IntRange(min=1), default=1, show_default=True, help="How many partitions.")
@click.option("--config", "settings", multiple=True, metavar="KEY=VALUE", help="A topic config, by Kafka's name.")
@broker_option
def create(topic: str, partitions: int, settings: tuple[str, ...], url: str) -> None:
    """Create TOPIC. One that exists with the same partitions and configs is left as it is."""
    config = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--config {setting!r} is not KEY=VALUE", hint="such as --config segment.bytes=1000000")
        config[key] = value
    with opened(url, make=True) as broker:
        broker.admin.create_topic(topic, partitions, config)
    click.echo(f"{topic}: {partitions} partition{'s' if partitions > 1 else ''}")


@topics.command("list")
@click.option("--exclude-internal", is_flag=True, help="Leave changelogs and repartition topics out.")
@broker_option
def list_(exclude_internal: bool, url: str) -> None:
    """List the topics, a name a line."""
    with opened(url) as broker:
        for name, topic in sorted(broker.admin.describe_topics().items()):
            if not (topic.internal and exclude_internal):
                click.echo(name)


@topics.command()
@click.argument("topic")
@broker_option
def describe(topic: str, url: str) -> None:
    """Show the configs of TOPIC, and the offsets of each partition."""
    with opened(url) as broker:
        found = described(broker, topic)
        kind = "internal, " if found.internal else ""
        configs = ", ".join(f"{key}={value}" for key, value in sorted(found.config.items()))
        click.echo(f"{topic}: {kind}{found.partition_count} partitions, {configs or 'no configs of its own'}")
        click.echo(f"{'partition':>9} {'start':>12} {'last stable':>12} {'end':>12}")
        for index in range(found.partition_count):
            place = TopicPartition(topic, index)
            offsets = [broker.admin.list_offsets({place: spec})[place] for spec in (EARLIEST, LAST_STABLE, LATEST)]
            click.echo(f"{index:>9} {offsets[0]:>12} {offsets[1]:>12} {offsets[2]:>12}")


@topics.command()
@click.argument("topic")
@broker_option
def delete(topic: str, url: str) -> None:
    """Delete TOPIC, its records, and every group's offsets in it."""
    with opened(url) as broker:
        broker.admin.delete_topic(topic)
    click.echo(f"{topic}: deleted")
