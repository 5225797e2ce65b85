"""A job that sets bad records aside gives what it gives for an input without them, and each is a dead letter once.

What is bad is drawn for each record: bytes that are no JSON, a key, a type, a timestamp that does not fit, a function,
an expression, a fold, a key function or an output that fails. The reference is the same job, failing, on the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import EventTime, Job, Tumbling, agg
from streamkit.graph.nodes import OnError
from streamkit.records import TopicPartition
from streamkit.runtime.reading import read_to
from streamkit.testing import TestDriver

pytestmark = pytest.mark.slow

FEW = settings(max_examples=max(25, settings().max_examples // 5))
KINDS = ("good", "bytes", "key", "type", "stamp", "map", "expression", "fold", "key_of", "null_key", "large", "late")
PARTITIONS = 2


class Sale(msgspec.Struct):
    name: str
    amount: int
    at: int
    note: str = "0"
    how: str = "good"


@dataclass(frozen=True)
class Sent:
    partition: int
    key: bytes | None
    value: bytes
    kind: str


@st.composite
def inputs(draw: st.DrawFn) -> list[Sent]:
    records = []
    for number in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(KINDS if draw(st.booleans()) else ("good",)))
        at: Any = draw(st.integers(0, 60))
        sale = {"name": draw(st.sampled_from("abc")), "amount": number, "at": at, "note": "1", "how": kind}
        match kind:
            case "type":
                sale["amount"] = "three"
            case "stamp":
                sale["at"] = 2**61
            case "expression":
                sale["note"] = "no number"
        value = b'{"name": ' if kind == "bytes" else msgspec.json.encode(sale)
        key = {"key": b"three", "null_key": None}.get(kind, b"%d" % number)
        records.append(Sent(draw(st.integers(0, PARTITIONS - 1)), key, value, kind))
    return records


def failing(sale: Sale, how: str) -> None:
    if sale.how == how:
        raise ValueError(f"it is {how}")


def named(sale: Sale) -> str:
    failing(sale, "map")
    return sale.name * (200_000 if sale.how == "large" else 1) * (7 if sale.how == "large" else 1)


def name_of(sale: Sale) -> str:
    return 3 if sale.how == "key_of" else sale.name  # type: ignore[return-value]  # what is tested


def total(sum_: int, sale: Sale) -> int:
    failing(sale, "fold")
    return sum_ + sale.amount


def late(sale: Sale) -> str:
    failing(sale, "late")
    return sale.name


def job_of(on_error: OnError) -> Job:
    job = Job("sales_job", on_error=on_error)
    at = EventTime("at", out_of_orderness=timedelta(milliseconds=5))
    sales = job.stream("sales", key=int, value=Sale, timestamp=at)
    sales.map(named).to("names")
    noted = sales.typed(Sale).filter(pl.col("note").cast(pl.Int64) > 0)
    noted.group_by("name", type=str, name="by_note", shards=2).agg({"best": agg.max("amount")}, name="best").to("bests")
    group = sales.group_by(name_of, name="by_name", shards=2)
    totals = group.aggregate(total, initial=int, merge=lambda one, other: one + other, name="totals")
    totals.to("totals")
    windowed = sales.group_by_key().window(Tumbling(timedelta(milliseconds=10), grace=timedelta(0)))
    windowed.aggregate(total, initial=int, name="by_window").to("windows")
    windowed.late.map(late).to("late")
    return job


def run(on_error: OnError, records: Sequence[Sent], cuts: Sequence[int]) -> tuple[dict[str, Any], list[Any]]:
    """Return what a run gives, and its dead letters; a cut is a commit."""
    with TestDriver(job_of(on_error), partitions=PARTITIONS) as driver:
        for number, record in enumerate(records):
            driver.send("sales", record.value, key=record.key, partition=record.partition, timestamp_ms=0)
            if number in cuts:
                driver.commit()
        driver.end()
        # What tables of updates write depends on commits; what they hold does not.
        sinks = ("names", "windows", "late")
        results: dict[str, Any] = {topic: sorted(map(repr, driver.sent_records(topic))) for topic in sinks}
        results |= {name: driver.table(name) for name in ("best", "totals")}
        letters = dead_letters(driver) if on_error == "dead_letter" else []
        return results, letters


def dead_letters(driver: TestDriver) -> list[Any]:
    fetcher = driver.broker.fetcher()
    found = []
    for partition in range(PARTITIONS):
        for records in read_to(driver.broker, fetcher, TopicPartition("sales_job.dead_letter", partition), None):
            rows = zip(records.keys, records.values, records.headers or [], strict=True)
            found += [(key, value, dict(headers)) for key, value, headers in rows]
    fetcher.close()
    return found


def is_bad(records: Sequence[Sent], letters: list[Any]) -> list[Sent]:
    """Return the records that must be dead letters; of those that fail when they are late, the ones that were."""
    late_ones = {value for _, value, headers in letters if headers["node"] == b"late"}
    return [
        one for one in records if one.kind not in ("good", "late") or (one.kind == "late" and one.value in late_ones)
    ]


@FEW
@given(inputs(), st.data())
def test_results_are_those_of_the_input_without_the_bad_records_and_each_is_a_dead_letter_once(
    records: list[Sent], data: st.DataObject
) -> None:
    cuts = data.draw(st.sets(st.integers(0, len(records) - 1)))
    results, letters = run("dead_letter", records, sorted(cuts))
    bad = is_bad(records, letters)
    good = [one for one in records if one not in bad]
    assert results == run("fail", good, [])[0], "a failing job does not fail on them"
    placed = {partition: [one for one in records if one.partition == partition] for partition in range(PARTITIONS)}
    expected = [
        (one.key, one.value, b"%d" % partition, b"%d" % offset)
        for partition, own in placed.items()
        for offset, one in enumerate(own)
        if one in bad
    ]
    said = [(key, value, headers["partition"], headers["offset"]) for key, value, headers in letters]
    assert sorted(said, key=repr) == sorted(expected, key=repr)
    assert all(headers["topic"] == b"sales" and headers["attempt"] == b"1" for _, _, headers in letters)


@FEW
@given(inputs(), st.data())
def test_skipping_gives_the_same_and_counts_them(records: list[Sent], data: st.DataObject) -> None:
    cuts = data.draw(st.sets(st.integers(0, len(records) - 1)))
    assert run("skip", records, sorted(cuts))[0] == run("dead_letter", records, [])[0]
