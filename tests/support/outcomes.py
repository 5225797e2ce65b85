"""What the log says of a job when all of it can be read."""

import contextlib

import orjson
from workers import until

from streamkit.broker import LAST_STABLE, LATEST, Broker
from streamkit.records import TopicPartition
from streamkit.runtime.position import Position
from streamkit.runtime.reading import read_to
from streamkit.state import POSITION_KEY
from streamkit.topology import Topology


def settle(broker: Broker, prefix: str) -> None:
    """Return when no transaction is open in the topics of a prefix.

    Kafka answers a commit before it has written the markers, each partition's on its own.
    """
    until(lambda: settled(broker, prefix))


def settled(broker: Broker, prefix: str) -> bool:
    topics = [topic for name, topic in broker.admin.describe_topics().items() if name.startswith(prefix)]
    places = [TopicPartition(topic.name, partition) for topic in topics for partition in range(topic.partition_count)]
    stable, ends = (broker.admin.list_offsets(dict.fromkeys(places, at)) for at in (LAST_STABLE, LATEST))
    return stable == ends


def digests(broker: Broker, topology: Topology) -> dict[TopicPartition, dict[str, str]]:
    """Return what the last position record of each changelog partition says of its own store.

    Of another store of the task it says what was when this one was written last, which depends on the commits.
    """
    found = {}
    with contextlib.closing(broker.fetcher()) as fetcher:
        stores = {store.changelog_topic: store.name for sub in topology.sub_topologies for store in sub.stores}
        for topic, name in stores.items():
            for partition in range(broker.admin.describe_topics()[topic].partition_count):
                place = TopicPartition(topic, partition)
                for records in read_to(broker, fetcher, place, None):
                    pairs = dict(zip(records.keys, records.values, strict=True))
                    if POSITION_KEY in pairs:
                        said = Position.from_json(orjson.loads(pairs[POSITION_KEY] or b""))
                        found[place] = {store: digest for store, digest in said.digests.items() if store == name}
    return found
