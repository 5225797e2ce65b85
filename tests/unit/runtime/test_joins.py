"""Streams joined with tables: what a row finds, and through what."""

import operator
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl
import pytest
from receipts_job import Row, receipt, receipts

from streamkit import Job, Table, Tumbling, agg
from streamkit.errors import ProcessingError
from streamkit.graph.nodes import Order
from streamkit.runtime.comparing import past_of
from streamkit.testing import TestDriver
from streamkit.topology import compile_graph


def sent_by(job: Job, rows: Sequence[Row], topic: str, *, partitions: int = 1, commit_each: int = 1000) -> list[Any]:
    """Send rows of rising times, each once the one before was read, to the end, and return what the job wrote."""
    with TestDriver(job, partitions=partitions) as driver:
        for number, (to, key, value) in enumerate(rows):
            driver.send(to, value, key=key, timestamp_ms=number)
            driver.process()
            if number % commit_each == commit_each - 1:
                driver.commit()
        driver.end()
        return driver.sent(topic)


@pytest.mark.parametrize("commit_each", [1, 2, 1000])
@pytest.mark.parametrize("partitions", [1, 3])
def test_a_row_finds_what_the_table_has_for_its_key_at_that_moment(partitions: int, commit_each: int) -> None:
    rows: list[Row] = [
        ("orders", "a", "too early"),
        ("customers", "a", "Ann"),
        ("orders", "a", "first"),
        ("customers", "b", "Bob"),
        ("orders", "b", "his"),
        ("customers", "a", "Anna"),
        ("orders", "a", "second"),
        ("orders", "c", "of nobody"),
        ("customers", "a", None),
        ("orders", "a", "too late"),
        ("customers", "a", "Ann again"),
        ("orders", "a", "third"),
    ]
    sent = sent_by(receipts(), rows, "receipts", partitions=partitions, commit_each=commit_each)
    assert [row for row in sent if row[0] == "a"] == [
        ("a", "first for Ann"),
        ("a", "second for Anna"),
        ("a", "third for Ann again"),
    ]
    assert [row for row in sent if row[0] != "a"] == [("b", "his for Bob")]


def test_a_joined_row_keeps_key_and_timestamp() -> None:
    with TestDriver(receipts()) as driver:
        driver.send("customers", "Ann", key="a", timestamp_ms=20)
        driver.process()
        driver.send("orders", "o", key="a", timestamp_ms=50)
        driver.end()
        assert driver.sent_records("receipts") == [("a", "o for Ann", 50)]


def test_a_batch_of_rows_meets_the_table_row_by_row() -> None:
    with TestDriver(receipts()) as driver:
        for key, name in (("a", "Ann"), ("b", None), ("b", "Bob"), ("a", None), ("c", "Cid"), ("a", "Ada")):
            driver.send("customers", name, key=key, timestamp_ms=1)
        driver.process()
        for number, key in enumerate("abxacb"):
            driver.send("orders", str(number), key=key, timestamp_ms=2)
        driver.end()
        assert [value for _, value in driver.sent("receipts")] == [
            "0 for Ada",
            "1 for Bob",
            "3 for Ada",
            "4 for Cid",
            "5 for Bob",
        ]


def fussy(order: str, customer: str) -> str:
    if order == "bad":
        raise ValueError("no")
    return receipt(order, customer)


@pytest.mark.parametrize("policy", ["fail", "skip", "dead_letter"])
def test_an_exception_of_the_function_names_the_record_of_the_stream(policy: Any) -> None:
    job = Job("fussy", on_error=policy)
    customers = job.table("customers", key=str, value=str)
    job.stream("orders", key=str, value=str).join(customers, fussy).to("receipts")
    with TestDriver(job) as driver:
        driver.send("customers", "Ann", key="a", timestamp_ms=1)
        driver.process()
        for order, key in (("one", "a"), ("bad", "x"), ("bad", "a"), ("two", "a"), ("bad", "a")):
            driver.send("orders", order, key=key, timestamp_ms=2)
        if policy == "fail":
            with pytest.raises(ProcessingError) as caught:
                driver.end()
            assert (caught.value.topic, caught.value.offset, caught.value.node) == ("orders", 2, "fussy")
            return
        driver.end()
        assert [value for _, value in driver.sent("receipts")] == ["one for Ann", "two for Ann"]
        if policy == "dead_letter":
            assert driver.sent("fussy.dead_letter") == [("a", "bad"), ("a", "bad")]


def test_an_exception_behind_a_table_names_the_record_of_the_table() -> None:
    job = Job("looked_up")
    sizes = job.table("customers", key=str, value=str).map_values(int, name="sizes")
    job.stream("orders", key=str, value=str).join(sizes, lambda order, size: order * size, name="out").to("out")
    with TestDriver(job) as driver:
        driver.send("customers", "2", key="a", timestamp_ms=1)
        driver.process()
        driver.send("orders", "x", key="a", timestamp_ms=2)
        driver.end()
        assert driver.sent("out") == [("a", "xx")]
        driver.send("customers", "none", key="b", timestamp_ms=3)
        with pytest.raises(ProcessingError) as caught:
            driver.end()
        assert (caught.value.topic, caught.value.offset, caught.value.node) == ("customers", 1, "sizes")


def side(job: Job, kind: str) -> Table[str, Any]:
    """Return a table with what is kept of the topic `customers` by key, seen in some way."""
    if kind == "topic":
        return job.table("customers", key=str, value=int).map_values(lambda value: {"n": value}, name="seen")
    if kind == "filtered":
        kept = job.table("customers", key=str, value=int).filter(lambda value: value > 0, name="large")
        return kept.map_values(lambda value: {"n": value}, name="seen")
    if kind == "columns":
        rows = job.stream("customers", key=str, value=Number).group_by_key()
        return rows.agg({"n": agg.sum("value")}, name="sums").filter(pl.col("n") > 0).typed(Sum)
    numbers = job.stream("customers", key=str, value=int).group_by_key()
    if kind == "ordered":
        folded = numbers.aggregate(operator.add, initial=int, name="sums")
    else:
        folded = numbers.reduce(operator.add, name="sums")
    return folded.map_values(lambda total: {"n": total}, name="seen")


class Number(msgspec.Struct):
    value: int


class Sum(msgspec.Struct):
    n: int


def number(kind: str, value: int) -> Any:
    return {"value": value} if kind == "columns" else value


def size(order: str, found: Any) -> str:
    return f"{order} {found.n if isinstance(found, Sum) else found['n']}"


@pytest.mark.parametrize("commit_each", [1, 3, 1000])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("topic", ["1 5", "2 -2", "3 -2"]),
        ("filtered", ["1 5"]),
        ("merged", ["1 5", "2 3", "3 3"]),
        ("ordered", ["1 5", "2 3", "3 3"]),
        ("columns", ["1 5", "2 3", "3 3"]),
    ],
)
def test_a_side_is_looked_up_through_what_comes_after_it(kind: str, expected: list[str], commit_each: int) -> None:
    """Every row that the table has received before counts, whether or not it was committed."""
    job = Job("sides")
    job.stream("orders", key=str, value=str).join(side(job, kind), size).to("out")
    rows: list[Row] = [
        ("orders", "a", "0"),
        ("customers", "a", number(kind, 5)),
        ("orders", "a", "1"),
        ("customers", "a", number(kind, -2)),
        ("orders", "a", "2"),
        ("orders", "b", "none"),
        ("orders", "a", "3"),
    ]
    assert [value for _, value in sent_by(job, rows, "out", commit_each=commit_each)] == expected


def test_a_stream_finds_what_its_own_rows_made_of_a_table_whatever_the_batches() -> None:
    """Each row finds the count with itself in it: the table was defined before the join."""
    job = Job("own")
    visits = job.stream("visits", key=str, value=str)
    counts = visits.group_by_key().count(name="counts")
    visits.join(counts, lambda visit, count: f"{visit} {count}", name="numbered").to("out")
    with TestDriver(job) as driver:
        for key in "abaa":
            driver.send("visits", key, key=key)
        driver.commit()
        driver.send("visits", "a", key="a")
        driver.commit()
        assert [value for _, value in driver.sent("out")] == ["a 1", "b 1", "a 2", "a 3", "a 4"]


def test_a_joined_table_is_joined_again_and_filtered() -> None:
    job = Job("again")
    one, two, three = (job.table(topic, key=str, value=int) for topic in ("one", "two", "three"))
    sums = one.join(two, operator.add, name="sums").join(three, operator.add, name="all")
    large = sums.filter(lambda total: total > 10, name="large")
    large.to("large")
    job.stream("asked", key=str, value=str).join(large, lambda _, total: total, name="answered").to("answered")
    rows: list[Row] = [
        ("one", "a", 1),
        ("two", "a", 2),
        ("asked", "a", ""),
        ("three", "a", 9),
        ("asked", "a", ""),
        ("one", "a", 0),
        ("two", "a", 1),
        ("asked", "a", ""),
    ]
    assert sent_by(job, rows, "answered") == [("a", 12)]


def test_a_table_that_is_only_looked_up_is_kept_whatever_crashes() -> None:
    """The rest of the crashes: `tests/property/test_crashes.py`."""
    with TestDriver(receipts()) as driver:
        driver.send("customers", "Ann", key="a", timestamp_ms=1)
        driver.commit()
        driver.send("customers", "Bob", key="a", timestamp_ms=2)
        driver.process()
        driver.restart()
        driver.process()
        driver.send("orders", "o", key="a", timestamp_ms=3)
        driver.end()
        assert driver.sent("receipts") == [("a", "o for Bob")]
        assert driver.record_count("receipts-customers-changelog") > 2


def test_a_job_that_takes_rows_as_they_arrive_is_not_comparable() -> None:
    orders: tuple[Order, Order] = ("log", "arrival")
    for order in orders:
        with TestDriver(receipts(order=order)) as driver:
            driver.send("orders", "o", key="a")
            driver.commit()
            committed = driver.broker.group("receipts").committed()
            obstacle = past_of(compile_graph(receipts(order=order).build()), driver.broker, committed).obstacle
            assert ("receipt says order" in obstacle) == (order == "arrival"), obstacle


@pytest.mark.parametrize("kind", ["topic", "filtered", "merged", "ordered", "columns", "joined"])
def test_each_row_of_a_batch_finds_the_value_of_its_own_key(kind: str) -> None:
    """Some keys have none, some fail the filter on the way, none is at the place of another."""
    job = Job("many")
    table = side(job, "filtered" if kind == "joined" else kind)
    if kind == "joined":
        others = job.table("others", key=str, value=int)
        table = table.join(others, lambda found, other: {"n": found["n"] + other - other}, name="with_others")
    job.stream("orders", key=str, value=str).join(table, size).to("out")
    values = {"z": 1, "b": -2, "y": 3, "d": 4, "x": -5, "f": 6}
    with TestDriver(job) as driver:
        for key, value in values.items():
            driver.send("customers", number(kind, value), key=key, timestamp_ms=1)
            if kind == "joined" and key != "z":
                driver.send("others", value, key=key, timestamp_ms=1)
        driver.process()
        for key in "fabyzcxd":
            driver.send("orders", key, key=key, timestamp_ms=2)
        driver.end()
        passing = {key: value for key, value in values.items() if value > 0 or kind in ("topic", "merged", "ordered")}
        if kind == "joined":
            del passing["z"]
        assert driver.sent("out") == [(key, f"{key} {passing[key]}") for key in "fabyzcxd" if key in passing]


def test_results_of_windows_and_merged_streams_are_joined_as_facts() -> None:
    job = Job("facts")
    customers = job.table("customers", key=str, value=str)
    visits, orders = job.stream("visits", key=str, value=str), job.stream("orders", key=str, value=str)
    windows = visits.merge(orders).group_by_key().window(Tumbling(timedelta(milliseconds=10), grace=timedelta(0)))
    counts = windows.count(name="counts").to_stream()
    # In the order of the log it would be refused: a window closes between any two rows.
    named = counts.join(customers, lambda count, name: f"{name} {count}", order="arrival", name="counted")
    named.to("counted")
    visits.merge(orders).join(customers, receipt).to("receipts")
    rows: list[Row] = [
        ("customers", "a", "Ann"),
        ("visits", "a", "v"),
        ("orders", "a", "o"),
        ("customers", "b", "Bob"),
        ("orders", "b", "p"),
    ]
    with TestDriver(job, partitions=2) as driver:
        for stamp, (topic, key, value) in enumerate(rows):
            driver.send(topic, value, key=key, timestamp_ms=stamp)
            driver.process()
        driver.end()
        assert sorted(driver.sent_records("counted")) == [("a", "Ann 2", 9), ("b", "Bob 1", 9)]
        assert sorted(driver.sent("receipts")) == [("a", "o for Ann"), ("a", "v for Ann"), ("b", "p for Bob")]
