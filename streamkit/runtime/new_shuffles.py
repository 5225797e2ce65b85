"""Shuffles that a job got since it last ran: no task has read from them or sent anything there."""

from collections.abc import Collection, Mapping

from streamkit.broker import LATEST, Broker
from streamkit.errors import TopologyError
from streamkit.records import TopicPartition
from streamkit.topology import Repartition, Topology
from streamkit.topology.left_behind import LEFT_HINT, left_behind, said_of

__all__ = ["check_stores_behind", "never_written"]


def never_written(
    topology: Topology, broker: Broker, counts: Mapping[str, int], read: Collection[TopicPartition]
) -> list[Repartition]:
    """Return the shuffles that nothing was ever sent to; every run that ends sends a mark to each partition.

    Args:
        topology: Of the job.
        broker: Where its topics are.
        counts: The partitions of each topic.
        read: What offsets are committed for.

    Cost: offsets are asked for where none are committed.
    """
    unread = {
        one.name: [TopicPartition(one.topic, partition) for partition in range(counts[one.topic])]
        for one in topology.repartitions
    }
    unread = {name: places for name, places in unread.items() if set(read).isdisjoint(places)}
    places = [place for of_shuffle in unread.values() for place in of_shuffle]
    # Not the last stable offsets: a transaction that is open would hide what was committed behind it.
    ends = broker.admin.list_offsets(dict.fromkeys(places, LATEST)) if places else {}
    new = {name for name, of_shuffle in unread.items() if not any(ends[place] for place in of_shuffle)}
    return [one for one in topology.repartitions if one.name in new]


def check_stores_behind(
    topology: Topology, broker: Broker, counts: Mapping[str, int], read: Collection[TopicPartition]
) -> None:
    """Check that what is behind a new shuffle is new too: a store is at the offsets of the shuffle that fills it.

    Args:
        topology: Of the job.
        broker: Where its topics are.
        counts: The partitions of each topic.
        read: What offsets are committed for; nothing if the job has not run.

    Raises:
        TopologyError: A store is not. Nothing was changed.
    """
    for shuffle in never_written(topology, broker, counts, read) if read else ():
        below = topology.sub_topologies[shuffle.downstream]
        if below.source_topics or below.repartitions_in != (shuffle.name,):
            # Its tasks have offsets for something else too, by which the store may be right.
            continue
        for store in below.stores:
            topic = store.changelog_topic
            places = [TopicPartition(topic, partition) for partition in range(counts[topic])]
            if any(broker.admin.list_offsets(dict.fromkeys(places, LATEST)).values()):
                raise TopologyError(
                    f"the shuffle {shuffle.name!r} is new, and the store {store.name!r} behind it is not",
                    detail=said_of(left_behind(topology, broker.admin.describe_topics())),
                    hint=LEFT_HINT,
                )
