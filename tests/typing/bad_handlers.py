"""A handler of the wrong type is rejected on the line of its decorator, or of its call."""

import operator
from collections.abc import Iterable
from datetime import timedelta

from streamkit import Job, Table, Tumbling, agg

job = Job("bad")
lines = job.stream("lines", value=str)
numbers = job.stream("numbers", key=str, value=int)


@lines.flat_map  # error: arg-type
def words(line: int) -> Iterable[str]:
    return [str(line)]


@lines.flat_map  # error: arg-type
def lengths(line: str) -> int:
    return len(line)


@lines.map  # error: arg-type
def doubled(line: int) -> int:
    return line * 2


@lines.filter  # error: arg-type
def long(line: bytes) -> bool:
    return len(line) > 80


@lines.group_by  # error: arg-type
def by_length(line: int) -> int:
    return line


grouped = lines.group_by(str.lower, name="by_text")


@grouped.aggregate(initial=int, merge=operator.add)  # error: arg-type
def counts(total: str, line: str) -> str:
    return total + line


@grouped.aggregate(initial=int)  # error: arg-type
def of_numbers(total: int, line: int) -> int:
    return total + line


@grouped.reduce(name="joined")  # error: arg-type
def joined(one: str, other: int) -> str:
    return one


grouped.window(Tumbling(timedelta(minutes=1), grace=timedelta(0)), emit="sometimes")  # error: arg-type
Tumbling(timedelta(minutes=1))  # error: call-arg
grouped.count()  # error: call-arg
grouped.agg({"n": "count"}, name="n")  # error: dict-item
grouped.agg({"n": agg.max()}, name="n")  # error: call-arg
lines.group_by("text")  # error: call-overload
lines.map(str.upper, key=str)  # error: call-arg
lines.to()  # error: call-arg
wrong: Table[str, str] = grouped.count(name="counted")  # error: assignment
grouped.count(name="of_updates").to_stream()  # error: misc
numbers.merge(lines)  # error: arg-type
job.stream("untimed", value=str, timestamp=3)  # error: call-overload
