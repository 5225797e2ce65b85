"""Records for the jobs of `jobs/`: by a generator, out of order, with many of a kind."""

import random
from collections.abc import Callable

import orjson

__all__ = ["FROM_MS", "JOBS", "UPDATES", "Row", "Rows"]

FROM_MS = 1_700_000_000_000

Row = tuple[bytes | None, bytes]
Rows = Callable[[random.Random, int], Row]


def bid(rng: random.Random, number: int) -> Row:
    ts = FROM_MS + 200 * number + rng.randrange(-5000, 5000)
    made = {"auction": rng.randrange(20), "bidder": number, "price": rng.randrange(1000), "channel": "c", "url": "u"}
    return None, orjson.dumps({**made, "ts": ts})


def reading(rng: random.Random, number: int) -> Row:
    at = FROM_MS + 700 * number + rng.randrange(-30_000, 30_000)
    return rng.choice([b"roof", b"cellar", b"attic", b"yard"]), orjson.dumps({"celsius": rng.uniform(-9, 30), "at": at})


def line(rng: random.Random, number: int) -> Row:
    return None, " ".join(rng.choices(WORDS, k=rng.randrange(9))).encode()


CUSTOMERS = (b"ada", b"bob", b"cyd", b"dan", b"eve")


def customer(rng: random.Random, number: int) -> Row:
    at = FROM_MS + 500 * number + rng.randrange(-5000, 5000)
    return rng.choice(CUSTOMERS), orjson.dumps({"name": f"name {rng.randrange(50)}", "at": at})


def order(rng: random.Random, number: int) -> Row:
    at = FROM_MS + 500 * number + rng.randrange(-5000, 5000)
    return rng.choice(CUSTOMERS), orjson.dumps({"item": f"item {number}", "cents": rng.randrange(900), "at": at})


JOBS: dict[str, dict[str, Rows]] = {
    "hot_auctions": {"bids": bid},
    "receipts": {"customers": customer, "orders": order},
    "sensor_means": {"readings": reading},
    "word_count": {"lines": line},
}
"""Of each job the topics that it reads."""
WORDS = ("to", "be", "or", "not", "that", "is", "the", "question")
UPDATES = {"accounts", "word_counts"}
"""Topics of which the last value of each key counts."""
