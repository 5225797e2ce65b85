"""Keys that are not where Kafka's partitioner puts them are noticed before a run, where the job relies on it."""

import operator
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import Machine

from streamkit import Job
from streamkit.broker.partitioner import partition_of
from streamkit.records import TopicPartition
from streamkit.runtime import RunOptions
from streamkit.runtime.keys_check import SAMPLE_KEYS, KeySample, misplaced, topics_read_by_key
from streamkit.runtime.setup import prepare
from streamkit.runtime.task_plan import unchecked
from streamkit.topology import compile_graph

COUNT = 4
KEYS = [b"key %d" % index for index in range(40)]


def murmur(key: bytes) -> int:
    return partition_of(key, COUNT)


def crc(key: bytes) -> int:
    """Where librdkafka's default partitioner puts a key."""
    return zlib.crc32(key) % COUNT


def by_key() -> Job:
    job = Job("counter")
    job.stream("rows", key=str, value=bytes).group_by_key().count(name="counts").to("out")
    return job


def shuffled() -> Job:
    job = Job("counter")
    job.stream("rows", key=str, value=str).group_by(str, name="by_value").count(name="counts").to("out")
    return job


def filled(job: Job, partitioner: Callable[[bytes], int], keys: list[bytes] = KEYS) -> Machine:
    machine = Machine(job, {"rows": COUNT})
    for partition in range(COUNT):
        machine.send("rows", partition, [(key, b"1", 0) for key in keys if partitioner(key) == partition])
    return machine


def warned(machine: Machine, caplog: pytest.LogCaptureFixture) -> list[str]:
    prepare(machine.topology, machine.broker, RunOptions(), unchecked)
    return [record.getMessage() for record in caplog.records]


def test_a_topic_of_another_partitioner_is_warned_of_with_a_key_and_the_way_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (message,) = warned(filled(by_key(), crc), caplog)
    wrong = [key for key in KEYS if crc(key) != murmur(key)]
    first = min(wrong, key=lambda key: (crc(key), KEYS.index(key)))
    assert f"{len(wrong)} of {len(KEYS)} sampled keys" in message
    assert f"key {first.decode()} at offset " in message
    assert f"of rows-{crc(first)} belongs into partition {murmur(first)}" in message
    assert "set the producer's partitioner to murmur2, or group_by()" in message


@pytest.mark.parametrize(("job", "partitioner"), [(by_key, murmur), (shuffled, crc)])
def test_nothing_is_said_where_keys_agree_or_do_not_matter(
    job: Callable[[], Job], partitioner: Callable[[bytes], int], caplog: pytest.LogCaptureFixture
) -> None:
    assert warned(filled(job(), partitioner), caplog) == []


def test_records_without_a_key_belong_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(by_key(), {"rows": COUNT})
    machine.send("rows", 3, [(None, b"1", 0)])
    assert warned(machine, caplog) == []


def test_todays_producers_are_looked_at_too(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(by_key(), {"rows": COUNT})
    good = [key for key in (b"good %d" % index for index in range(12 * SAMPLE_KEYS)) if murmur(key) == 0]
    bad, before, behind = next(key for key in KEYS if murmur(key) == 1), SAMPLE_KEYS * 3 // 2, SAMPLE_KEYS // 2
    machine.send("rows", 0, [(key, b"1", 0) for key in [*good[:before], bad, *good[-behind:]]])
    (message,) = warned(machine, caplog)
    assert f"key {bad.decode()} at offset {before} of rows-0" in message


def test_an_empty_topic_and_one_with_one_partition_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert warned(Machine(by_key(), {"rows": COUNT}), caplog) == []
    assert warned(Machine(by_key(), {"rows": 1}), caplog) == []


def test_only_topics_whose_own_key_is_grouped_by_count() -> None:
    job = Job("mixed")
    keyed, other = job.stream("keyed", key=str), job.stream("other", key=str)
    job.stream("plain", value=str).group_by(str, name="by_value").count(name="words").to("words_out")
    keyed.merge(other).group_by_key().count(name="counts").to("out")
    job.stream("copied").to("copy")
    assert topics_read_by_key(compile_graph(job.build())) == ["keyed", "other"]


def test_topics_whose_own_keys_are_joined_count_whatever_lies_between() -> None:
    job = Job("joined")
    table = job.table("names", key=str, value=str).filter(bool, name="named")
    job.stream("visits", key=str, value=str).map(str.upper).join(table, operator.add, name="both").to("out")
    job.table("alone", key=str, value=str)
    assert topics_read_by_key(compile_graph(job.build())) == ["alone", "names", "visits"]


@given(keys=st.lists(st.binary(max_size=9)), partition_count=st.integers(1, 9), data=st.data())
def test_each_key_and_no_other_is_misplaced_that_the_partitioner_puts_elsewhere(
    keys: list[bytes], partition_count: int, data: st.DataObject
) -> None:
    partition = data.draw(st.integers(0, partition_count - 1))
    sample = KeySample(place=TopicPartition("t", partition), offsets=range(len(keys)), keys=keys)
    elsewhere = [index for index, key in enumerate(keys) if partition_of(key, partition_count) != partition]
    assert misplaced(sample, partition_count) == elsewhere
