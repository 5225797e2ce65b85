"""Where `process` runs: stores join tasks, keys stay or are changed, and rows have one order or it is said."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from streamkit import Context, Job, Record, Stream, Tumbling
from streamkit.errors import TopologyError
from streamkit.topology import Topology, compile_graph, describe
from streamkit.topology.changes import changes_between
from streamkit.topology.dot import to_dot
from streamkit.topology.lock import Lock, LockedStore, lock_of
from streamkit.topology.processing import inputs_row_by_row


def same(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
    yield number


def labelled(ctx: Context, number: Record[str, int]) -> list[Record[int, str]] | None:
    return [Record(key=number.value, value=number.key)]


def numbers(job: Job, topic: str = "numbers") -> Stream[str, int]:
    return job.stream(topic, key=str, value=int)


def compiled(build: Callable[[Job], object]) -> Topology:
    job = Job("job")
    build(job)
    return compile_graph(job.build())


def test_the_annotation_says_what_is_yielded_and_the_key_stays_unless_it_may_change() -> None:
    def build(job: Job) -> None:
        rows = numbers(job)
        rows.process(same, name="kept").to("out")
        rows.process(labelled, rekeys=True, name="changed").to("out")
        rows.process(lambda ctx, row: None, name="silent").to("out")
        rows.process(lambda ctx, row: None, rekeys=True, name="unknown").to("out")

    plans = compiled(build).plans
    types = {name: (plan.key_type, plan.value_type) for name, plan in plans.items()}
    assert types["kept"] == (str, int)
    assert types["changed"] == (int, str)
    assert types["silent"] == (str, None)
    assert types["unknown"] == (Any, None)


def test_nodes_that_share_a_store_are_in_one_sub_topology_and_it_has_one_changelog() -> None:
    def build(job: Job) -> None:
        shared, own = job.store("shared", key=str, value=int), job.store("own", key=str, value=int)
        numbers(job, "one").process(same, stores=[shared], order="arrival", name="first").to("out")
        numbers(job, "two").process(same, stores=[shared, own], order="arrival", name="second").to("out")
        numbers(job, "three").process(same, name="third").to("out")

    topology = compiled(build)
    assert [sub.source_topics for sub in topology.sub_topologies] == [("one", "two"), ("three",)]
    assert [store.name for store in topology.sub_topologies[0].stores] == ["shared", "own"]
    assert topology.sub_topologies[0].stores[0].changelog_topic == "job-shared-changelog"


def test_what_keeps_state_may_lead_nowhere_and_what_keeps_none_may_not() -> None:
    def stored(job: Job) -> None:
        numbers(job).process(same, stores=[job.store("kept", key=str, value=int)])

    assert len(compiled(stored).sub_topologies) == 1
    with pytest.raises(TopologyError, match="'same' of job 'job' leads nowhere"):
        compiled(lambda job: numbers(job).process(same))


def test_state_by_a_key_that_may_have_changed_needs_a_shuffle() -> None:
    def changed(job: Job) -> Stream[int, str]:
        return numbers(job).process(labelled, rekeys=True)

    def counted(job: Job) -> None:
        changed(job).filter(str.isalpha).group_by_key().count(name="counts")

    def stored(job: Job) -> None:
        store = job.store("kept", key=str, value=int)
        changed(job).process(lambda ctx, row: None, stores=[store], name="later")

    for build, name in ((counted, "counts"), (stored, "later")):
        with pytest.raises(
            TopologyError, match=f"'{name}' keeps state by key, but 'labelled' may have changed"
        ) as caught:
            compiled(build)
        assert "key_by() or group_by()" in caught.value.hint

    def shuffled(job: Job) -> None:
        changed(job).group_by(str.lower, name="by_text").count(name="counts")
        numbers(job, "more").process(labelled, rekeys=True, name="more_labels").to("out")

    assert compiled(shuffled).repartitions[0].aggregations == ("counts",)


def test_rows_of_several_inputs_come_in_the_order_of_the_log_unless_arrival_will_do() -> None:
    def merged(job: Job, **order: Any) -> None:
        store = job.store("kept", key=str, value=int)
        numbers(job, "one").merge(numbers(job, "two")).process(same, stores=[store], **order).to("out")

    def shared(job: Job, **order: Any) -> None:
        store = job.store("kept", key=str, value=int)
        numbers(job, "one").process(same, stores=[store], order="arrival", name="first")
        numbers(job, "two").process(same, stores=[store], **order)

    for build in (merged, shared):
        (sub,) = compiled(build).sub_topologies
        (hurried,) = compiled(lambda job, build=build: build(job, order="arrival")).sub_topologies
        assert (sub.ordered, hurried.ordered) == (True, False)


def test_what_keeps_nothing_takes_rows_as_they_come() -> None:
    topology = compiled(lambda job: numbers(job, "one").merge(numbers(job, "two")).process(same).to("out"))
    assert not topology.sub_topologies[0].ordered


def test_a_store_that_results_of_windows_and_other_rows_feed_is_refused() -> None:
    def mixed(job: Job) -> None:
        store, rows = job.store("kept", key=str, value=int), numbers(job)
        windows = rows.group_by_key().window(Tumbling(timedelta(seconds=1), grace=timedelta(0)))
        windows.count(name="counts").to_stream().process(same, stores=[store], name="of_windows")
        rows.process(same, stores=[store], name="of_rows")

    with pytest.raises(TopologyError, match="'kept' depends on the order of its rows, and reads results of windows"):
        compiled(mixed)


def test_state_behind_a_changed_key_is_behind_a_shuffle_of_rows() -> None:
    def keyed(job: Job) -> None:
        rows = numbers(job).key_by(str, name="by_text")
        rows.process(same, stores=[job.store("kept", key=str, value=int)]).to("out")

    topology = compiled(keyed)
    (shuffle,) = topology.repartitions
    assert (shuffle.whole, shuffle.ordered, shuffle.aggregations) == (True, True, ("same",))
    assert lock_of(topology).stores["kept"].shuffle == "by_text"
    assert not compiled(lambda job: numbers(job).key_by(str, name="by_text").process(same).to("out")).repartitions


def test_a_store_on_both_sides_of_a_shuffle_is_refused() -> None:
    def looped(job: Job) -> None:
        store = job.store("kept", key=str, value=int)
        rows = numbers(job).process(same, stores=[store], order="arrival", name="before")
        windows = rows.group_by(str, name="by_text").window(Tumbling(timedelta(seconds=1), grace=timedelta(0)))
        windows.count(name="counts").to_stream().process(same, stores=[store], order="arrival", name="behind")

    with pytest.raises(TopologyError, match=r"'by_text' leads back into the tasks that write it"):
        compiled(looped)


def test_rows_come_one_at_a_time_where_nodes_would_see_how_a_batch_is_cut() -> None:
    def cut(build: Callable[[Job], object]) -> set[str]:
        job = Job("job")
        build(job)
        return set(inputs_row_by_row(job.build(), ()))

    def alone(job: Job) -> None:
        rows = numbers(job)
        rows.process(same, stores=[job.store("one", key=str, value=int)], name="first").to("out")
        rows.process(same, stores=[job.store("two", key=str, value=int)], name="second").to("out")

    def shared(job: Job) -> None:
        store, rows = job.store("one", key=str, value=int), numbers(job)
        rows.process(same, stores=[store], name="first").process(same, stores=[store], name="second").to("out")
        numbers(job, "other").process(same, stores=[job.store("two", key=str, value=int)]).to("out")

    def apart(job: Job) -> None:
        store = job.store("one", key=str, value=int)
        for topic in ("one_topic", "other_topic"):
            numbers(job, topic).process(same, stores=[store], order="arrival", name=f"of_{topic}").to("out")

    def two_ways(job: Job) -> None:
        rows = numbers(job)
        yes, no = rows.branch(bool)
        yes.merge(no).process(same).to("out")

    def results(job: Job) -> None:
        store = job.store("one", key=str, value=int)
        windows = numbers(job).group_by_key().window(Tumbling(timedelta(seconds=1), grace=timedelta(0)))
        facts = windows.count(name="counts").to_stream()
        facts.process(same, stores=[store], name="first")
        facts.process(same, stores=[store], name="second")

    assert cut(alone) == set()
    assert cut(shared) == {"numbers"}
    assert cut(apart) == set()
    assert cut(two_ways) == {"numbers"}
    assert cut(results) == {"counts_stream_1"}


def punctual(job: Job) -> None:
    """Add a node that says all there is to say."""
    store = job.store("kept", key=str, value=list[int])

    @numbers(job).process(stores=[store], rekeys=True, order="arrival")
    def told(ctx: Context, number: Record[str, int]) -> Iterator[Record[int, str]]:
        """Tell."""
        yield Record(key=1, value="")

    told.punctuate(lambda ctx, at_ms: None, every=timedelta(minutes=90))
    told.to("out")


def test_a_description_says_stores_schedule_order_and_the_new_key() -> None:
    described = describe(compiled(punctual))
    assert described.nodes["told"].kind == "process"
    assert described.nodes["told"].spelling == "python"
    assert described.nodes["told"].details == {
        "rekeys": "int",
        "order": "arrival",
        "punctuate": ["punctuation_1 every 90 min of event time"],
        "stores": ["kept"],
        "changelogs": ["job-kept-changelog"],
    }
    assert '"node told" -> "store kept" [dir=both];' in to_dot(described)


def test_a_lock_has_the_stores_of_process_once_however_many_share_them() -> None:
    def shared(job: Job) -> None:
        store = job.store("kept", key=str, value=list[int])
        numbers(job, "one").process(same, stores=[store], order="arrival", name="first").to("out")
        numbers(job, "two").process(same, stores=[store], order="arrival", name="second").to("out")

    lock = lock_of(compiled(shared))
    assert lock.stores == {
        "kept": LockedStore(
            kind="process", key="str", value="list[int]", window=None, emit="no", shuffle=None, sources=("one", "two")
        )
    }
    assert lock.tasks[0].stores == ("kept",)
    assert Lock.from_json(lock.to_json(), "file") == lock


def test_a_store_that_is_renamed_orphans_state_one_of_another_type_needs_a_replay_and_a_schedule_is_safe() -> None:
    def locked(name: str = "kept", value: Any = int, hours: int = 1) -> Lock:
        def build(job: Job) -> None:
            rows = numbers(job).process(same, stores=[job.store(name, key=str, value=value)])
            rows.punctuate(lambda ctx, at_ms: None, every=timedelta(hours=hours))

        return lock_of(compiled(build))

    def kinds(job: Lock) -> list[str]:
        return [change.kind for change in changes_between(locked(), job)]

    assert kinds(locked()) == []
    assert kinds(locked(name="renamed"))[0] == "orphans state"
    assert kinds(locked(value=str)) == ["needs replay"]
    assert kinds(locked(hours=2)) == ["safe"]
