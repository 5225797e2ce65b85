"""The hot auctions of bids that come up to 3 s after a later one: none is late."""

from datetime import timedelta

import msgspec

from streamkit import EventTime, Job, Tumbling, agg


class Bid(msgspec.Struct):
    """One bid; `ts` is event time in ms since the Unix epoch."""

    auction: int
    bidder: int
    price: int
    channel: str
    url: str
    ts: int


class Hot(msgspec.Struct):
    """What is known of an auction in one window."""

    bids: int
    best: int


job = Job("jumbled_auctions")
bids = job.stream("bids", value=Bid, timestamp=EventTime("ts", out_of_orderness=timedelta(seconds=3)))

hot = (
    bids.group_by("auction", type=int, name="by_auction")
    .window(Tumbling(timedelta(seconds=10), grace=timedelta(0)), emit="final")
    .agg({"bids": agg.count(), "best": agg.max("price")}, name="hot")
    .typed(Hot)
)
hot.to("hot_auctions")
