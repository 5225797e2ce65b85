"""The columnar spelling: `.typed` gives the frame's rows their type back."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import msgspec
import polars as pl

from streamkit import EventTime, Grouped, Hopping, Job, Stream, Table, Tumbling, Windowed, WindowedGroup, agg


class Bid(msgspec.Struct):
    auction: int
    price: int
    ts: int


class Hot(msgspec.Struct):
    bids: int
    best: int


def stamp(bid: Bid) -> int:
    return bid.ts


def moment(bid: Bid) -> datetime:
    return datetime.fromtimestamp(bid.ts / 1000, tz=UTC)


job = Job("hot_auctions")
bids = job.stream("bids", value=Bid, timestamp="ts")
assert_type(bids, Stream[None, Bid])
assert_type(job.stream("stamped", value=Bid, timestamp=stamp), Stream[None, Bid])
assert_type(job.stream("moments", key=int, value=Bid, timestamp=moment), Stream[int, Bid])
assert_type(job.stream("slow", value=Bid, timestamp=EventTime("ts")), Stream[None, Bid])
assert_type(job.stream("untyped"), Stream[None, Any])
assert_type(job.stream("keyed", key=str), Stream[str, Any])

grouped = bids.group_by("auction", type=int, name="by_auction")
assert_type(grouped, Grouped[int, Bid])
assert_type(bids.group_by(pl.col("auction") % 10, type=int, name="by_digit"), Grouped[int, Bid])
assert_type(bids.group_by("auction", name="by_any"), Grouped[Any, Bid])
windows = grouped.window(Tumbling(timedelta(seconds=10), grace=timedelta(0)), emit="final")
assert_type(windows, WindowedGroup[int, Bid])
rows = windows.agg({"bids": agg.count(), "best": agg.max("price")}, name="rows")
assert_type(rows, Table[Windowed[int], dict[str, Any]])
hot = rows.typed(Hot)
assert_type(hot, Table[Windowed[int], Hot])
hot.to("hot_auctions")
assert_type(hot.to_stream(), Stream[int, Hot])
assert_type(windows.count(name="counted"), Table[Windowed[int], int])
assert_type(windows.late, Stream[int, Bid])
hops = grouped.window(Hopping(timedelta(seconds=10), advance=timedelta(seconds=5), grace=timedelta(0)))
assert_type(hops, WindowedGroup[int, Bid])
lists = {"top": agg.top_k("price", 3), "all": agg.collect("price"), "kinds": agg.distinct("price", approx=True)}
assert_type(hops.agg(lists, name="lists"), Table[Windowed[int], dict[str, Any]])

assert_type(bids.select("auction", pl.col("price") * 2), Stream[None, dict[str, Any]])
assert_type(bids.with_columns(pl.col("price") * 2), Stream[None, dict[str, Any]])
assert_type(bids.map_batches(lambda frame: frame.select("auction")), Stream[None, dict[str, Any]])
assert_type(bids.key_by("auction", type=int, name="keyed_by_auction"), Stream[int, Bid])
