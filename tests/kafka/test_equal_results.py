"""The jobs of `jobs/` on a real Kafka and on the embedded log: one answer, and one state.

`popular_words` is a Faust program around `word_count` and has no job of its own.
"""

import contextlib
import random
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from jobs_apart import job_apart
from outcomes import digests, settle, settled
from sample_records import FROM_MS, JOBS, UPDATES, Rows
from workers import read, running, until, worker

from streamkit import Job
from streamkit.broker import LATEST, Broker, open_broker
from streamkit.broker.partitioner import partition_of
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import Guarantee, Summary
from streamkit.runtime.reading import read_to
from streamkit.topology import Topology, compile_graph

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITION_COUNT = 3
ROWS_COUNT = 900
NO_CONTENTS = "0:0"
OF_ONE_TOPIC = {name: next(iter(topics.items())) for name, topics in JOBS.items() if len(topics) == 1}
"""In a run without an end the last rows of several inputs wait for each other, so it never has read them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is left after a run: committed source offsets, records of each sink, each store's digest by its shard."""

    offsets: dict[TopicPartition, int]
    outputs: dict[str, object]
    digests: dict[TopicPartition, dict[str, str]]


def fill(broker: Broker, topic: str, rows: Rows) -> None:
    broker.admin.create_topic(topic, PARTITION_COUNT, {"retention.ms": "-1"})
    producer, rng = broker.producer(), random.Random(5)
    for number in range(ROWS_COUNT):
        key, value = rows(rng, number)
        partition = number % PARTITION_COUNT if key is None else partition_of(key, PARTITION_COUNT)
        records = EncodedRecords.to_append(timestamps_ms=[FROM_MS], keys=[key], values=[value])
        producer.send(TopicPartition(topic, partition), records)
    producer.flush()
    producer.close()


def sources(topology: Topology) -> list[TopicPartition]:
    topics = {topic for sub in topology.sub_topologies for topic in sub.source_topics}
    return [TopicPartition(topic, partition) for topic in sorted(topics) for partition in range(PARTITION_COUNT)]


def drained(broker: Broker, topology: Topology, prefix: str) -> bool:
    """Return whether everything was read and committed, behind shuffles too."""
    committed = {place: at.offset for place, at in broker.group(topology.job).committed().items()}
    ends = broker.admin.list_offsets(dict.fromkeys(sources(topology), LATEST))
    if any(committed.get(place) != end for place, end in ends.items()):
        return False
    if not settled(broker, prefix):
        return False
    topics = {name: broker.admin.describe_topics()[name].partition_count for name in shuffles(topology)}
    places = [TopicPartition(topic, partition) for topic, count in topics.items() for partition in range(count)]
    with contextlib.closing(broker.fetcher()) as fetcher:
        return not any(
            len(records) for place in places for records in read_to(broker, fetcher, place, committed.get(place))
        )


def shuffles(topology: Topology) -> list[str]:
    return [repartition.topic for repartition in topology.repartitions]


def outcome(broker: Broker, topology: Topology, prefix: str, guarantee: Guarantee) -> Outcome:
    committed = broker.group(topology.job).committed()
    outputs: dict[str, object] = {}
    for topic in sorted({topic for sub in topology.sub_topologies for topic in sub.sink_topics}):
        records = read(broker, topic)
        if topic.removeprefix(prefix) in UPDATES:
            outputs[topic] = {key: value for key, value, _ in records}
        else:
            # At-least-once may repeat what a task had sent when another worker took it over.
            outputs[topic] = sorted(records if guarantee == "exactly-once" else set(records), key=repr)
    return Outcome(
        offsets={place: committed[place].offset for place in sources(topology)},
        outputs=outputs,
        digests=digests(broker, topology),
    )


def run_both_ways(
    url: str, job: Job, input_: tuple[str, Rows], prefix: str, directory: Path, how: tuple[Guarantee, int]
) -> list[Outcome]:
    """Run without an end until all is read, and then to the end; return what is left after each."""
    guarantee, workers_count = how
    topology, outcomes = compile_graph(job.build()), []
    with contextlib.closing(open_broker(url)) as broker:
        fill(broker, prefix + input_[0], input_[1])
        for bounded in (False, True):
            with contextlib.ExitStack() as stack:
                ends = [
                    stack.enter_context(
                        running(
                            worker(
                                job,
                                broker,
                                bounded=bounded,
                                guarantee=guarantee,
                                state_dir=str(directory),
                                worker_id=f"worker-{number}",
                            )
                        )
                    )[1]
                    for number in range(workers_count)
                ]
                until(lambda ends=ends, bounded=bounded: all(ends) if bounded else drained(broker, topology, prefix))
            summaries = [end for ended in ends for end in ended]
            assert all(isinstance(end, Summary) and end.finished == bounded for end in summaries), summaries
            settle(broker, prefix)
            outcomes.append(outcome(broker, topology, prefix, guarantee))
    return outcomes


@pytest.mark.parametrize("workers_count", [1, 2])
@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("name", OF_ONE_TOPIC)
def test_outputs_and_digests_are_those_of_the_embedded_log(
    name: str, guarantee: Guarantee, workers_count: int, kafka: str, tmp_path: Path
) -> None:
    """With windows open, when digests have something to say, and after the end, when every window is published."""
    prefix = f"equal{uuid.uuid4().hex[:8]}_"
    job, how = job_apart(name, prefix, tmp_path), (guarantee, workers_count)
    here = run_both_ways(f"log://{tmp_path}/log", job, OF_ONE_TOPIC[name], prefix, tmp_path / "here", how)
    there = run_both_ways(f"kafka://{kafka}", job, OF_ONE_TOPIC[name], prefix, tmp_path / "there", how)
    for one, other in zip(there, here, strict=True):
        assert (one.offsets, one.digests) == (other.offsets, other.digests)
        assert one.outputs == other.outputs
    assert any(digest != NO_CONTENTS for said in here[0].digests.values() for digest in said.values())
    assert all(here[1].outputs.values())
