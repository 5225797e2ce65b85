"""An async function of a map: the rows are what it returns once awaited, in each of the ways to say it."""

from datetime import timedelta
from typing import Any, assert_type

from streamkit import AsyncCalls, Job, Stream

job = Job("lookups")
names = job.stream("names", key=str, value=str)


@names.map
async def length(name: str) -> int:
    return len(name)


@names.map(calls=AsyncCalls(at_once=20, deadline=timedelta(seconds=5), attempts=3, backoff=timedelta(seconds=1)))
async def found(name: str) -> bytes | None:
    return name.encode() or None


async def ratio(name: str) -> float:
    return len(name) / 2


def anything(name: str) -> Any:
    return name


assert_type(length, Stream[str, int])
assert_type(found, Stream[str, bytes | None])
assert_type(names.map(ratio, calls=AsyncCalls(attempts=2), name="told"), Stream[str, float])
assert_type(names.map(anything), Stream[str, Any])
assert_type(names.map(lambda name: {"name": name}), Stream[str, dict[str, str]])
