"""Punctuation: calls that event time makes, before the record that brings it, once, whatever is cut or crashes."""

import itertools
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from number_jobs import Numbers, numbers, running, send

from streamkit import Context, Job, Processed, Record
from streamkit.errors import PunctuationError
from streamkit.runtime.operators.process import ProcessOperator
from streamkit.runtime.position import Position
from streamkit.testing import TestDriver

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000


def ticking(job: Job, rows: Numbers, every: timedelta = HOUR) -> Processed[str, Any]:
    """Pass numbers on, and say when event time passed a multiple."""

    @rows.process
    def passed(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
        yield number

    @passed.punctuate(every=every, on="event_time")
    def fired(ctx: Context, at_ms: int) -> Iterator[Record[str, int]]:
        yield Record(key="fired", value=at_ms)

    return passed


def fires(*stamps: int, every: timedelta = HOUR) -> list[tuple[str, int, int]]:
    job = Job("fires")
    ticking(job, numbers(job), every).to("out")
    with TestDriver(job) as driver:
        send(driver, *(("row", 0, stamp) for stamp in stamps))
        driver.commit()
        return driver.sent_records("out")


def fired_before(*stamps: int, every: timedelta = HOUR) -> list[tuple[int, int | None]]:
    """Return each punctuation with the timestamp of the row that it came before."""
    rows = fires(*stamps, every=every)
    return [
        (value, next((stamp for key, _, stamp in rows[index:] if key == "row"), None))
        for index, (key, value, stamp) in enumerate(rows)
        if key == "fired"
    ]


def test_a_punctuation_comes_before_the_first_row_that_reaches_or_passes_a_multiple() -> None:
    assert fired_before(HOUR_MS - 1, HOUR_MS) == [(HOUR_MS, HOUR_MS)]
    assert fired_before(HOUR_MS - 1, HOUR_MS + 7, HOUR_MS + 8) == [(HOUR_MS, HOUR_MS + 7)]
    assert fired_before(5, HOUR_MS - 1) == []


def test_the_first_row_only_sets_the_schedule() -> None:
    assert fired_before(HOUR_MS) == []
    assert fired_before(HOUR_MS, 2 * HOUR_MS - 1) == []


def test_a_leap_over_several_multiples_calls_once_for_the_latest() -> None:
    assert fired_before(1, 5 * HOUR_MS + 3) == [(5 * HOUR_MS, 5 * HOUR_MS + 3)]


def test_time_does_not_go_back_with_a_row_that_does() -> None:
    assert fired_before(HOUR_MS - 1, HOUR_MS, 3, HOUR_MS, 2 * HOUR_MS) == [
        (HOUR_MS, HOUR_MS),
        (2 * HOUR_MS, 2 * HOUR_MS),
    ]


def test_multiples_are_counted_from_the_epoch_before_it_too() -> None:
    assert [at for at, _ in fired_before(-HOUR_MS - 1, -HOUR_MS, -1, 0)] == [-HOUR_MS, 0]


def test_its_outputs_bear_the_multiple_unless_they_say_another_timestamp() -> None:
    rows = fires(1, HOUR_MS + 5)
    assert rows == [("row", 0, 1), ("fired", HOUR_MS, HOUR_MS), ("row", 0, HOUR_MS + 5)]
    job = Job("said")
    passed = ticking(job, numbers(job))
    passed.punctuate(lambda ctx, at_ms: [Record(key="said", value=0, timestamp_ms=at_ms - 1)], every=HOUR)
    passed.to("out")
    with TestDriver(job) as driver:
        send(driver, ("row", 0, 1), ("row", 0, HOUR_MS))
        driver.commit()
        assert driver.sent_records("out")[2] == ("said", 0, HOUR_MS - 1)


def test_several_punctuations_before_one_row_come_by_their_time_then_as_they_are_written() -> None:
    job = Job("several")

    @numbers(job).process
    def passed(ctx: Context, number: Record[str, int]) -> None:
        """Yield nothing."""

    for name, minutes in (("a", 60), ("b", 20), ("c", 60)):
        passed.punctuate(
            lambda ctx, at_ms, name=name: [Record(key=name, value=at_ms)], every=timedelta(minutes=minutes)
        )
    passed.to("out")
    with TestDriver(job) as driver:
        send(driver, ("row", 0, 1), ("row", 0, HOUR_MS + HOUR_MS // 2))
        driver.commit()
        assert [key for key, _ in driver.sent("out")] == ["a", "c", "b"]


def test_a_punctuation_shares_the_stores_of_its_process() -> None:
    job = Job("shared")
    totals, summed = running(job, numbers(job))

    @summed.punctuate(every=HOUR)
    def reset(ctx: Context, at_ms: int) -> Iterator[Record[str, int]]:
        for key, total in ctx.store(totals).items():
            yield Record(key=key, value=-total)
            ctx.store(totals).delete(key)

    summed.to("out")
    with TestDriver(job) as driver:
        send(driver, ("a", 1, 1), ("b", 2, 2), ("a", 3, HOUR_MS))
        driver.commit()
        assert driver.sent("out") == [("a", 1), ("b", 2), ("a", -1), ("b", -2), ("a", 3)]
        assert driver.store(totals) == {"a": 3}


def test_the_end_of_input_calls_nothing() -> None:
    job = Job("ends")
    ticking(job, numbers(job)).to("out")
    with TestDriver(job) as driver:
        send(driver, ("row", 0, HOUR_MS - 1))
        driver.end()
        assert driver.sent("out") == [("row", 0)]
        send(driver, ("row", 0, HOUR_MS))
        driver.commit()
        assert [key for key, _ in driver.sent("out")] == ["row", "fired", "row"]


def test_each_task_has_a_time_of_its_own() -> None:
    job = Job("partitions")
    ticking(job, numbers(job)).to("out")
    with TestDriver(job, partitions=2) as driver:
        send(driver, ("row", 0, 1), ("row", 0, HOUR_MS))
        send(driver, ("row", 0, 5 * HOUR_MS), partition=1)
        driver.commit()
        assert [value for key, value in driver.sent("out") if key == "fired"] == [HOUR_MS]


def test_a_punctuation_that_fails_stops_the_run_whatever_the_policy_and_names_the_record_it_came_before() -> None:
    """Were the record left out, the function would fail before the next one, and so through all of them."""
    job = Job("failing", on_error="skip")
    passed = ticking(job, numbers(job))

    @passed.punctuate(every=HOUR)
    def failing(ctx: Context, at_ms: int) -> None:
        raise ZeroDivisionError

    passed.to("out")
    with TestDriver(job) as driver:
        send(driver, ("row", 0, 1), ("row", 0, HOUR_MS))
        with pytest.raises(PunctuationError, match="failing at 3600000: ZeroDivisionError") as caught:
            driver.process()
        assert (caught.value.offset, caught.value.node) == (1, "passed")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_record_that_is_left_out_moves_no_time() -> None:
    job = Job("lenient", on_error="skip")

    @numbers(job).process
    def positive(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
        if number.value < 0:
            raise ValueError(number.value)
        yield number

    positive.punctuate(lambda ctx, at_ms: [Record(key="fired", value=at_ms)], every=HOUR)
    positive.to("out")
    with TestDriver(job) as driver:
        send(driver, ("row", 1, 1), ("row", -1, HOUR_MS), ("row", 2, HOUR_MS - 1), ("row", 3, 2 * HOUR_MS))
        driver.commit()
        assert driver.sent("out") == [("row", 1), ("row", 2), ("fired", 2 * HOUR_MS), ("row", 3)]


stamps = st.lists(st.integers(0, 200), min_size=1, max_size=12)


@pytest.mark.slow
@given(stamps, st.data())
def test_no_cut_of_the_batches_no_commit_and_no_crash_shows_in_what_is_fired(
    times: list[int], data: st.DataObject
) -> None:
    """Two nodes that share a store, and punctuations: everything at once, and cut anywhere with restarts between."""

    def ran(actions: Sequence[str]) -> tuple[object, object]:
        job = Job("cuts")
        rows = numbers(job)
        totals, summed = running(job, rows)
        passed = ticking(job, summed, timedelta(milliseconds=20))

        @passed.process(stores=[totals])
        def halved(ctx: Context, number: Record[str, int]) -> Iterator[Record[str, int]]:
            half = (ctx.store(totals).get(number.key) or 0) // 2
            ctx.store(totals).put(number.key, half)
            yield number.with_value(half)

        halved.to("out")
        with TestDriver(job) as driver:
            for time, action in itertools.zip_longest(times, actions, fillvalue="go on"):
                driver.send("numbers", int(time) + 1, key="ab"[int(time) % 2], timestamp_ms=int(time))
                if action != "go on":
                    getattr(driver, str(action))()
            driver.commit()
            return driver.sent_records("out"), driver.store(totals)

    drawn = st.sampled_from(["go on", "process", "commit", "restart"])
    actions = data.draw(st.lists(drawn, min_size=len(times), max_size=len(times)))
    assert ran(actions) == ran([])


def test_a_position_without_stream_times_is_read_as_one_of_before_there_were_any() -> None:
    old = Position(transaction=3)
    assert "t" not in old.to_json()
    assert Position.from_json(old.to_json()) == old
    new = Position(transaction=3, stream_times_ms={"passed": 7})
    assert Position.from_json(new.to_json()) == new


def test_a_task_with_a_process_takes_turns_with_others_that_run_python() -> None:
    job = Job("plain")
    numbers(job).process(lambda ctx, number: [number], name="same").to("out")
    with TestDriver(job) as driver:
        (runner,) = driver._runners  # the plan is nobody's but the task's
        assert runner.plan.in_python


def test_a_job_whose_nodes_have_no_punctuation_keeps_no_times() -> None:
    job = Job("plain")
    _, summed = running(job, numbers(job))
    summed.to("out")
    with TestDriver(job) as driver:
        send(driver, ("a", 1, 1))
        driver.commit()
        (runner,) = driver._runners  # the position is nobody's but the task's
        assert runner._position.stream_times_ms == {}  # the same
        assert all(isinstance(one, ProcessOperator) for one in runner.task._parts.processes)  # the same
