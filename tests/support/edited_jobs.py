"""Jobs before and after an edit, for what a topology lock says of it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl

from streamkit import EventTime, Hopping, Job, Tumbling, agg
from streamkit.graph.nodes import Order


class Bid(msgspec.Struct):
    auction: int
    price: int
    at: int


class FloatBid(msgspec.Struct):
    auction: int
    price: float
    at: int


class More(msgspec.Struct):
    count: int = 0
    best: int = 0


class Less(msgspec.Struct):
    count: int = 0


def second(value: int) -> timedelta:
    return timedelta(seconds=value)


TEN_SECONDS = Tumbling(second(10), grace=second(0))


def edited(
    *,
    name: str = "edited",
    before: str = "",
    after: str = "",
    store: str = "hot",
    by: str = "by_auction",
    bid: type = Bid,
    key: Any = "auction",
    shards: int = 2,
    best: Any = None,
    window: Tumbling | Hopping | None = TEN_SECONDS,
    emit: Any = "final",
    slack: int = 0,
    at: Any = "at",
    out: str = "out",
    between: bool = False,
    merged: bool = False,
) -> Job:
    """Return a job with one windowed store behind one shuffle, changed in what is said."""
    job = Job(name)
    if before:
        job.stream(before, value=str).to(f"{before}_out")
    bids: Any = job.stream("bids", value=bid, timestamp=EventTime(at, out_of_orderness=second(slack)))
    if merged:
        bids = bids.merge(job.stream("others", value=bid, timestamp="at"))
    if between:
        bids = bids.filter(pl.col("price") > 0)
    group = bids.group_by(key, type=int, name=by, shards=shards)
    group = group if window is None else group.window(window, emit=emit)
    group.agg({"best": best or agg.max("price")}, name=store).to(out)
    if after:
        job.stream(after, value=str).to(f"{after}_out")
    return job


def folded(kind: type) -> Job:
    job = Job("folded")
    bids = job.stream("bids", key=int, value=Bid)
    bids.group_by_key().aggregate(lambda total, _: total, initial=kind, name="totals").to("out")
    return job


def with_store(source: str) -> Job:
    job = edited(after="others")
    words = job.stream("words", value=str) if source == "words" else None
    if words is not None:
        words.group_by(str, name="by_word").count(name="words_seen").to("seen")
    return job


def twice_grouped(*names: str) -> Job:
    job = Job("twice")
    words = job.stream("words", value=str)
    for name in names:
        words.group_by(str, name=f"by_{name}").count(name=name).to("out")
    return job


def unmerged(*, together: bool) -> Job:
    job = Job("pair")
    one, other = job.stream("one", value=str), job.stream("other", value=str)
    if together:
        one.merge(other).to("out")
    else:
        one.to("out")
        other.to("out")
    return job


def with_join(*, table: str = "customers", order: Order = "log", value: type = int, join: bool = True) -> Job:
    """Return a job with a stream that meets a table, changed in what is said."""
    job = Job("joining")
    tables = {name: job.table(name, key=str, value=value) for name in ("customers", "others")}
    orders = job.stream("orders", key=str, value=int)
    orders.to("copied")
    if join:
        orders.join(tables[table], lambda one, other: one, order=order, name="receipts").to("receipts")
    return job


SAFE: dict[str, Callable[[], tuple[Job, Job]]] = {
    "a node between": lambda: (edited(), edited(between=True)),
    "a source after the others": lambda: (edited(), edited(after="more")),
    "a source less": lambda: (edited(after="more"), edited()),
    "another sink": lambda: (edited(), edited(out="elsewhere")),
    "less grace": lambda: (edited(window=Tumbling(second(10), grace=second(5))), edited()),
    "other emission": lambda: (edited(), edited(emit="update")),
    "less out-of-orderness": lambda: (edited(slack=5), edited(slack=2)),
    "more out-of-orderness without windows": lambda: (edited(window=None), edited(window=None, slack=2)),
    "another timestamp without windows": lambda: (edited(window=None), edited(window=None, at="price")),
    "a new source merged": lambda: (edited(), edited(merged=True)),
    "a store of a new source": lambda: (edited(after="others"), with_store("words")),
}
