"""A handler of the wrong type is rejected on the line of its decorator, or of its call.

An ignore that nothing needs is an error under `--strict`: each line below must fail, and with this code.
"""

import operator
from collections.abc import Iterable, Iterator
from datetime import timedelta

from streamkit import AsyncCalls, Context, Job, Record, Table, Tumbling, agg

job = Job("bad")
lines = job.stream("lines", value=str)
numbers = job.stream("numbers", key=str, value=int)


@lines.flat_map  # type: ignore[arg-type]  # must not type-check
def words(line: int) -> Iterable[str]:
    return [str(line)]


@lines.flat_map  # type: ignore[arg-type]  # must not type-check
def lengths(line: str) -> int:
    return len(line)


@lines.map  # type: ignore[arg-type]  # must not type-check
def doubled(line: int) -> int:
    return line * 2


@lines.map  # type: ignore[arg-type]  # must not type-check
async def fetched(line: int) -> int:
    return line


@lines.flat_map  # type: ignore[arg-type]  # must not type-check
async def pages(line: str) -> list[str]:
    return [line]


@lines.filter  # type: ignore[arg-type]  # must not type-check
def long(line: bytes) -> bool:
    return len(line) > 80


@lines.group_by  # type: ignore[arg-type]  # must not type-check
def by_length(line: int) -> int:
    return line


grouped = lines.group_by(str.lower, name="by_text")


@grouped.aggregate(initial=int, merge=operator.add)  # type: ignore[arg-type]  # must not type-check
def counts(total: str, line: str) -> str:
    return total + line


@grouped.aggregate(initial=int)  # type: ignore[arg-type]  # must not type-check
def of_numbers(total: int, line: int) -> int:
    return total + line


@grouped.reduce(name="joined")  # type: ignore[arg-type]  # must not type-check
def joined(one: str, other: int) -> str:
    return one


grouped.window(Tumbling(timedelta(minutes=1), grace=timedelta(0)), emit="sometimes")  # type: ignore[arg-type]  # must not type-check
Tumbling(timedelta(minutes=1))  # type: ignore[call-arg]  # must not type-check
grouped.count()  # type: ignore[call-arg]  # must not type-check
grouped.agg({"n": "count"}, name="n")  # type: ignore[dict-item]  # must not type-check
grouped.agg({"n": agg.max()}, name="n")  # type: ignore[call-arg]  # must not type-check
lines.group_by("text")  # type: ignore[call-overload]  # must not type-check
lines.map(str.upper, key=str)  # type: ignore[call-overload]  # must not type-check
lines.map(str.upper, calls=AsyncCalls())  # type: ignore[arg-type]  # must not type-check
AsyncCalls(10)  # type: ignore[call-arg]  # must not type-check
lines.to()  # type: ignore[call-arg]  # must not type-check
wrong: Table[str, str] = grouped.count(name="counted")  # type: ignore[assignment]  # must not type-check
grouped.count(name="of_updates").to_stream()  # type: ignore[misc]  # must not type-check
numbers.merge(lines)  # type: ignore[arg-type]  # must not type-check
job.stream("untimed", value=str, timestamp=3)  # type: ignore[call-overload]  # must not type-check

customers = job.table("customers", key=str, value=str)
by_number = job.table("by_number", key=int, value=str)


@numbers.join(customers)  # type: ignore[arg-type]  # must not type-check
def swapped(customer: str, number: int) -> str:
    return customer * number


@customers.join(customers)  # type: ignore[arg-type]  # must not type-check
def one_sided(customer: str) -> str:
    return customer


numbers.join(by_number, lambda number, text: text)  # type: ignore[arg-type]  # must not type-check
lines.join(customers, lambda line, text: text)  # type: ignore[arg-type]  # must not type-check
customers.join(by_number, lambda one, other: one)  # type: ignore[arg-type]  # must not type-check
customers.join(numbers, lambda one, other: one)  # type: ignore[call-overload]  # must not type-check
numbers.join(customers, lambda number, text: text, order="time")  # type: ignore[call-overload]  # must not type-check
totals = job.store("totals", key=str, value=int)


@numbers.process(stores=[totals])
def summed(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
    ctx.store(totals).put(number.key, "one")  # type: ignore[arg-type]  # must not type-check
    ctx.store(totals).get(1)  # type: ignore[arg-type]  # must not type-check
    yield number


@numbers.process  # type: ignore[arg-type]  # must not type-check
def of_text(ctx: Context, number: Record[str, str]) -> Iterator[Record[str, int]]:
    yield number.with_value(1)


@numbers.process  # type: ignore[arg-type]  # must not type-check
def without_records(ctx: Context, number: Record[str, int]) -> Iterator[int]:
    yield number.value


@numbers.process  # type: ignore[arg-type]  # must not type-check
def rekeyed(ctx: Context, number: Record[str, int]) -> Iterator[Record[int, int]]:
    yield number.with_key(number.value)


@summed.punctuate(every=timedelta(hours=1))  # type: ignore[arg-type]  # must not type-check
def hourly(ctx: Context, at_ms: int) -> Iterator[Record[str, str]]:
    yield Record(key="all", value="text")


numbers.punctuate(summed.fn, every=timedelta(hours=1))  # type: ignore[attr-defined]  # must not type-check
numbers.process(stores=["totals"])  # type: ignore[list-item]  # must not type-check
