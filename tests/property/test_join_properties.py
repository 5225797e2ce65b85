"""Joins against plain dicts: whatever is sent, in batches of any size, with commits and restarts anywhere between."""

import operator
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import Job, Table
from streamkit.testing import TestDriver

FEW = settings(max_examples=max(10, settings().max_examples // 5))

Sent = tuple[str, str, int | None]
"""Topic, key and value."""

changes = st.tuples(st.sampled_from(["one", "two"]), st.sampled_from("abc"), st.none() | st.integers(-9, 9))
asked = st.tuples(st.just("asked"), st.sampled_from("abcd"), st.integers(0, 9))
stretches = st.lists(st.tuples(st.lists(changes | asked, max_size=6), st.sampled_from(["read", "commit", "restart"])))


def in_runs(sent: list[Sent]) -> list[list[Sent]]:
    """Cut what is sent where the topic changes: between topics nothing but reading in between gives an order."""
    runs: list[list[Sent]] = []
    for one in sent:
        if not runs or runs[-1][-1][0] != one[0]:
            runs.append([])
        runs[-1].append(one)
    return runs


def even(value: int) -> bool:
    return value % 2 == 0


def both_of(job: Job) -> Table[str, int]:
    two = job.table("two", key=str, value=int).filter(even).map_values(lambda value: value * 10, name="tens")
    return job.table("one", key=str, value=int).join(two, operator.add, name="both")


@FEW
@given(stretches=stretches)
def test_a_join_finds_what_dicts_would_have(stretches: list[tuple[list[Sent], str]]) -> None:
    job = Job("drawn")
    both = both_of(job)
    both.to("both")
    job.stream("asked", key=str, value=int).join(both, lambda asked, found: [asked, found], name="found").to("found")
    tables: dict[str, dict[str, int]] = {"one": {}, "two": {}}
    expected: list[tuple[str, list[int]]] = []

    def contents() -> dict[str, int]:
        one, two = tables["one"], tables["two"]
        return {key: one[key] + two[key] * 10 for key in one.keys() & two.keys() if even(two[key])}

    with TestDriver(job) as driver:
        after: dict[str, Callable[[], None]] = {
            "read": driver.process,
            "commit": driver.commit,
            "restart": driver.restart,
        }
        stamp = 0
        for sent, then in stretches:
            for run in in_runs(sent):
                stamp += 1
                for topic, key, value in run:
                    driver.send(topic, value, key=key, timestamp_ms=stamp)
                    if topic == "asked":
                        assert value is not None
                        expected += [(key, [value, contents()[key]])] if key in contents() else []
                    elif value is None:
                        tables[topic].pop(key, None)
                    else:
                        tables[topic][key] = value
                driver.process()
            if then == "restart":
                driver.commit()
            after[then]()
        driver.end()
        assert driver.sent("found") == expected
        assert driver.table(both) == contents()
        written = dict(driver.sent("both"))
        assert {key: value for key, value in written.items() if value is not None} == contents()
