"""Before any task opens: topics and counts that do not fit are errors that name the fix."""

import contextlib
import random
from collections.abc import Callable, Iterator

import pytest
from machine import Machine
from scenarios import SCENARIOS

from streamkit import Job
from streamkit.errors import ProducerFencedError, RunReplacedError, StreamkitError, TopologyError, UnknownTopicError
from streamkit.records import TopicPartition
from streamkit.runtime import SETUP_STEPS, RunOptions
from streamkit.runtime.opening import open_task
from streamkit.runtime.position import Note
from streamkit.runtime.setup import JobPlan, prepare
from streamkit.runtime.task_plan import unchecked
from streamkit.topology import compile_graph


def prepared(
    machine: Machine,
    job: Job,
    *,
    bounded: bool = False,
    go_on: bool = False,
    observe: Callable[[str], None] = lambda step: None,
) -> JobPlan:
    options = RunOptions(bounded=bounded, go_on=go_on)
    return prepare(compile_graph(job.build()), machine.broker, options, unchecked, observe)


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


def test_a_sink_that_is_made_keeps_its_records_and_one_that_is_there_keeps_its_config() -> None:
    """Results bear event time, so the usual retention would delete those of old records as they come."""
    job = Job("two_sinks")
    rows = job.stream("rows", value=str)
    rows.to("made")
    rows.to("there")
    machine = Machine(job, {"rows": 2})
    machine.broker.admin.create_topic("there", 3, {"retention.ms": "1000"})
    prepared(machine, job)
    topics = machine.broker.admin.describe_topics()
    assert (topics["made"].partition_count, topics["made"].config) == (2, {"retention.ms": "-1"})
    assert (topics["there"].partition_count, topics["there"].config) == (3, {"retention.ms": "1000"})


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


def test_workers_that_fence_each_other_while_they_fix_a_run_pause_apart() -> None:
    """Without a pause, or with equal ones, each fences the other until both give up."""
    pauses_ms = []
    for worker_id in ("one", "two"):
        machine = Machine(SCENARIOS["table"].build(), {"readings": 1})
        rivals = iter(range(4))

        def rival(step: str, machine: Machine = machine, rivals: Iterator[int] = rivals) -> None:
            if step == "begin_marks" and next(rivals, None) is not None:
                machine.broker.producer("table-setup").close()

        options = RunOptions(worker_id=worker_id)
        plan = prepare(machine.topology, machine.broker, options, unchecked, rival, machine.clock)
        assert plan.run.number == 1
        pauses_ms.append(machine.clock.monotonic_ms())
    assert pauses_ms[0] != pauses_ms[1]
    assert 0 < min(pauses_ms) < max(pauses_ms) < 4 * 800


STEPS = [step.__name__ for step in SETUP_STEPS]


def once(step: str, do: Callable[[], object]) -> Callable[[str], None]:
    """Do something before a step, the first time that it comes."""
    left = [do]

    def observe(name: str) -> None:
        if name == step and left:
            left.pop()()

    return observe


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("phase", ["first", "continued"])
def test_workers_that_start_at_once_make_one_run(step: str, phase: str) -> None:
    """Whatever the other does in between: the ends that one of them fixed are those of both."""
    job, go_on = SCENARIOS["table"].build, phase == "continued"
    machine = Machine(job(), {"readings": 2})
    if go_on:
        machine.run_bounded(random.Random(1))
    plans = []

    def other() -> None:
        plans.append(prepared(machine, job(), bounded=True, go_on=go_on))
        machine.send("readings", 0, [(None, b"{}", 0)])

    plans.append(prepared(machine, job(), bounded=True, go_on=go_on, observe=once(step, other)))
    assert len(plans) == 2
    marks = [[task.marks for task in plan.tasks] for plan in plans]
    assert marks[0] == marks[1]
    assert plans[0].run == plans[1].run
    assert plans[0].run.number == 1 + go_on


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_opens_a_task_while_the_next_run_is_fixed_moves_no_offsets_under_it(step: str) -> None:
    """It is fenced, or has made the other read its offsets again: no record is read twice, none is left out."""
    job = Job("taken")
    job.stream("rows", key=str).to("out")
    machine = Machine(job, {"rows": 1})
    machine.send("rows", 0, [(b"a", b"1", 0)])
    machine.open(bounded=False)
    (older,) = machine.runners
    older.close()

    def open_and_commit() -> None:
        machine.open(bounded=False)
        (runner,) = machine.runners
        for part in machine.fetcher.fetch(runner.task.positions(), wait_ms=0, bytes_max=1000):
            runner.feed(part)
        sealed.append((runner, runner.seal()))

    sealed: list[tuple[object, object]] = []

    def finish() -> None:
        for runner, what in sealed:
            with contextlib.suppress(StreamkitError):
                runner.finish(what)  # type: ignore[attr-defined]  # a runner
        sealed.clear()

    opening = once(step, open_and_commit)

    def observe(name: str) -> None:
        opening(name)
        if name == "commit_marks":
            finish()

    prepared(machine, job, bounded=True, observe=observe)
    finish()
    machine.close()
    machine.run_bounded(random.Random(2))
    assert machine.read("out") == [(b"a", b"1", 0)]


def test_a_worker_whose_run_was_replaced_says_so_when_it_opens_a_task() -> None:
    job = SCENARIOS["table"].build
    machine = Machine(job(), {"readings": 1})
    older = prepared(machine, job())
    opened = open_task(older.tasks[0], machine.broker, machine.stores, machine.clock, lambda step: None)
    prepared(machine, job(), bounded=True)
    with pytest.raises(ProducerFencedError):
        opened.producer.begin()
    for plan in older.tasks:
        with pytest.raises(RunReplacedError, match="run 1 of job table was replaced by run 2"):
            open_task(plan, machine.broker, machine.stores, machine.clock, lambda step: None)
