"""Before a run: do the topics that the job reads by their key have each key where Kafka's partitioner puts it?

Clients differ: the default of librdkafka, and so of many languages, is another hash. A topic filled with it can still
be read by key, as long as each key stays in one partition; but it is not co-partitioned with any other topic, and a
key that two producers place differently has two results. So a sample is looked at, and what is found is said.

Not here: the partitioner (`streamkit.broker.partitioner`), partition counts (`setup`).
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streamkit.broker import EARLIEST, LAST_STABLE, Broker, TopicDescription
from streamkit.broker.partitioner import partitions_of
from streamkit.errors import OffsetOutOfRangeError
from streamkit.graph import Join, Node, Source, TableJoin
from streamkit.graph.nodes import store_names
from streamkit.log import decode_parts
from streamkit.records import TopicPartition
from streamkit.topology import Topology

__all__ = ["KeySample", "misplaced", "topics_read_by_key", "warn_of_misplaced_keys"]

SAMPLE_BYTES: Final = 64 * 1024
SAMPLE_KEYS: Final = 1_000
"""Of each partition and place; a topic hashed otherwise shows in the first few."""

_LOGGER: Final = logging.getLogger("streamkit")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySample:
    """Some keys of one partition, with their offsets; null keys are left out."""

    place: TopicPartition
    offsets: Sequence[int]
    keys: Sequence[bytes]


def misplaced(sample: KeySample, partition_count: int) -> list[int]:
    """Return the indices of the keys that Kafka's partitioner puts into another partition.

    Args:
        sample: The keys.
        partition_count: Of the topic, at least 1.
    """
    return np.flatnonzero(partitions_of(sample.keys, partition_count) != sample.place.partition).tolist()


def topics_read_by_key(topology: Topology) -> list[str]:
    """Return the source topics by whose own keys rows are grouped, kept or joined, without a shuffle; sorted."""
    graph, found = topology.graph, set[str]()
    for sub in topology.sub_topologies:
        nodes = [graph.node(name) for name in sub.nodes]
        inside = {node.name: node for node in nodes}
        ahead: list[Node] = [node for node in nodes if store_names(node) or isinstance(node, Join | TableJoin)]
        seen = set[str]()
        while ahead:
            node = ahead.pop()
            if node.name in seen:
                continue
            seen.add(node.name)
            if isinstance(node, Source):
                found.add(node.topic)
            ahead += [inside[name] for name in node.inputs if name in inside]
    return sorted(found)


def warn_of_misplaced_keys(topology: Topology, broker: Broker, topics: Mapping[str, TopicDescription]) -> None:
    """Log a warning for each topic that is read by its key and has sampled keys elsewhere than Kafka puts them.

    Args:
        topology: Of the job.
        broker: Where its topics are.
        topics: What there is; sources that are missing are left out.

    Cost: two fetches of 64 KiB a partition for each topic that is read by its key; none for other jobs.
    """
    for topic in topics_read_by_key(topology):
        if topic in topics and topics[topic].partition_count > 1:
            _warn(topology.job, topic, topics[topic].partition_count, broker)


def _warn(job: str, topic: str, partition_count: int, broker: Broker) -> None:
    samples = _sampled(topic, partition_count, broker)
    bad = [(sample, indices) for sample in samples if (indices := misplaced(sample, partition_count))]
    if not bad:
        return
    sample, indices = bad[0]
    key = sample.keys[indices[0]]
    _LOGGER.warning(
        "job %s reads topic %s by its key, and %d of %d sampled keys are not where Kafka's partitioner (murmur2) puts"
        " them: key %s at offset %d of %s belongs into partition %d; if a key has records in two partitions, it has"
        " two results: set the producer's partitioner to murmur2, or group_by() the key so that it is shuffled",
        job,
        topic,
        sum(len(indices) for _, indices in bad),
        sum(len(one.keys) for one in samples),
        key[:80].decode("utf-8", "backslashreplace"),
        sample.offsets[indices[0]],
        sample.place,
        int(partitions_of([key], partition_count)[0]),
    )


def _sampled(topic: str, partition_count: int, broker: Broker) -> list[KeySample]:
    """Return keys from the start of each partition, and from near its end, where today's producers write."""
    places = [TopicPartition(topic, index) for index in range(partition_count)]
    starts = broker.admin.list_offsets(dict.fromkeys(places, EARLIEST))
    ends = broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE))
    late = {place: max(starts[place], ends[place] - SAMPLE_KEYS) for place in places}
    first = {place: at for place, at in starts.items() if at < ends[place]}
    last = {place: at for place, at in late.items() if at > starts[place]}
    samples: list[KeySample] = []
    fetcher = broker.fetcher()
    try:
        for positions in filter(None, (first, last)):
            # Records may be removed meanwhile; a sample is not worth an error.
            with contextlib.suppress(OffsetOutOfRangeError):
                for part in fetcher.fetch(positions, wait_ms=0, bytes_max=SAMPLE_BYTES):
                    place = part.topic_partition
                    # Of what inflates to more than one part the first is sample enough.
                    records = next(decode_parts(part.record_batches, from_offset=positions[place]))
                    rows = zip(records.offsets.tolist()[:SAMPLE_KEYS], records.keys, strict=False)
                    keyed = [(offset, key) for offset, key in rows if key is not None]
                    offsets, keys = [offset for offset, _ in keyed], [key for _, key in keyed]
                    samples.append(KeySample(place=place, offsets=offsets, keys=keys))
    finally:
        fetcher.close()
    return samples
