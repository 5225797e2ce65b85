"""The jobs that faults are thrown at: what they write tells what they have read.

`copy` has nothing but an output. Of `ledger`, `echo` has each entry as it came, `folds` a fold in Python over a keyed
source, `totals` built-in aggregates behind a shuffle. Every key, and every group, has its entries in one partition, so
that each result is the fold of a prefix that its own count names.

Topics begin with the job's name, so that each test has its own; where the file is run, STREAMKIT_TEST_LEDGER names it.
"""

import os

import msgspec

from streamkit import Job, agg


class Entry(msgspec.Struct, frozen=True):
    """One input."""

    number: int
    group: str
    amount: int


class Fold(msgspec.Struct, frozen=True):
    """Of the entries of a key so far; the last number makes their order matter."""

    n: int = 0
    sum: int = 0
    low: int = 0
    high: int = 0
    last: int = -1


def fold(so_far: Fold, entry: Entry) -> Fold:
    """Fold one more entry."""
    low, high = (so_far.low, so_far.high) if so_far.n else (entry.amount, entry.amount)
    return Fold(
        n=so_far.n + 1,
        sum=so_far.sum + entry.amount,
        low=min(low, entry.amount),
        high=max(high, entry.amount),
        last=entry.number,
    )


def ledger(name: str) -> Job:
    """Return a job with an output, a store in Python, and a store in columns behind a shuffle."""
    job = Job(name)
    entries = job.stream(f"{name}-entries", key=str, value=Entry)
    entries.to(f"{name}-echo")
    entries.group_by_key().aggregate(fold, initial=Fold, name="folds").to(f"{name}-folds")
    by_group = entries.group_by("group", type=str, name="by_group", shards=3)
    columns = {"n": agg.count(), "sum": agg.sum("amount"), "low": agg.min("amount"), "high": agg.max("amount")}
    by_group.agg(columns, name="totals").to(f"{name}-totals")
    return job


def copy(name: str) -> Job:
    """Return a job that has an output and nothing else."""
    job = Job(name)
    job.stream(f"{name}-entries", key=str, value=Entry).to(f"{name}-echo")
    return job


job = ledger(os.environ.get("STREAMKIT_TEST_LEDGER", "ledger"))
