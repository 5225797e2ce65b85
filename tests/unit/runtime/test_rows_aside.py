"""Rows that came through a shuffle and cannot be taken: the policy of their source says what becomes of them."""

from collections.abc import Iterator
from typing import Any

import pytest

from streamkit import Context, Job, Record
from streamkit.errors import ProcessingError
from streamkit.testing import TestDriver


def initial(word: str) -> str:
    return word[0]


def spelled(policy: Any) -> Job:
    """Spell out what came under each initial; digits cannot be spelled."""
    job = Job("spelled", on_error=policy)
    so_far = job.store("so_far", key=str, value=str)

    @job.stream("words", value=str).key_by(initial, shards=2).process(stores=[so_far])
    def spell(ctx: Context, word: Record[str, str]) -> Iterator[Record[str, str]]:
        texts = (ctx.store(so_far).get(word.key) or "") + word.value
        ctx.store(so_far).put(word.key, texts)
        if any(map(str.isdigit, word.value)):
            raise ValueError(f"{word.value} has a digit")
        yield word.with_value(texts)

    spell.to("out")
    return job


@pytest.mark.parametrize("policy", ["fail", "skip", "dead_letter"])
def test_a_row_behind_a_shuffle_is_left_out_with_all_that_its_function_did(policy: Any) -> None:
    with TestDriver(spelled(policy), partitions=2) as driver:
        for number, word in enumerate(["ab", "a1", "ba", "ac", "b2", "ad"]):
            driver.send("words", word, timestamp_ms=number, partition=number % 2)
        if policy == "fail":
            with pytest.raises(ProcessingError, match="a1 has a digit") as caught:
                driver.end()
            assert (caught.value.topic, caught.value.partition, caught.value.offset) == ("words", 1, 0)
            return
        driver.end()
        made = driver.sent("out")
        assert [value for key, value in made if key == "a"] == ["ab", "abac", "abacad"]
        assert [value for key, value in made if key == "b"] == ["ba"]
        if policy == "dead_letter":
            assert sorted(driver.sent("spelled.dead_letter")) == [("a", "a1"), ("b", "b2")]


def test_a_fold_that_fails_on_what_waited_behind_an_unreadable_record_is_skipped_too() -> None:
    job = Job("folded", on_error="skip")
    one = job.stream("one", key=str, value=int)
    two = job.stream("two", key=str, value=int)

    def listed(numbers: list[int], number: int) -> list[int]:
        if number < 0:
            raise ValueError(number)
        return [*numbers, number]

    one.merge(two).group_by_key().aggregate(listed, initial=list[int], name="listed")
    with TestDriver(job) as driver:
        for stamp, value in enumerate([b"{", 1, 2, -3, 4]):
            driver.send("one", value, key="a", timestamp_ms=stamp)
        driver.send("two", 5, key="a", timestamp_ms=9)
        driver.end()
        assert driver.table("listed") == {"a": [1, 2, 4, 5]}
