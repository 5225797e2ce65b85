"""Numbers by key: a job's stream of them, records for a driver, and a running total that `process` keeps."""

from collections.abc import Iterator
from typing import Any

from streamkit import Context, Job, Processed, Record, Store, Stream
from streamkit.testing import TestDriver

Numbers = Stream[str, int]


def numbers(job: Job) -> Numbers:
    return job.stream("numbers", key=str, value=int)


def running(job: Job, rows: Numbers) -> tuple[Store[str, int], Processed[str, int]]:
    """Return a running total by key, and its store."""
    totals = job.store("totals", key=str, value=int)

    @rows.process(stores=[totals])
    def summed(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
        total = (ctx.store(totals).get(number.key) or 0) + number.value
        ctx.store(totals).put(number.key, total)
        yield number.with_value(total)

    return totals, summed


def send(driver: TestDriver, *records: tuple[str, Any, int], partition: int = 0) -> None:
    for key, value, stamp in records:
        driver.send("numbers", value, key=key, timestamp_ms=stamp, partition=partition)
