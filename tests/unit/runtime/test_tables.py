"""Tables of topics, and tables joined with tables: what is kept, and what every change hands on."""

from typing import Any

import msgspec
import polars as pl
import pytest
from receipts_job import Row, receipt, receipts

from streamkit import EventTime, Job
from streamkit.errors import DeserializationError, TimestampError
from streamkit.files.shapes import sink_shapes
from streamkit.testing import TestDriver
from streamkit.topology import compile_graph


class Customer(msgspec.Struct):
    name: str
    since: int


def test_a_table_keeps_the_last_value_of_each_key_and_hands_every_change_on() -> None:
    job = Job("copy")
    customers = job.table("customers", key=int, value=Customer)
    customers.to("out")
    ann, bob = Customer("Ann", 1), Customer("Bob", 2)
    with TestDriver(job) as driver:
        for key, value in ((1, ann), (2, None), (1, bob), (2, ann), (1, None), (1, None)):
            driver.send("customers", value, key=key)
        driver.commit()
        assert driver.table(customers) == {2: ann}
        made = [(key, None if value is None else value["name"]) for key, value in driver.sent("out")]
        assert made == [(1, "Ann"), (1, "Bob"), (2, "Ann"), (1, None)], "what is not there is not deleted"
        driver.restart()
        driver.send("customers", None, key=2)
        driver.commit()
        assert driver.table("customers") == {}
        assert driver.sent("out")[4:] == [(2, None)]


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_null_key_is_a_bad_record(policy: Any) -> None:
    with TestDriver(receipts(policy)) as driver:
        driver.send("customers", "Ann", key="a")
        driver.send("customers", "nobody")
        driver.send("customers", "Bob", key="b")
        if policy == "fail":
            with pytest.raises(DeserializationError) as caught:
                driver.end()
            assert (caught.value.topic, caught.value.offset, caught.value.node) == ("customers", 1, "customers-records")
        else:
            driver.end()
            assert driver.table("customers") == {"a": "Ann", "b": "Bob"}


def test_a_deletion_has_no_value_to_take_a_timestamp_from_and_bears_its_own() -> None:
    job = Job("stamped")
    job.table("customers", key=str, value=Customer, timestamp=EventTime("since")).to("out")
    with TestDriver(job) as driver:
        driver.send("customers", Customer("Ann", 20), key="a", timestamp_ms=1)
        driver.send("customers", None, key="a", timestamp_ms=7)
        driver.send("customers", Customer("Ann", 30), key="a", timestamp_ms=2)
        driver.commit()
        assert [stamp for _, _, stamp in driver.sent_records("out")] == [20, 7, 30]


def test_a_bad_timestamp_between_deletions_names_its_record() -> None:
    job = Job("stamped")
    job.table("customers", key=str, timestamp="since").to("out")
    with TestDriver(job) as driver:
        driver.send("customers", None, key="a")
        driver.send("customers", {"since": "never"}, key="b")
        with pytest.raises(TimestampError) as caught:
            driver.commit()
        assert caught.value.offset == 1


def test_a_bad_value_between_deletions_names_its_record() -> None:
    job = Job("bad")
    job.table("customers", key=str, value=Customer).to("out")
    with TestDriver(job) as driver:
        driver.send("customers", None, key="a")
        driver.send("customers", b"{}", key="b")
        with pytest.raises(DeserializationError) as caught:
            driver.commit()
        assert caught.value.offset == 1


def test_a_table_of_a_topic_is_filtered_by_an_expression_and_found_through_it() -> None:
    job = Job("columns")
    old = job.table("customers", key=str, value=Customer).filter(pl.col("since") < 5)
    old.map_values(lambda customer: customer.name, name="names").to("old")
    old.join(job.table("places", key=str, value=str), lambda one, place: f"{one.name} in {place}", name="at").to("at")
    with TestDriver(job) as driver:
        for number, since in enumerate((1, 9, 3)):
            driver.send("customers", Customer("Ann", since), key="a", timestamp_ms=number)
        driver.process()
        driver.send("places", "Ulm", key="a", timestamp_ms=7)
        driver.end()
        assert driver.sent("old") == [("a", "Ann"), ("a", None), ("a", "Ann")]
        assert driver.sent("at") == [("a", "Ann in Ulm")]


def both_ways(commit_each: int) -> tuple[list[Any], dict[str, str]]:
    job = Job("both")
    names = job.table("names", key=str, value=str)
    places = job.table("places", key=str, value=str)
    located = names.join(places, lambda name, place: f"{name} in {place}", name="located")
    located.to("out")
    rows: list[Row] = [
        ("names", "a", "Ann"),
        ("places", "a", "Ulm"),
        ("names", "a", "Ada"),
        ("places", "b", "Rom"),
        ("names", "b", "Bob"),
        ("places", "a", None),
        ("places", "c", None),
        ("names", "a", "Amy"),
        ("names", "b", None),
        ("places", "a", "Aix"),
    ]
    with TestDriver(job, partitions=2) as driver:
        for number, (to, key, value) in enumerate(rows):
            driver.send(to, value, key=key, timestamp_ms=number)
            driver.process()
            if number % commit_each == 0:
                driver.commit()
                driver.restart()
        driver.end()
        return driver.sent("out"), driver.table(located)


@pytest.mark.parametrize("commit_each", [1, 3, 1000])
def test_two_tables_make_one_and_a_change_of_either_changes_it(commit_each: int) -> None:
    sent, contents = both_ways(commit_each)
    assert [row for row in sent if row[0] == "a"] == [
        ("a", "Ann in Ulm"),
        ("a", "Ada in Ulm"),
        ("a", None),
        ("a", "Amy in Aix"),
    ]
    assert [row for row in sent if row[0] == "b"] == [("b", "Bob in Rom"), ("b", None)]
    assert contents == {"a": "Amy in Aix"}


@pytest.mark.parametrize("bounded", [True, False])
def test_a_table_of_a_topic_joins_a_count(bounded: bool) -> None:
    job = Job("counted")
    names = job.table("names", key=str, value=str)
    counts = job.stream("visits", key=str, value=str).group_by_key().count(name="visits_of")
    counts.join(names, lambda count, name: f"{name} {count}", order="arrival", name="both").to("out")
    with TestDriver(job) as driver:
        for to, key, value in (
            ("visits", "a", "x"),
            ("names", "a", "Ann"),
            ("visits", "a", "x"),
            ("names", "b", "Bob"),
        ):
            driver.send(to, value, key=key)
        if bounded:
            driver.end()
        else:
            # Until then a name may come that is before the visits.
            driver.send("names", "Zoe", key="z", timestamp_ms=1)
        driver.commit()
        assert dict(driver.sent("out")) == {"a": "Ann 2"}
        assert driver.table("both") == {"a": "Ann 2"}


def test_a_filtered_table_deletes_in_order_where_a_key_comes_twice_in_a_batch() -> None:
    job = Job("filtered")
    job.table("numbers", key=str, value=int).filter(lambda value: value > 0, name="positive").to("out")
    with TestDriver(job) as driver:
        for value in (-1, 1, -2, 2):
            driver.send("numbers", value, key="a")
        driver.commit()
        assert driver.sent("out") == [("a", None), ("a", 1), ("a", None), ("a", 2)]


def test_an_output_of_a_table_is_of_the_last_value_of_each_key() -> None:
    job = Job("outputs")
    names, places = (job.table(topic, key=str, value=str) for topic in ("names", "places"))
    names.map_values(str.upper, name="upper").to("loud")
    names.join(places, receipt, name="located").to("located")
    job.stream("orders", key=str, value=str).join(names, receipt, name="receipts").to("receipts")
    shapes = sink_shapes(compile_graph(job.build()))
    assert {topic: shape.latest for topic, shape in shapes.items()} == {
        "loud": True,
        "located": True,
        "receipts": False,
    }
