"""The hot auctions over a topic that is keyed by auction: nothing is shuffled."""

from datetime import timedelta

import msgspec

from streamkit import Job, Tumbling, agg


class Bid(msgspec.Struct):
    """One bid; `ts` is event time in ms since the Unix epoch."""

    auction: int
    bidder: int
    price: int
    channel: str
    url: str
    ts: int


job = Job("keyed_auctions")
bids = job.stream("bids_keyed", key=int, value=Bid, timestamp="ts")

hot = (
    bids.group_by_key()
    .window(Tumbling(timedelta(seconds=10), grace=timedelta(0)), emit="final")
    .agg({"bids": agg.count(), "best": agg.max("price")}, name="hot")
)
hot.to("keyed_auctions")
