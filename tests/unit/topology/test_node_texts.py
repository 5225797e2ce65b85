"""Which changes of a job show in the texts of its nodes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl
import pytest

from streamkit import EventTime, Job, Tumbling, agg
from streamkit.graph.nodes import OnError
from streamkit.topology import compile_graph
from streamkit.topology.node_texts import node_texts


class Sale(msgspec.Struct):
    shop: str
    price: int
    at: int


class Dear(msgspec.Struct):
    shop: str
    price: float
    at: int


def second(count: int) -> timedelta:
    return timedelta(seconds=count)


KEPT, SHOWN, BEST = pl.col("price") > 0, pl.col("price") * 2, agg.max("price")


def job_of(
    *,
    value: Any = Sale,
    at: str | EventTime = "at",
    kept: Any = KEPT,
    shown: pl.Expr = SHOWN,
    key: str = "shop",
    size: int = 10,
    best: Any = BEST,
    swapped: bool = False,
    sink: str = "best",
    on_error: OnError = "fail",
    function: Callable[[Any], Any] = repr,
) -> Job:
    job = Job("sales", on_error=on_error)
    sales = job.stream("sales", value=value, timestamp=at)
    kept_sales = sales.filter(kept, name="kept")
    shown_sales = kept_sales.with_columns(shown.alias("double"))
    shown_sales.to("other" if swapped else "shown")
    kept_sales.map(function, name="mapped").to("shown" if swapped else "other")
    window = Tumbling(second(size), grace=second(0))
    kept_sales.group_by(key, name="by").window(window).agg({"best": best}, name="best").to(sink)
    return job


def texts(**changed: Any) -> dict[str, str]:
    return dict(node_texts(compile_graph(job_of(**changed).build())))


CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "another type": ({"value": Dear}, {"sales", "best"}),
    "another timestamp": ({"at": EventTime("at", out_of_orderness=second(1))}, {"sales"}),
    "another filter": ({"kept": pl.col("price") > 1}, {"kept"}),
    "a function for an expression": ({"kept": lambda sale: True}, {"kept"}),
    "another expression": ({"shown": pl.col("price") * 3}, {"with_columns_1"}),
    "another key": ({"key": "price"}, {"by"}),
    "other windows": ({"size": 20}, {"window_1"}),
    "another aggregate": ({"best": agg.min("price")}, {"best"}),
    "sinks of each other's streams": ({"swapped": True}, {"to_shown_1", "to_other_1"}),
    "another sink": ({"sink": "sums"}, {"to_best_1", "to_sums_1"}),
}


@pytest.mark.parametrize(("changed", "names"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_graph_shows_at_its_nodes(changed: dict[str, Any], names: set[str]) -> None:
    was, now = texts(), texts(**changed)
    different = {name for name in was | now if was.get(name) != now.get(name)}
    assert names <= different, different


@pytest.mark.parametrize("changed", [{}, {"function": str.upper}, {"on_error": "skip"}], ids=str)
def test_functions_and_error_policies_do_not_show(changed: dict[str, Any]) -> None:
    assert texts(**changed) == texts()
