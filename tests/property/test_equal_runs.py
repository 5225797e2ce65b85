"""Stream = batch = files = replay: one job and the same records in four ways give one answer, and one state.

Jobs are drawn from all operators. Of a topic of facts every record counts, and the order of those of a key where it has
one; of updates the last value of each key and window. Each key is in its partition. Of a store all of its contents
count, and the digest that is committed with them. Each way has its own schedule, commits, crashes and number of shards.

What differs by right: the number of the run in which a table without windows changed last, which a run without an end
has spent; and offsets in a store, which in a file are bytes.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from drawn_jobs import AGGREGATES, OPERATORS, DrawnJob, SourceKind, Step, drawn_job, source_kinds, steps
from drawn_rows import listed
from four_ways import (
    DrawnRecords,
    FilesMachine,
    Outcome,
    ReplayedMachine,
    bounded,
    differences,
    fill,
    live,
    outcome,
    record_lists,
    replayed,
)
from hypothesis import given
from hypothesis import strategies as st
from machine import after

from streamkit import Job
from streamkit.graph import nodes
from streamkit.graph.nodes import AggregateKind
from streamkit.records import TopicPartition
from streamkit.topology import compile_graph

NOT_DRAWN: set[str] = set()
"""Kinds of nodes that no drawn job has."""

crash_points = st.lists(st.integers(1, 60), max_size=3)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("equal")


def jobs_of(kinds: Sequence[SourceKind], steps: Sequence[Step], shards: Sequence[int]) -> list[DrawnJob]:
    """Return the job once for each way, of other numbers of shards if the results do not depend on them."""
    jobs = [drawn_job(kinds, steps, count) for count in shards]
    return [drawn_job(kinds, steps, shards[0]) for _ in shards] if jobs[0].one_shard_count else jobs


def without_offsets(made: Outcome, expected: Outcome) -> Outcome:
    return replace(made, contents=expected.contents, digests=expected.digests)


def without_runs(made: Outcome, expected: Outcome) -> Outcome:
    """Contents bear no number of a run in an `Outcome`; digests do. That they fit the contents is asserted apart."""
    return replace(made, digests=expected.digests)


@pytest.mark.slow
@given(
    kinds=source_kinds,
    steps=steps,
    drawn=record_lists,
    cut=st.integers(0, 8),
    shards=st.tuples(*[st.integers(1, 3)] * 4),
    crashes=st.tuples(crash_points, crash_points),
    replay_bounded=st.booleans(),
    keep_state=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_drawn_job_gives_the_same_live_bounded_from_files_and_replayed(
    kinds: Sequence[SourceKind],
    steps: Sequence[Step],
    drawn: Any,
    cut: int,
    shards: tuple[int, ...],
    crashes: tuple[list[int], list[int]],
    replay_bounded: bool,
    keep_state: bool,
    seed: int,
    directory: Path,
) -> None:
    records, rng = DrawnRecords.of(kinds, drawn, cut), random.Random(seed)
    jobs = jobs_of(kinds, steps, shards)
    expected = outcome(bounded(jobs[0], records, rng), jobs[0])

    files = FilesMachine(jobs[1], kinds, records, directory)
    files.crash_at = after(crashes[0])
    files.run_bounded(rng)
    made = outcome(files, jobs[1])
    assert not differences(without_offsets(made, expected) if jobs[1].keeps_offsets else made, expected), "files"

    again = ReplayedMachine(jobs[2].job, records.partition_counts)
    again.crash_at, again.keep_state = after(crashes[1]), keep_state
    fill(again, records, rng)
    made = outcome(replayed(again, rng, is_bounded=replay_bounded), jobs[2])
    assert not differences(made if replay_bounded else without_runs(made, expected), expected), "replayed"

    made = outcome(live(jobs[3], records, rng), jobs[3])
    assert not differences(without_runs(made, expected), expected), "live"


def test_every_built_in_aggregate_is_drawn() -> None:
    assert {one.kind for one in AGGREGATES.values()} | {"count"} == set(get_args(AggregateKind))


@pytest.mark.slow
def test_every_kind_of_node_is_drawn() -> None:
    """A new one is added to `OPERATORS` of `drawn_jobs`, so that the property above holds for it too."""
    kinds = [kind for kind in vars(nodes).values() if isinstance(kind, type) and issubclass(kind, nodes.Node)]
    every = {kind.__name__ for kind in kinds} - {"Node"}
    rng, seen = random.Random(0), set[str]()
    for _ in range(200):
        some = [Step(rng.choice(list(OPERATORS)), rng.randrange(6), rng.randrange(2**16)) for _ in range(9)]
        job = drawn_job([SourceKind(key=str), SourceKind(key=str, table=rng.random() < 0.3)], some, 2).job
        seen |= {type(node).__name__ for node in compile_graph(job.build()).graph.nodes}
    assert every - {"Node"} - NOT_DRAWN == seen


def test_a_replay_of_a_broken_bounded_run_hands_on_what_the_run_had_though_rows_after_it_are_not_there() -> None:
    """The end of the run lies beyond what was committed: were it waited for, nothing would be let go."""
    job = Job("job")
    one, other = [job.stream(topic, key=str, timestamp="ts") for topic in ("one", "other")]
    one.merge(other).group_by_key().aggregate(listed, initial=list[int], name="all").to("all")
    machine = ReplayedMachine(job, {"one": 1, "other": 1})
    for topic, stamps in (("one", [1, 3, 5]), ("other", [2, 4])):
        machine.send(topic, 0, [(b"k", b'{"n":%d,"ts":%d}' % (ts, ts), 0) for ts in stamps])
    machine.open(bounded=True)
    (runner,) = machine.runners
    for topic, bytes_max in (("one", 100_000), ("other", 1)):
        for part in machine.fetcher.fetch({TopicPartition(topic, 0): 0}, wait_ms=0, bytes_max=bytes_max):
            runner.feed(part)
    runner.finish(runner.seal())
    machine.close()
    before = machine.state(), machine.committed()
    assert sorted(before[1].values()) == [1, 1], "3 and 5 wait, and 4 was not read"
    assert machine.replay(random.Random(0)) == ""
    assert (machine.state(), machine.committed()) == before
