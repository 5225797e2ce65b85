"""What a change of a job means for its state, edit by edit; and how a lock is written."""

from collections.abc import Callable

import pytest
from edited_jobs import SAFE, FloatBid, Less, More, edited, folded, second, twice_grouped, unmerged, with_join

from streamkit import Hopping, Job, Tumbling, agg
from streamkit.errors import ConfigError
from streamkit.topology import compile_graph
from streamkit.topology.changes import Change, changes_between
from streamkit.topology.lock import Lock, lock_of


def changes(was: Job, now: Job) -> tuple[Change, ...]:
    return changes_between(*(lock_of(compile_graph(job.build())) for job in (was, now)))


NEEDS_REPLAY: dict[str, tuple[Callable[[], tuple[Job, Job]], set[str]]] = {
    "a source before others": (lambda: (edited(), edited(before="more")), {"by_auction", "hot"}),
    "another aggregate": (lambda: (edited(), edited(best=agg.min("price"))), {"hot"}),
    "another column": (lambda: (edited(), edited(best=agg.max("at"))), {"hot"}),
    "a column of another type": (lambda: (edited(), edited(bid=FloatBid)), {"hot"}),
    "windows of another size": (lambda: (edited(), edited(window=Tumbling(second(20), grace=second(0)))), {"hot"}),
    "windows that overlap": (
        lambda: (edited(), edited(window=Hopping(second(10), advance=second(5), grace=second(0)))),
        {"hot"},
    ),
    "a row chosen by another column": (
        lambda: (edited(best=agg.arg_max("at", by="price")), edited(best=agg.arg_max("at", by="at"))),
        {"hot"},
    ),
    "more of the largest": (lambda: (edited(best=agg.top_k("price", 2)), edited(best=agg.top_k("price", 3))), {"hot"}),
    "no windows": (lambda: (edited(), edited(window=None)), {"hot"}),
    "windows": (lambda: (edited(window=None), edited()), {"hot"}),
    "more grace": (lambda: (edited(), edited(window=Tumbling(second(10), grace=second(5)))), {"hot"}),
    "more out-of-orderness": (lambda: (edited(), edited(slack=2)), {"bids", "hot"}),
    "another timestamp": (lambda: (edited(), edited(at="price")), {"bids", "hot"}),
    "other shards": (lambda: (edited(), edited(shards=3)), {"by_auction", "hot"}),
    "another key": (lambda: (edited(), edited(key="price")), {"by_auction", "hot"}),
    "another field in an accumulator": (lambda: (folded(Less), folded(More)), {"totals"}),
    "a store in the middle": (lambda: (twice_grouped("a"), twice_grouped("a", "b")), {"b", "words"}),
    "a known source merged": (lambda: (edited(after="others"), edited(merged=True)), {"bids", "hot", "others"}),
    "a source less in a merge": (lambda: (edited(merged=True), edited()), {"bids", "hot", "others"}),
    "a join in another order": (lambda: (with_join(), with_join(order="arrival")), {"receipts"}),
    "a join with another table": (
        lambda: (with_join(), with_join(table="others")),
        {"receipts", "orders", "customers", "others"},
    ),
    "a join of what was read apart": (lambda: (with_join(join=False), with_join()), {"orders", "customers"}),
    "a table of other values": (lambda: (with_join(), with_join(value=str)), {"customers", "others"}),
    "two tasks become one": (lambda: (unmerged(together=False), unmerged(together=True)), {"one", "other"}),
    "one task becomes two": (lambda: (unmerged(together=True), unmerged(together=False)), {"one", "other"}),
}

ORPHANS: dict[str, tuple[Callable[[], tuple[Job, Job]], set[str], str]] = {
    "a store renamed": (lambda: (edited(), edited(store="warm")), {"hot", "warm"}, 'name="hot" keeps'),
    "a shuffle renamed": (lambda: (edited(), edited(by="by")), {"by_auction", "by", "hot"}, 'name="by_auction" keeps'),
    "a store gone": (lambda: (twice_grouped("a", "b"), twice_grouped("a")), {"b", "by_b"}, "delete twice-b-changelog"),
    "the job renamed": (lambda: (edited(), edited(name="else")), {"hot"}, 'Job("edited") keeps'),
}


@pytest.mark.parametrize("jobs", SAFE.values(), ids=SAFE)
def test_it_is_safe(jobs: Callable[[], tuple[Job, Job]]) -> None:
    found = changes(*jobs())
    assert found
    assert {change.kind for change in found} == {"safe"}


@pytest.mark.parametrize(("jobs", "about"), NEEDS_REPLAY.values(), ids=NEEDS_REPLAY)
def test_it_needs_a_replay(jobs: Callable[[], tuple[Job, Job]], about: set[str]) -> None:
    worst = [change for change in changes(*jobs()) if change.kind == "needs replay"]
    assert worst == list(changes(*jobs()))[: len(worst)], "the worst come first, and nothing is orphaned"
    assert worst
    assert {name for change in worst for name in change.about} == about
    assert all(change.do for change in worst), "each says what to do"


@pytest.mark.parametrize(("jobs", "about", "says"), ORPHANS.values(), ids=ORPHANS)
def test_it_orphans_state(jobs: Callable[[], tuple[Job, Job]], about: set[str], says: str) -> None:
    worst = [change for change in changes(*jobs()) if change.kind == "orphans state"]
    assert {name for change in worst for name in change.about} == about
    assert any(says in change.do for change in worst)


def test_a_store_and_its_shuffle_renamed_together_are_both_recognised() -> None:
    found = changes(edited(), edited(store="warm", by="by"))
    assert {change.kind for change in found} == {"orphans state"}, "the new store is no other one that began in between"
    assert {name for change in found for name in change.about} == {"hot", "warm", "by_auction", "by"}


def test_tasks_that_get_other_numbers_are_named() -> None:
    said = {change.what for change in changes(edited(), edited(before="more"))}
    assert any(what.startswith("the tasks 0_* are called 1_*: what they sent to hot") for what in said)
    assert any(
        what == "the tasks 1_* are called 2_*: hot is restored from its changelog, which takes time" for what in said
    )


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format": 1, "job": 3}'])
def test_a_file_that_is_no_lock_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"job.topology.json is no topology lock"):
        Lock.from_json(data, "job.topology.json")


def test_a_lock_of_another_format_is_refused() -> None:
    data = lock_of(compile_graph(edited().build())).to_json().replace(b'"format": 1', b'"format": 2')
    with pytest.raises(ConfigError, match="of format 2, this is 1"):
        Lock.from_json(data, "job.topology.json")
