"""The test driver itself: what it takes, what it shows, and what it refuses."""

from datetime import timedelta

import msgspec
import polars as pl
import pytest

from streamkit import Job, Tumbling, agg
from streamkit.errors import RowWiseError, UnknownStoreError, UnknownTopicError
from streamkit.records import EncodedRecords, TopicPartition, Windowed
from streamkit.testing import TestDriver, check_merge


class Number(msgspec.Struct):
    n: int


def numbers(name: str = "numbers") -> Job:
    job = Job(name)
    rows = job.stream("rows", key=str, value=int)
    table = rows.group_by_key().reduce(max, name="highest")
    table.map_values(lambda value: value * 10, name="tenfold").filter(lambda value: value > 10, name="large").to("out")
    return job


def test_a_table_is_seen_through_what_comes_after_it() -> None:
    with TestDriver(numbers()) as driver:
        for key, value in (("a", 3), ("a", 2), ("b", 1)):
            driver.send("rows", value, key=key)
        driver.commit()
        assert driver.table("highest") == {"a": 3, "b": 1}
        assert driver.table("tenfold") == {"a": 30, "b": 10}
        assert driver.table("large") == {"a": 30}
        assert driver.sent("out") == [("a", 30), ("b", None)], "what does not pass is deleted"
        assert driver.committed() == {TopicPartition("rows", 0): 3}


def test_a_table_of_windows_has_windowed_keys() -> None:
    job = Job("windows")
    rows = job.stream("rows", key=str, timestamp="ts")
    rows.group_by_key().window(Tumbling(timedelta(seconds=1), grace=timedelta(0))).count(name="counts").to("out")
    with TestDriver(job, partitions={"rows": 2}) as driver:
        driver.send("rows", {"ts": 1_500}, key="a", partition=1)
        driver.commit()
        assert driver.table("counts") == {Windowed("a", 1_000, 2_000): 1}


def test_what_was_not_committed_is_gone_after_a_restart_and_is_read_again() -> None:
    with TestDriver(numbers()) as driver:
        driver.send("rows", 3, key="a")
        driver.commit()
        driver.send("rows", 7, key="a")
        driver.process()
        driver.restart()
        assert driver.table("highest") == {"a": 3}
        driver.commit()
        assert driver.table("highest") == {"a": 7}


def test_names_that_are_not_there_are_refused() -> None:
    with TestDriver(numbers()) as driver:
        with pytest.raises(UnknownTopicError, match="does not read 'other'"):
            driver.send("other", 1)
        with pytest.raises(UnknownTopicError, match="no topic 'other'"):
            driver.sent("other")
        with pytest.raises(UnknownStoreError, match="no table 'rows'"):
            driver.table("rows")


def test_keys_and_values_that_are_no_json_are_shown_as_text_and_none() -> None:
    job = Job("raw")
    job.stream("rows", value=bytes).to("out")
    with TestDriver(job) as driver:
        driver.send("rows", b"plain")
        driver.send("rows", b'{"a": 1}', key="k")
        driver.commit()
        assert driver.sent("out") == [(None, "plain"), ("k", {"a": 1})]


def test_an_expression_that_is_not_row_wise_is_found_by_cutting_its_batch() -> None:
    """`map_batches` is a function: only running it twice shows that it looks at other rows."""

    def shifted(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col("n").cum_sum())

    def above_mean(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("n") >= pl.col("n").mean())

    for fn in (shifted, above_mean):
        job = Job("cut")
        job.stream("rows", value=Number).map_batches(fn).to("out")
        with TestDriver(job) as driver:
            producer = driver.broker.producer()
            values = [b'{"n": %d}' % number for number in (1, 2, 3, 40)]
            records = EncodedRecords.to_append(timestamps_ms=[0] * 4, keys=[None] * 4, values=values)
            producer.send(TopicPartition("rows", 0), records)
            producer.flush()
            with pytest.raises(RowWiseError, match="is not row-wise") as caught:
                driver.process()
            assert caught.value.node == fn.__name__
            assert caught.value.offset == 0


def test_a_merge_that_is_not_commutative_is_found() -> None:
    def step(total: list[int], value: int) -> list[int]:
        return [*total, value]

    with pytest.raises(AssertionError, match="folded apart and merged"):
        check_merge(step, initial=list[int], merge=lambda one, other: one + other, values=[1, 2, 3])
    check_merge(lambda total, value: total + value, initial=int, merge=lambda one, other: one + other, values=[1, 2, 3])


def test_a_merge_is_tried_on_few_values_only() -> None:
    with pytest.raises(AssertionError, match="too many"):
        check_merge(lambda total, value: total, initial=int, merge=max, values=range(7))


def test_the_commit_interval_is_of_fake_time_and_counts_from_the_last_commit() -> None:
    with TestDriver(numbers(), commit_interval=timedelta(seconds=1), guarantee="at-least-once") as driver:
        driver.send("rows", 2, key="a")
        driver.advance(timedelta(milliseconds=900))
        driver.commit()
        driver.send("rows", 3, key="a")
        driver.advance(timedelta(milliseconds=900))
        assert driver.table("highest") == {"a": 3}, "a table shows what was computed"
        assert driver.committed() == {TopicPartition("rows", 0): 1}
        driver.advance(timedelta(milliseconds=100))
        assert driver.committed() == {TopicPartition("rows", 0): 2}


def test_columns_of_a_window_are_counted_over_several_keys() -> None:
    job = Job("sums")
    rows = job.stream("rows", key=str, value=Number)
    rows.group_by_key().agg({"sum": agg.sum("n")}, name="sums").to("out")
    with TestDriver(job) as driver:
        driver.send("rows", {"n": 2}, key="a")
        driver.send("rows", {"n": 5}, key="a")
        driver.commit()
        assert driver.table("sums") == {"a": {"sum": 7}}
