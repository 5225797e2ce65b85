"""Drawn clusters: what a worker that comes or goes moves, and what it does not."""

import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit.broker.assignment import assign_tasks, distinct_members, moved_tasks, quotas_of
from streamkit.broker.protocols import Member

Placed = dict[str, tuple[str, ...]]

MANY = settings(max_examples=4 * settings().max_examples)
"""Thousands of clusters in CI; one costs a millisecond or two."""

task_sets = st.builds(
    lambda subs: [f"{sub}_{partition}" for sub, count in enumerate(subs) for partition in range(count)],
    st.lists(st.integers(1, 24), min_size=1, max_size=4),
)
names = st.text("abcdefgh-.0123456789é", min_size=1, max_size=12)
equal_workers = st.lists(names, min_size=1, max_size=12, unique=True).map(lambda ids: dict.fromkeys(ids, 1))
weighted_workers = st.dictionaries(names, st.integers(1, 9), min_size=1, max_size=12)
workers = st.one_of(equal_workers, weighted_workers)


def members_of(weights: dict[str, int], owned: Placed | None = None, generation: int = 1) -> list[Member]:
    owned = owned or {}
    return [
        Member(id=name, weight=weight, tasks=owned.get(name, ()), generation=generation if name in owned else 0)
        for name, weight in weights.items()
    ]


def share_of(weights: dict[str, int], name: str, tasks: list[str]) -> int:
    """Return a worker's weighted share of the tasks, rounded up."""
    return math.ceil(Fraction(len(tasks) * weights[name], sum(weights.values())))


def assert_whole(placed: Placed, weights: dict[str, int], tasks: list[str]) -> None:
    assert sorted(task for some in placed.values() for task in some) == sorted(tasks), "each task once"
    assert placed.keys() == weights.keys()
    for name, some in placed.items():
        assert len(some) <= share_of(weights, name, tasks), f"{name} is over its share"


@MANY
@given(weights=workers, tasks=task_sets, data=st.data())
def test_every_task_is_assigned_once_and_nobody_is_over_its_share_whatever_was_owned(
    weights: dict[str, int], tasks: list[str], data: st.DataObject
) -> None:
    """What members claim may be stale, contradictory, or of tasks that are no more."""
    claims = st.lists(st.sampled_from([*tasks, "9_9"]), max_size=len(tasks), unique=True).map(tuple)
    members = [
        Member(id=name, weight=weight, tasks=data.draw(claims), generation=data.draw(st.integers(0, 5)))
        for name, weight in weights.items()
    ]
    assert_whole(assign_tasks(members, tasks), weights, tasks)


@MANY
@given(weights=workers, tasks=task_sets, new=names, weight=st.integers(1, 9))
def test_a_new_worker_takes_at_most_its_share_and_no_other_task_moves(
    weights: dict[str, int], tasks: list[str], new: str, weight: int
) -> None:
    """Of t tasks beside n equal workers it is ceil(t / (n + 1)) at most."""
    before = assign_tasks(members_of(weights), tasks)
    more = {new: weight if max(weights.values()) > 1 else 1} | weights
    after = assign_tasks(members_of(more, before), tasks)
    assert_whole(after, more, tasks)
    moves = moved_tasks(before, after)
    assert {to for _, to in moves.values()} <= {new}
    if new not in weights:
        assert len(moves) == len(after[new]) <= share_of(more, new, tasks)


@MANY
@given(weights=workers, tasks=task_sets, data=st.data())
def test_a_worker_that_leaves_moves_its_own_tasks_alone(
    weights: dict[str, int], tasks: list[str], data: st.DataObject
) -> None:
    before = assign_tasks(members_of(weights), tasks)
    gone = data.draw(st.sampled_from(sorted(weights)))
    fewer = {name: weight for name, weight in weights.items() if name != gone}
    after = assign_tasks(members_of(fewer, before), tasks)
    if fewer:
        assert_whole(after, fewer, tasks)
        assert moved_tasks(before, after).keys() == set(before[gone])


@MANY
@given(tasks=task_sets, changes=st.lists(st.tuples(st.booleans(), names), min_size=1, max_size=12))
def test_over_any_history_of_comings_and_goings_only_what_must_move_moves(
    tasks: list[str], changes: list[tuple[bool, str]]
) -> None:
    weights, placed = {"first": 1}, assign_tasks(members_of({"first": 1}), tasks)
    for comes, name in changes:
        changed = weights | {name: 1} if comes else {one: 1 for one in weights if one != name} or {"first": 1}
        now = assign_tasks(members_of(changed, placed), tasks)
        assert_whole(now, changed, tasks)
        moves = moved_tasks(placed, now)
        came, gone = changed.keys() - weights.keys(), weights.keys() - changed.keys()
        assert all(to in came or source in gone for source, to in moves.values())
        weights, placed = changed, now


@MANY
@given(weights=workers, tasks=task_sets, data=st.data())
def test_the_order_of_workers_and_of_tasks_does_not_matter(
    weights: dict[str, int], tasks: list[str], data: st.DataObject
) -> None:
    owned = assign_tasks(members_of(weights), tasks[::2])
    members = members_of(weights, owned)
    shuffled = assign_tasks(data.draw(st.permutations(members)), data.draw(st.permutations(tasks)))
    assert shuffled == assign_tasks(members, tasks)


@MANY
@given(weights=workers, tasks=task_sets)
def test_a_cluster_that_is_started_anew_gets_what_it_had(weights: dict[str, int], tasks: list[str]) -> None:
    """With or without remembering what it had."""
    first = assign_tasks(members_of(weights), tasks)
    assert assign_tasks(members_of(weights), tasks) == first
    assert assign_tasks(members_of(weights, first), tasks) == first


@given(weights=workers, count=st.integers(0, 60))
def test_quotas_use_up_all_tasks_and_equal_workers_differ_by_one_at_most(weights: dict[str, int], count: int) -> None:
    quotas = quotas_of(weights, count)
    assert sum(quotas.values()) == count
    if set(weights.values()) == {1}:
        assert max(quotas.values()) - min(quotas.values()) <= 1


def test_the_later_generation_of_two_claims_is_believed() -> None:
    members = [
        Member(id="old", tasks=("0_0", "0_1"), generation=3),
        Member(id="new", tasks=("0_1",), generation=4),
    ]
    assert assign_tasks(members, ["0_0", "0_1"]) == {"new": ("0_1",), "old": ("0_0",)}


def test_workers_that_bear_one_id_are_told_apart() -> None:
    ids = {"m2": "host-0", "m1": "host-0", "m3": "other", "m4": "host-0#2"}
    members = {key: Member(id=name, tasks=("0_1",)) for key, name in ids.items()}
    named = {key: member.id for key, member in distinct_members(members).items()}
    assert named == {"m1": "host-0", "m2": "host-0#3", "m3": "other", "m4": "host-0#2"}
    assert distinct_members(members)["m2"].tasks == ("0_1",)


def test_tasks_spread_over_workers_by_hash_and_not_by_name() -> None:
    """Neighbouring partitions do not all land on one worker."""
    placed = assign_tasks([Member(id=f"host-{number}") for number in range(4)], [f"0_{part}" for part in range(64)])
    runs = [
        sum(f"0_{part + 1}" in some for part in map(int, (task.split("_")[1] for task in some)))
        for some in placed.values()
    ]
    assert max(runs) < 10
