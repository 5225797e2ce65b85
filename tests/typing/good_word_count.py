"""MapReduce, both spellings: every edge has a type, without a plugin."""

import operator
from collections.abc import Callable, Iterable
from typing import Any, assert_type

import polars as pl

from streamkit import Grouped, Job, Stream, Table, agg

job = Job("word_count")
lines = job.stream("lines", value=str)
assert_type(lines, Stream[None, str])


@lines.flat_map
def words(line: str) -> Iterable[str]:
    return line.lower().split()


assert_type(words, Stream[None, str])


@words.group_by
def by_word(word: str) -> str:
    return word


assert_type(by_word, Grouped[str, str])


@by_word.aggregate(initial=int, merge=operator.add)
def counts(total: int, word: str) -> int:
    return total + 1


assert_type(counts, Table[str, int])
counts.to("word_counts")

assert_type(by_word.count(name="counted"), Table[str, int])
assert_type(by_word.reduce(max, name="greatest"), Table[str, str])
assert_type(by_word.agg({"n": agg.count()}, name="columns"), Table[str, dict[str, Any]])


@by_word.reduce(name="longest_word")
def longest(one: str, other: str) -> str:
    return max(one, other, key=len)


assert_type(longest, Table[str, str])


@words.map
def lengths(word: str) -> int:
    return len(word)


assert_type(lengths, Stream[None, int])
assert_type(lengths.peek(print), Stream[None, int])
assert_type(lengths.filter(lambda length: length > 3), Stream[None, int])
assert_type(lengths.branch(lambda length: length > 3), tuple[Stream[None, int], Stream[None, int]])
assert_type(lengths.filter(pl.col("value") > 3), Stream[None, int])
assert_type(lengths.merge(lengths), Stream[None, int])


same: Callable[[str], str] = str
assert_type(words.key_by(same), Stream[str, str])
