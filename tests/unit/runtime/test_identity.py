"""A key function need not be called where all it does is to return what it is handed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamkit import Job
from streamkit.errors import ProcessingError
from streamkit.runtime.operators.identity import returns_its_argument
from streamkit.testing import TestDriver


def documented(word: str) -> str:
    """Say what it is for."""
    return word


def nested() -> Callable[[str], str]:
    def inner(word: str) -> str:
        return word

    return inner


def with_default(word: str, other: str = "") -> str:  # not read is the point
    return word


def starred(*words: str) -> tuple[str, ...]:
    return words


def by_name(*, word: str) -> str:
    return word


def nothing(word: str) -> None:  # not read is the point
    return None


def generating(word: str) -> Iterator[str]:
    yield word


async def waiting(word: str) -> str:
    return word


def captured(word: str) -> Callable[[], str]:
    return lambda: word


class CallableObject:
    def __call__(self, word: str) -> str:
        return word


@pytest.mark.parametrize("fn", [documented, nested(), lambda word: word])
def test_a_function_that_returns_its_argument_is_known(fn: Callable[[Any], Any]) -> None:
    assert returns_its_argument(fn)


@pytest.mark.parametrize(
    "fn",
    [
        with_default,
        starred,
        by_name,
        nothing,
        generating,
        waiting,
        captured,
        CallableObject(),
        str,
        lambda word: word[:],
    ],
)
def test_a_function_that_may_do_more_is_called(fn: Callable[[Any], Any]) -> None:
    assert not returns_its_argument(fn)


@pytest.mark.parametrize("key", [documented, lambda word: word[:]])
def test_values_that_are_their_keys_are_folded_like_any_others(key: Callable[[str], str]) -> None:
    job = Job("words")
    counted = job.stream("words", value=str).group_by(key, type=str, name="by_word")
    counts = counted.aggregate(lambda total, word: total + len(word), initial=int, merge=int.__add__, name="counts")
    counts.to("counts")
    with TestDriver(job) as driver:
        for word in ("to", "be", "or", "to"):
            driver.send("words", word)
        driver.commit()
        assert driver.table(counts) == {"to": 4, "be": 2, "or": 2}


def test_the_error_of_a_fold_names_the_record_where_values_are_their_keys() -> None:
    def add(total: int, word: str) -> int:
        return total + {"to": 1, "be": 1}[word]

    job = Job("words")
    by_word = job.stream("words", value=str).group_by(documented, type=str, name="by_word")
    by_word.aggregate(add, initial=int, merge=int.__add__, name="counts").to("counts")
    with TestDriver(job) as driver:
        for word in ("to", "be", "or", "to"):
            driver.send("words", word)
        with pytest.raises(ProcessingError) as raised:
            driver.commit()
    assert raised.value.offset == 2
