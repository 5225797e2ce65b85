"""Where a graph is cut, how the pieces are numbered, and what cannot be cut."""

import operator
from collections.abc import Callable
from datetime import timedelta

import pytest

from streamkit import Job, Stream, Tumbling
from streamkit.errors import TopologyError
from streamkit.topology import Topology, changelog_topic, compile_graph, repartition_topic
from streamkit.topology.names import store_index

DAY = Tumbling(timedelta(days=1), grace=timedelta(0))


def upper(text: str) -> str:
    return text.upper()


def lines(job: Job, topic: str = "lines") -> Stream[None, str]:
    return job.stream(topic, value=str)


def compiled(define: Callable[[Job], object]) -> Topology:
    job = Job("job")
    define(job)
    return compile_graph(job.build())


def pieces(define: Callable[[Job], object]) -> list[tuple[str, ...]]:
    return [sub.nodes for sub in compiled(define).sub_topologies]


def test_a_job_without_state_is_one_piece() -> None:
    assert pieces(lambda job: lines(job).map(str.upper).to("loud")) == [("lines", "map_1", "to_loud_1")]


def test_streams_that_never_meet_are_pieces_of_their_own() -> None:
    def define(job: Job) -> None:
        lines(job, "a").to("c")
        lines(job, "b").to("d")

    assert pieces(define) == [("a", "to_c_1"), ("b", "to_d_1")]


def test_merged_sources_are_read_by_one_kind_of_task() -> None:
    def define(job: Job) -> None:
        lines(job, "a").merge(lines(job, "b"), lines(job, "c")).group_by(str.lower, name="by_text").count(name="counts")

    topology = compiled(define)
    assert topology.sub_topologies[0].source_topics == ("a", "b", "c")
    assert topology.sub_topologies[0].combines == ("counts",)
    assert topology.sub_topologies[1].nodes == ("counts",)


def test_a_group_by_key_of_an_unchanged_key_is_not_cut() -> None:
    def define(job: Job) -> None:
        job.stream("lines", key=str, value=str).filter(str.isalpha).group_by_key().count(name="counts")

    assert pieces(define) == [("lines", "filter_1", "counts")]
    assert compiled(define).repartitions == ()


def test_a_changed_key_is_cut_where_state_needs_it() -> None:
    """Stateless nodes after `key_by` run before the shuffle, so that a filter saves rows of it."""

    def define(job: Job) -> None:
        lines(job).key_by(str.lower, name="by_text").filter(str.isalpha).group_by_key().count(name="counts")

    topology = compiled(define)
    assert [sub.nodes for sub in topology.sub_topologies] == [("lines", "by_text", "filter_1"), ("counts",)]
    assert topology.repartition("by_text").topic == "job-by_text-repartition"


def test_a_key_that_is_changed_again_is_shuffled_once() -> None:
    def define(job: Job) -> None:
        keyed = lines(job).key_by(str.lower, name="first").key_by(str.upper, name="second")
        keyed.group_by_key().count(name="counts")

    assert [one.name for one in compiled(define).repartitions] == ["second"]


def test_two_aggregations_of_one_group_share_its_shuffle() -> None:
    def define(job: Job) -> None:
        grouped = lines(job).group_by(str.lower, name="by_text")
        grouped.count(name="counts")
        grouped.reduce(max, name="greatest")

    topology = compiled(define)
    assert [sub.nodes for sub in topology.sub_topologies] == [("lines", "by_text"), ("counts", "greatest")]
    assert topology.repartition("by_text").aggregations == ("counts", "greatest")
    assert topology.sub_topologies[0].combines == ("counts", "greatest")
    assert [store.name for store in topology.sub_topologies[1].stores] == ["counts", "greatest"]


def test_a_diamond_below_one_key_is_shuffled_once() -> None:
    def define(job: Job) -> None:
        left, right = lines(job).key_by(str.lower, name="by_text").branch(str.isalpha)
        left.map(str.upper).merge(right).group_by_key().count(name="counts")

    topology = compiled(define)
    assert [one.name for one in topology.repartitions] == ["by_text"]
    assert topology.sub_topologies[1].nodes == ("counts",)


def test_many_diamonds_in_a_row_compile_in_no_time() -> None:
    """Each diamond doubles the paths: forty of them have more than can ever be walked."""

    def define(job: Job) -> None:
        stream: Stream[str, str] = lines(job).key_by(str.lower, name="by_text")
        for _ in range(40):
            left, right = stream.branch(str.isalpha)
            stream = left.merge(right)
        stream.group_by_key().count(name="counts")

    assert len(compiled(define).sub_topologies) == 2


def test_results_of_windows_are_windowed_again_without_a_shuffle_under_the_same_key() -> None:
    def define(job: Job) -> None:
        days = lines(job).group_by(str.lower, name="by_text").window(DAY).count(name="days")
        weeks = days.to_stream().group_by_key().window(Tumbling(timedelta(days=7), grace=timedelta(0)))
        weeks.count(name="weeks").to("weeks_out")

    first, second = compiled(define).sub_topologies
    assert first.nodes == ("lines", "by_text", "window_1")
    assert second.nodes == ("days", "days_stream_1", "window_2", "weeks", "to_weeks_out_1")
    assert [store.windowed for store in second.stores] == [True, True]


def test_results_of_windows_are_shuffled_again_under_another_key() -> None:
    def define(job: Job) -> None:
        days = lines(job).group_by(str.lower, name="by_text").window(DAY).count(name="days")
        days.to_stream().group_by(str, name="by_count").count(name="how_often")

    assert [(one.upstream, one.downstream) for one in compiled(define).repartitions] == [((0,), 1), ((1,), 2)]


def test_late_rows_stay_where_they_are_judged() -> None:
    def define(job: Job) -> None:
        group = lines(job).group_by(str.lower, name="by_text").window(DAY)
        group.count(name="counts")
        group.late.to("too_late")

    assert pieces(define)[0] == ("lines", "by_text", "window_1", "window_1_late", "to_too_late_1")


def test_a_sink_topic_that_is_written_twice_is_named_once() -> None:
    def define(job: Job) -> None:
        left, right = lines(job).branch(str.isalpha)
        left.to("out")
        right.to("out")

    assert compiled(define).sub_topologies[0].sink_topics == ("out",)


def test_runs_of_stateless_nodes_are_fused_up_to_a_fork() -> None:
    def define(job: Job) -> None:
        trunk = lines(job).map(str.lower, name="a").filter(str.isalpha, name="b")
        trunk.map(str.upper, name="c").map(str.strip, name="d").to("one")
        trunk.map(str.title, name="e").to("other")

    assert compiled(define).sub_topologies[0].chains == (("a", "b"), ("c", "d"), ("e",))


def word_count(job: Job, *, filtered: bool = False, appended: bool = False) -> None:
    words = lines(job).flat_map(str.split)
    if filtered:
        words = words.filter(str.isalpha)
    counts = words.group_by(str.lower, name="by_word").count(name="counts")
    counts.to("word_counts")
    if appended:
        lines(job, "others").group_by(str.lower, name="by_other").count(name="other_counts")


@pytest.mark.parametrize("changes", [{"filtered": True}, {"appended": True}, {"filtered": True, "appended": True}])
def test_an_unrelated_node_renames_and_renumbers_nothing_durable(changes: dict[str, bool]) -> None:
    before, after = compiled(word_count), compiled(lambda job: word_count(job, **changes))
    for old in before.sub_topologies:
        new = after.sub_topologies[old.index]
        assert new.stores == old.stores
        assert (new.source_topics, new.sink_topics) == (old.source_topics, old.sink_topics)
        assert (new.repartitions_in, new.repartitions_out) == (old.repartitions_in, old.repartitions_out)
    assert after.repartitions[0] == before.repartitions[0]


def test_a_store_defined_first_moves_no_other_store() -> None:
    def define(job: Job) -> None:
        lines(job, "others").group_by(str.lower, name="by_other").count(name="other_counts")
        word_count(job)

    stores = {store.name: store for sub in compiled(define).sub_topologies for store in sub.stores}
    assert stores["counts"] == compiled(word_count).sub_topologies[1].stores[0]


def test_names_of_internal_topics_follow_kafka_streams() -> None:
    assert changelog_topic("word_count", "counts") == "word_count-counts-changelog"
    assert repartition_topic("word_count", "by_word") == "word_count-by_word-repartition"


def clashing() -> tuple[str, str]:
    """Return two names with one store index, found by looking."""
    seen: dict[int, str] = {}
    number = 0
    while (other := seen.setdefault(store_index(f"store_{number}"), f"store_{number}")) == f"store_{number}":
        number += 1
    return other, f"store_{number}"


def keyed_facts(job: Job, topic: str) -> Stream[str, int]:
    return lines(job, topic).group_by(str.lower, name=f"by_{topic}").window(DAY).count(name=f"days_{topic}").to_stream()


def clash(job: Job) -> None:
    grouped = lines(job).group_by(str.lower, name="by_text")
    for name in clashing():
        grouped.count(name=name)


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (lambda job: None, "has no nodes"),
        (lambda job: lines(job), "'lines' of job 'job' leads nowhere"),
        (lambda job: lines(job).map(str.upper), "'map_1' of job 'job' leads nowhere"),
        (lambda job: lines(job).group_by(str.lower, name="by_text"), "'by_text' of job 'job' leads nowhere"),
        (lambda job: lines(job).group_by_key().window(DAY), "'window_1' of job 'job' leads nowhere"),
        (
            lambda job: (
                (lines(job, "a").key_by(str.lower, name="lower").merge(lines(job, "b").key_by(str.upper, name="upper")))
                .group_by_key()
                .count(name="counts")
            ),
            "'counts' groups rows of several streams",
        ),
        (
            lambda job: (
                job.stream("a", key=str, value=str)
                .merge(lines(job, "b").key_by(upper))
                .group_by_key()
                .count(name="counts")
            ),
            "they are of the source, upper",
        ),
        (
            lambda job: (
                keyed_facts(job, "a")
                .merge(keyed_facts(job, "b"))
                .group_by_key()
                .window(DAY)
                .aggregate(lambda total, _: total, initial=int, name="last")
            ),
            "windows of days_a and days_b close between any two rows",
        ),
        (
            lambda job: (
                lines(job)
                .map(lambda text: object())
                .group_by(str, name="by_text")
                .aggregate(lambda total, _: total, initial=int, name="last")
            ),
            "annotate what 'map_1' returns",
        ),
        (
            lambda job: (
                lines(job).group_by(str.lower, name="by_text").count(name="counts")
                and lines(job, "job-counts-changelog").to("out")
            ),
            "an internal topic of job 'job'",
        ),
        (
            lambda job: (
                lines(job).group_by(str.lower, name="by_text").count(name="counts").to("job-by_text-repartition")
            ),
            "an internal topic of job 'job'",
        ),
        (clash, "would share their keys"),
    ],
)
def test_a_graph_that_cannot_be_cut_is_refused_with_the_names_at_fault(
    define: Callable[[Job], object], message: str
) -> None:
    with pytest.raises(TopologyError, match=message):
        compiled(define)


def test_an_ordered_fold_of_one_partition_is_taken() -> None:
    def define(job: Job) -> None:
        job.stream("a", key=str, value=str).group_by_key().aggregate(lambda total, _: total, initial=int, name="last")
        job.stream("b", key=str, value=str).group_by_key().reduce(lambda _, text: text, commutative=False, name="kept")
        facts = keyed_facts(job, "c").group_by_key()
        facts.aggregate(lambda total, _: total, initial=int, name="of_facts")

    assert len(compiled(define).sub_topologies) == 4


def test_a_fold_with_a_merge_combines_before_the_shuffle() -> None:
    def define(job: Job) -> None:
        grouped = lines(job).group_by(str.lower, name="by_text")
        grouped.aggregate(lambda total, _: total + 1, initial=int, merge=operator.add, name="counts")

    assert compiled(define).sub_topologies[0].combines == ("counts",)


def test_a_fold_in_order_behind_a_shuffle_takes_every_row_and_runs_downstream_with_its_window() -> None:
    def define(job: Job) -> None:
        windows = lines(job).group_by(str.lower, name="by_text").window(DAY)
        windows.aggregate(lambda total, _: total, initial=int, name="last")
        windows.late.to("late")

    topology = compiled(define)
    (shuffle,) = topology.repartitions
    assert (shuffle.whole, shuffle.ordered, shuffle.aggregations) == (True, True, ("last",))
    upstream, downstream = topology.sub_topologies
    assert upstream.nodes == ("lines", "by_text")
    assert set(downstream.nodes) == {"window_1", "last", "window_1_late", "to_late_1"}
    assert (upstream.ordered, downstream.ordered, upstream.combines) == (True, True, ())


def test_partial_results_of_others_behind_a_shuffle_of_rows_are_not_made_before_it() -> None:
    def define(job: Job) -> None:
        grouped = lines(job).group_by(str.lower, name="by_text")
        grouped.count(name="counts")
        grouped.aggregate(lambda total, _: total, initial=int, name="last")

    topology = compiled(define)
    assert topology.sub_topologies[0].combines == ()
    assert topology.repartitions[0].aggregations == ("counts", "last")


def test_facts_of_windows_come_in_order_by_themselves_and_their_tasks_take_no_turns() -> None:
    def define(job: Job) -> None:
        facts = keyed_facts(job, "a").key_by(str, name="by_count")
        facts.group_by_key().reduce(lambda _, count: count, commutative=False, name="newest")

    topology = compiled(define)
    by_count = topology.repartition("by_count")
    assert (by_count.whole, by_count.ordered, by_count.facts) == (True, True, True)
    assert [sub.ordered for sub in topology.sub_topologies] == [False, False, True]
