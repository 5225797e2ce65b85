"""The running count per auction as a plain loop over the file: what a person would write without streamkit."""

import sys

import msgspec


class Bid(msgspec.Struct):
    """One bid."""

    auction: int
    bidder: int
    price: int
    channel: str
    url: str
    ts: int


decode = msgspec.json.Decoder(Bid).decode
counts: dict[int, int] = {}
with open(sys.argv[1], "rb") as file:
    for line in file:
        bid = decode(line)
        counts[bid.auction] = counts.get(bid.auction, 0) + 1
print(len(counts), sum(counts.values()), sum(count * count for count in counts.values()))
