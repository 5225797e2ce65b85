"""A running count per key by a Python function that is handed each record as a typed struct."""

import msgspec

from streamkit import Job


class Bid(msgspec.Struct):
    """One bid; `ts` is event time in ms since the Unix epoch."""

    auction: int
    bidder: int
    price: int
    channel: str
    url: str
    ts: int


job = Job("auction_counts")
bids = job.stream("bids_keyed", key=int, value=Bid)


@bids.group_by_key().aggregate(initial=int)
def counts(total: int, bid: Bid) -> int:  # noqa: ARG001  # a count looks at no field
    """One more bid of this auction."""
    return total + 1


counts.to("auction_counts")
