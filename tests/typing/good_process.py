"""`process`: stores, records and what is yielded are typed, without a cast."""

from collections.abc import Iterator
from datetime import timedelta
from typing import assert_type

import msgspec

from streamkit import Context, Job, KeyValueStore, Processed, Record, Store, Table


class Order(msgspec.Struct):
    id: str
    item: str


job = Job("receipts")
orders = job.stream("orders", key=str, value=Order)
unkeyed = job.stream("unkeyed", value=Order)
seen = job.store("seen", key=str, value=int)


@orders.process(stores=[seen])
def first_seen(ctx: Context, order: Record[str, Order]) -> Iterator[Record[str, Order]]:
    ids = ctx.store(seen)
    assert_type(ids, KeyValueStore[str, int])
    assert_type(ids.get(order.value.id), int | None)
    if ids.get(order.value.id) is None:
        ids.put(order.value.id, order.timestamp_ms)
        yield order


@first_seen.punctuate(every=timedelta(hours=1), on="event_time")
def hourly(ctx: Context, at_ms: int) -> Iterator[Record[str, Order]]:
    for key, since_ms in ctx.store(seen).items(end="m"):
        assert_type((key, since_ms), tuple[str, int])
        yield Record(key=key, value=Order(key, "again"))


@orders.process
def lengths(ctx: Context, order: Record[str, Order]) -> list[Record[str, int]] | None:
    return [order.with_value(len(order.value.item)), Record(key=order.key, value=0)] if order.value.item else None


@orders.process(rekeys=True)
def by_length(ctx: Context, order: Record[str, Order]) -> Iterator[Record[int, Order]]:
    yield order.with_key(len(order.value.item))


@unkeyed.process
def same(ctx: Context, order: Record[None, Order]) -> Iterator[Record[None, Order]]:
    yield order


def remember(ctx: Context, order: Record[str, Order]) -> None:
    ctx.store(seen).put(order.value.id, order.timestamp_ms)


orders.process(remember, stores=[seen])

assert_type(seen, Store[str, int])
assert_type(first_seen, Processed[str, Order])
assert_type(lengths, Processed[str, int])
assert_type(by_length, Processed[int, Order])
assert_type(same, Processed[None, Order])
assert_type(lengths.group_by_key().count(name="of_lengths"), Table[str, int])
