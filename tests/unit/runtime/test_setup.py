"""Before any task opens: topics and counts that do not fit are errors that name the fix."""

import random

import pytest
from machine import Machine
from scenarios import SCENARIOS

from streamkit import Job
from streamkit.errors import TopologyError, UnknownTopicError
from streamkit.records import TopicPartition
from streamkit.runtime import RunOptions
from streamkit.runtime.build import unchecked
from streamkit.runtime.position import Note
from streamkit.runtime.setup import JobPlan, prepare
from streamkit.topology import compile_graph


def prepared(machine: Machine, job: Job, *, bounded: bool = False, go_on: bool = False) -> JobPlan:
    options = RunOptions(bounded=bounded, go_on=go_on)
    return prepare(compile_graph(job.build()), machine.broker, options, unchecked)


def both_by_key() -> Job:
    job = Job("both")
    one, two = job.stream("one", key=str), job.stream("two", key=str)
    one.merge(two).group_by_key().count(name="counts").to("out")
    return job


def test_a_source_that_does_not_exist_is_named_with_those_that_do() -> None:
    machine = Machine(SCENARIOS["table"].build(), {"other": 1})
    with pytest.raises(UnknownTopicError, match="'readings'") as caught:
        prepared(machine, SCENARIOS["table"].build())
    assert "there are: other" in str(caught.value)
    assert "streamkit topics create readings" in str(caught.value)
    assert list(machine.broker.admin.describe_topics()) == ["other"]


def test_two_sources_read_by_key_in_one_aggregation_need_one_partition_count() -> None:
    machine = Machine(both_by_key(), {"one": 2, "two": 3})
    with pytest.raises(TopologyError, match="'one' has 2 partitions and 'two' has 3") as caught:
        prepared(machine, both_by_key())
    assert "the same partition count" in str(caught.value)


def test_sources_of_different_counts_may_be_merged_where_no_key_matters() -> None:
    job = Job("mixed")
    job.stream("one").merge(job.stream("two")).to("out")
    machine = Machine(job, {"one": 1, "two": 3})
    machine.send("one", 0, [(None, b"1", 0)])
    machine.send("two", 2, [(None, b"2", 0)])
    machine.run_bounded(random.Random(1))
    assert sorted(value or b"" for _, value, _ in machine.read("out")) == [b"1", b"2"]


def test_an_internal_topic_of_another_count_is_an_error() -> None:
    def job(shards: int) -> Job:
        made = Job("sharded")
        made.stream("rows", value=str).group_by(str, name="by_row", shards=shards).count(name="counts").to("out")
        return made

    machine = Machine(job(2), {"rows": 1})
    prepared(machine, job(2))
    with pytest.raises(TopologyError, match="has 2 partitions, the job now needs 4") as caught:
        prepared(machine, job(4))
    assert "set shards= back" in str(caught.value)


def test_the_ends_of_a_bounded_run_are_fixed_when_it_first_starts() -> None:
    machine = Machine(SCENARIOS["table"].build(), {"readings": 2})
    machine.send("readings", 0, [(None, b"1", 0)])
    first = prepared(machine, SCENARIOS["table"].build(), bounded=True)
    machine.send("readings", 0, [(None, b"2", 0), (None, b"3", 0)])
    again = prepared(machine, SCENARIOS["table"].build(), bounded=True, go_on=True)
    assert first.run == again.run
    ends = [[task.marks["readings"].end_offset for task in plan.tasks if task.marks] for plan in (first, again)]
    assert ends == [[1, 0], [1, 0]]


def test_the_marks_of_a_run_stand_beside_the_committed_offsets() -> None:
    machine = Machine(SCENARIOS["table"].build(), {"readings": 2})
    plan = prepared(machine, SCENARIOS["table"].build())
    committed = machine.broker.group("table").committed()
    notes = {place: Note.from_text(offset.metadata) for place, offset in committed.items()}
    assert set(notes) == {TopicPartition("readings", 0), TopicPartition("readings", 1)}
    for note in notes.values():
        assert note.mark is not None
        assert (note.mark.run, note.mark.end_offset, note.partition_count) == (plan.run, None, 2)


def test_runs_are_numbered_and_an_unbounded_one_goes_on_for_ever() -> None:
    machine = Machine(SCENARIOS["table"].build(), {"readings": 1})
    kinds = [False, False, True, True, False, False]
    numbers = [prepared(machine, SCENARIOS["table"].build(), bounded=bounded).run.number for bounded in kinds]
    assert numbers == [1, 1, 2, 2, 3, 3]
