"""A row that reaches a node on two ways: which comes first must not depend on where a batch is cut."""

import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from machine import Machine

from streamkit import Context, Job, Record

ROWS = [{"shop": "a", "n": n} for n in (1, 2, 3, 4)]


def shop(row: dict[str, Any]) -> str:
    return str(row["shop"])


def tenfold(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "n": 10 * row["n"]}


def listed(seen: list[int], row: dict[str, Any]) -> list[int]:
    return [*seen, row["n"]]


def again(ctx: Context, record: Record[str, dict[str, Any]]) -> list[Record[str, dict[str, Any]]]:
    return [record]


def folded(job: Job) -> None:
    rows = job.stream("rows", key=str, value=dict[str, Any])
    rows.map(tenfold).merge(rows).group_by_key().aggregate(listed, initial=list[int], name="lists").to("out")


def shuffled(job: Job) -> None:
    rows = job.stream("rows", key=str, value=dict[str, Any])
    both = rows.map(tenfold).merge(rows)
    both.group_by(shop, shards=1).aggregate(listed, initial=list[int], name="lists").to("out")


def looked_up(job: Job) -> None:
    rows = job.stream("rows", key=str, value=dict[str, Any])
    shops = rows.key_by(shop, shards=1)
    counts = shops.process(again, stores=[job.store("unused", key=str, value=int)]).merge(shops)
    table = counts.group_by(shop, name="by_shop", shards=1).count(name="counts")
    rows.key_by(shop, name="beside", shards=1).join(table, lambda row, count: {"n": row["n"], "count": count}).to("out")


@pytest.mark.parametrize(
    ("define", "last"),
    [
        (folded, [10, 1, 20, 2, 30, 3, 40, 4]),
        (shuffled, [10, 1, 20, 2, 30, 3, 40, 4]),
        (looked_up, {"n": 4, "count": 6}),  # at the same turn `beside` comes before `by_shop`
    ],
)
def test_a_row_that_comes_on_two_ways_has_one_order_however_batches_are_cut(
    define: Callable[[Job], None], last: Any
) -> None:
    made = set[tuple[Any, ...]]()
    for seed in range(20):
        job = Job("two_ways")
        define(job)
        machine = Machine(job, {"rows": 1})
        machine.send("rows", 0, [(b"a", orjson.dumps(row), at) for at, row in enumerate(ROWS)])
        machine.run_bounded(random.Random(seed))
        made.add(tuple(value for _, value, _ in machine.read("out")))
    (values,) = made
    assert orjson.loads(values[-1]) == last
