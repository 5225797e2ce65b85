"""Count words: map, shuffle, reduce, forever."""

import operator
from collections.abc import Iterable

from streamkit import Job

job = Job("word_count")
lines = job.stream("lines", value=str)


@lines.flat_map
def words(line: str) -> Iterable[str]:
    """Map: a line becomes its words."""
    return line.lower().split()


@words.group_by
def by_word(word: str) -> str:
    """Shuffle: the word becomes the key."""
    return word


@by_word.aggregate(initial=int, merge=operator.add)
def counts(total: int, word: str) -> int:
    """Reduce: one more of this word; partial counts add up before the shuffle."""
    return total + 1


counts.to("word_counts")
