"""Drawn jobs: whatever the DSL lets through, compilation is pure and total, and cuts where it says."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from streamkit import Context, Hopping, Job, Record, Table, Tumbling, agg
from streamkit.errors import TopologyError
from streamkit.graph import Aggregation, KeyBy, LogicalGraph, Window
from streamkit.topology import Topology, compile_graph, describe
from streamkit.topology.changes import changes_between
from streamkit.topology.dot import to_dot
from streamkit.topology.lock import Lock, lock_of


class Row(msgspec.Struct):
    a: int
    b: int
    text: str


STATELESS = (
    lambda stream, _: stream.map(lambda row: row),
    lambda stream, _: stream.flat_map(lambda row: [row, row]),
    lambda stream, _: stream.filter(lambda row: True),
    lambda stream, _: stream.peek(id),
    lambda stream, _: stream.typed(Row),
    lambda stream, _: stream.typed(Row).filter(pl.col("a") > 1),
    lambda stream, _: stream.typed(Row).with_columns(pl.col("a") + 1).typed(Row),
    lambda stream, name: stream.typed(Row).key_by("a", type=int, name=name),
    lambda stream, name: stream.typed(Row).key_by(lambda row: row.b, type=int, name=name),
)
FOLDS = (
    lambda group, name: group.count(name=name),
    lambda group, name: group.agg({"a": agg.count(), "n": agg.count()}, name=name),
    lambda group, name: group.reduce(lambda one, _: one, name=name),
    lambda group, name: group.aggregate(lambda total, _: total, initial=int, merge=max, name=name),
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:  # noqa: C901  # one case a kind of operator
    """Draw a job: some sources, then operators on any stream there is, then a sink on every loose end."""
    job = Job("drawn")
    streams: list[Any] = [
        job.stream(f"source_{number}", key=int, value=Row, timestamp="a") for number in range(draw(st.integers(1, 3)))
    ]
    for number in range(draw(st.integers(0, 12))):
        stream = streams[draw(st.integers(0, len(streams) - 1))]
        match draw(st.sampled_from(["stateless", "stateless", "merge", "branch", "fold", "window"])):
            case "stateless":
                streams.append(draw(st.sampled_from(STATELESS))(stream, f"key_{number}"))
            case "merge":
                others = [one for one in streams if one is not stream]
                if others:
                    streams.append(stream.merge(*draw(st.lists(st.sampled_from(others), min_size=1, unique=True))))
            case "branch":
                streams.extend(stream.branch(lambda row: True))
            case "fold":
                draw(st.sampled_from(FOLDS))(stream.group_by_key(), f"table_{number}").to(f"out_{number}")
            case "window":
                size, grace = timedelta(seconds=number + 1), timedelta(0)
                hopping = Hopping(size, advance=timedelta(seconds=1), grace=grace)
                window = draw(st.sampled_from([Tumbling(size, grace=grace), hopping]))
                group = stream.group_by_key().window(window)
                table: Table[Any, Any] = draw(st.sampled_from(FOLDS))(group, f"table_{number}")
                streams.append(table.to_stream().map(lambda row: row))
                if draw(st.booleans()):
                    streams.append(group.late)
    read = {name for node in job._nodes.values() for name in node.inputs}
    for stream in streams:
        if stream.name not in read:
            stream.to("out")
    return job


def compiled(graph: LogicalGraph) -> Topology | None:
    """Return the topology, None where streams of different keys are grouped together, which a drawn job may do."""
    try:
        return compile_graph(graph)
    except TopologyError as refused:
        assert "groups rows of several streams" in str(refused)
        return None


@given(jobs())
def test_compilation_is_pure(job: Job) -> None:
    graph = job.build()
    before = repr(graph)
    one, other = compiled(graph), compiled(graph)
    assert one == other
    assert repr(graph) == before


@given(jobs())
def test_every_node_is_in_exactly_one_sub_topology(job: Job) -> None:
    topology = compiled(job.build())
    if topology is None:
        return
    placed = Counter(name for sub in topology.sub_topologies for name in sub.nodes)
    assert placed == Counter(node.name for node in topology.graph.nodes)
    assert [sub.index for sub in topology.sub_topologies] == list(range(len(topology.sub_topologies)))
    assert all(sub.source_topics or sub.repartitions_in for sub in topology.sub_topologies), "every task has an input"


@given(jobs())
def test_every_edge_between_sub_topologies_is_a_shuffle(job: Job) -> None:
    topology = compiled(job.build())
    if topology is None:
        return
    where = {name: sub.index for sub in topology.sub_topologies for name in sub.nodes}
    shuffled = {name: one for one in topology.repartitions for name in one.aggregations}
    for node in topology.graph.nodes:
        for name in node.inputs:
            if node.name in shuffled:
                assert isinstance(node, Aggregation)
                shuffle = shuffled[node.name]
                assert where[name] == where[shuffle.name] == shuffle.upstream[0]
                assert shuffle.downstream == where[node.name]
                assert node.name in topology.sub_topologies[where[name]].combines
            else:
                assert where[name] == where[node.name]


def nearest(graph: LogicalGraph, name: str) -> set[str | None]:
    """Return the nearest `KeyBy` on each path up from a node; None for one that ends in a source or in state.

    The definition, walked path by path; the compiler keeps a set a node instead.
    """
    node = graph.node(name)
    if isinstance(node, KeyBy):
        return {name}
    if isinstance(node, Aggregation) or not node.inputs:
        return {None}
    return set().union(*(nearest(graph, one) for one in node.inputs))


@given(jobs())
def test_an_aggregation_is_shuffled_if_and_only_if_its_key_was_changed(job: Job) -> None:
    graph = job.build()
    topology = compiled(graph)
    expected = {node.name: nearest(graph, node.inputs[0]) for node in graph.nodes if isinstance(node, Aggregation)}
    if topology is None:
        assert any(len(keys) > 1 for keys in expected.values())
        return
    shuffled = {name: one.name for one in topology.repartitions for name in one.aggregations}
    assert {name: {shuffled.get(name)} for name in expected} == expected


@given(jobs())
def test_internal_topics_and_stores_are_unique_and_belong_to_one_aggregation(job: Job) -> None:
    topology = compiled(job.build())
    if topology is None:
        return
    stores = [store for sub in topology.sub_topologies for store in sub.stores]
    internal = [store.changelog_topic for store in stores] + [one.topic for one in topology.repartitions]
    assert len(set(internal)) == len(internal)
    assert len({store.index for store in stores}) == len(stores)
    nodes = {node.name: node for node in topology.graph.nodes}
    assert [store.name for store in stores] == [
        name for sub in topology.sub_topologies for name in sub.nodes if isinstance(nodes[name], Aggregation)
    ]
    assert all(store.windowed == isinstance(nodes[nodes[store.name].inputs[0]], Window) for store in stores)


@given(jobs())
def test_a_chain_is_a_path_that_nothing_else_reads(job: Job) -> None:
    topology = compiled(job.build())
    if topology is None:
        return
    for sub in topology.sub_topologies:
        names = [name for chain in sub.chains for name in chain]
        assert len(set(names)) == len(names)
        for chain in sub.chains:
            for one, after in pairwise(chain):
                assert [node.name for node in topology.graph.children(one)] == [after]


@given(jobs())
def test_every_job_can_be_described_in_full(job: Job) -> None:
    topology = compiled(job.build())
    if topology is None:
        return
    description = describe(topology)
    text = description.to_text()
    said = [node["name"] for sub in description.to_json()["sub_topologies"] for node in sub["nodes"]]
    assert sorted(said) == sorted(node.name for node in topology.graph.nodes)
    assert all(name in text for name in said)
    assert max(map(len, text.splitlines())) <= 100


@given(jobs())
def test_a_lock_is_read_back_as_it_was_written_and_differs_in_nothing_from_its_job(job: Job) -> None:
    topology = compiled(job.build())
    if topology is None:
        return
    lock = lock_of(topology)
    read = Lock.from_json(lock.to_json(), "lock")
    assert read == lock
    assert changes_between(read, lock) == ()


@given(jobs(), jobs())
def test_two_locks_that_differ_differ_in_something_that_can_be_said_both_ways(one: Job, other: Job) -> None:
    topologies = [compiled(job.build()) for job in (one, other)]
    if None in topologies:
        return
    was, now = (lock_of(topology) for topology in topologies if topology is not None)
    for before, after in ((was, now), (now, was)):
        assert bool(changes_between(before, after)) == (before != after)


@given(jobs())
def test_every_edge_and_node_of_a_job_is_drawn(job: Job) -> None:
    topology = compiled(job.build())
    if topology is None:
        return
    drawn = to_dot(describe(topology))
    shuffled = {name for one in topology.repartitions for name in one.aggregations}
    for node in topology.graph.nodes:
        assert f'"node {node.name}" [label=' in drawn
        for upstream in node.inputs:
            assert (f'"node {upstream}" -> "node {node.name}";' in drawn) == (node.name not in shuffled)


def both(one: Row, other: Row) -> Row:
    return one


def same(ctx: Context, record: Record[int, Row]) -> list[Record[int, Row]]:
    return [record]


READERS = {
    "mapped": lambda job, stream, other, name: stream.map(lambda row: row).to(name),
    "counted": lambda job, stream, other, name: stream.group_by_key().count(name=name),
    "in order": lambda job, stream, other, name: stream.group_by_key().reduce(both, commutative=False, name=name),
    "without a store": lambda job, stream, other, name: stream.process(same, name=name).to(f"{name}_out"),
    "with a store": lambda job, stream, other, name: stream.process(
        same, stores=[job.store(f"{name}_store", key=int, value=int)], name=name
    ),
    "joined": lambda job, stream, other, name: stream.join(
        other.group_by_key().reduce(both, name=f"{name}_table"), both, name=name
    ).to(f"{name}_out"),
}


@given(
    st.lists(st.tuples(st.sampled_from(sorted(READERS)), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6)
)
def test_whoever_reads_a_shuffle_has_a_store_and_so_room_for_the_positions_of_all_channels(
    readers: list[tuple[str, int, int]],
) -> None:
    job = Job("drawn")
    streams: list[Any] = [job.stream(f"source_{number}", key=int, value=Row) for number in range(2)]
    streams += [stream.key_by("a", type=int, name=f"key_{number}") for number, stream in enumerate(streams)]
    for number, stream in enumerate(streams):
        stream.to(f"out_{number}")
    for number, (reader, one, other) in enumerate(readers):
        READERS[reader](job, streams[one], streams[other], f"node_{number}")
    try:
        topology = compile_graph(job.build())
    except TopologyError as refused:
        assert "leads back" in str(refused)
        return
    for sub in topology.sub_topologies:
        assert sub.stores or not sub.repartitions_in
