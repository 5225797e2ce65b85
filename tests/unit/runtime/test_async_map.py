"""An async function over a batch: the same answer as a plain one, whatever overlaps; and the errors it can end in."""

import asyncio
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any

import pytest
from batches import batch_of
from hypothesis import given
from hypothesis import strategies as st

from streamkit import AsyncCalls, Job
from streamkit.errors import ProcessingError, SerializationError, TaskMigratedError
from streamkit.graph import Map
from streamkit.records import Batch
from streamkit.runtime.coroutines import Coroutines
from streamkit.runtime.operators.async_map import async_map
from streamkit.seams import ManualClock, ManualEventLoop, ThreadEventLoop
from streamkit.serde import key_serde, value_serde
from streamkit.testing import TestDriver
from streamkit.topology import NodePlan

Fn = Callable[[Any], Coroutine[Any, Any, Any]]

ROWS = st.lists(st.tuples(st.sampled_from([None, b"a", b"b", b"c"]), st.integers(0, 5)), min_size=1, max_size=20)
"""Key, and how many steps of the loop its call takes."""

PLAN = NodePlan(spelling="python", schema=None, key_type=None, value_type=int)


class Calls:
    """Runs an async function over batches, on a manual clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.loop = ManualEventLoop(self.clock)

    def __call__(self, fn: Fn, batch: Batch, **how: Any) -> list[Any]:
        node = Map(name="asked", fn=fn, calls=AsyncCalls(**how))
        return async_map(node, PLAN, Coroutines(self.loop))(batch).values.objects()


@pytest.fixture
def calls() -> Iterator[Calls]:
    made = Calls()
    yield made
    made.loop.close()


@pytest.fixture(scope="module")
def of_all() -> Iterator[Calls]:
    made = Calls()
    yield made
    made.loop.close()


def numbered(keys: list[bytes | None]) -> Batch:
    return batch_of(
        key_serde(None),
        keys,
        value_serde(int),
        list(range(len(keys))),
        offsets=[40 + index for index in range(len(keys))],
    )


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


# Order


@given(rows=ROWS, at_once=st.integers(1, 6))
def test_results_are_those_of_the_plain_function_in_the_order_of_the_rows(
    of_all: Calls, rows: list[tuple[bytes | None, int]], at_once: int
) -> None:
    async def squared(index: int) -> int:
        await asyncio.sleep(rows[index][1])
        return index * index

    batch = numbered([key for key, _ in rows])
    assert of_all(squared, batch, at_once=at_once) == [index * index for index in range(len(rows))]


@given(rows=ROWS, at_once=st.integers(1, 6))
def test_rows_of_one_key_follow_each_other_and_no_more_are_under_way_than_allowed(
    of_all: Calls, rows: list[tuple[bytes | None, int]], at_once: int
) -> None:
    under_way: set[int] = set()
    begun: dict[bytes | None, list[int]] = defaultdict(list)

    async def watched(index: int) -> int:
        key = rows[index][0]
        assert key is None or key not in {rows[other][0] for other in under_way}
        under_way.add(index)
        begun[key].append(index)
        assert len(under_way) <= at_once
        await asyncio.sleep(rows[index][1])
        under_way.remove(index)
        return index

    of_all(watched, numbered([key for key, _ in rows]), at_once=at_once)
    for key, indices in begun.items():
        assert indices == [index for index, row in enumerate(rows) if row[0] == key]


def test_rows_of_different_keys_and_rows_without_one_wait_together(calls: Calls) -> None:
    async def slow(index: int) -> int:
        await asyncio.sleep(1)
        return index

    calls(slow, numbered([None] * 50 + [b"%d" % index for index in range(50)]), at_once=100)
    assert calls.clock.now_ms() == 1000
    calls(slow, numbered([b"one"] * 3 + [b"other"] * 2), at_once=100)
    assert calls.clock.now_ms() == 4000


# Errors


@given(rows=ROWS, at_once=st.integers(1, 6), bad=st.sets(st.integers(0, 19), min_size=1))
def test_the_error_is_of_the_first_record_that_fails_whatever_overlaps(
    of_all: Calls, rows: list[tuple[bytes | None, int]], at_once: int, bad: set[int]
) -> None:
    async def picky(index: int) -> int:
        await asyncio.sleep(rows[index][1])
        if index in bad:
            raise ValueError(f"not {index}")
        return index

    batch, failing = numbered([key for key, _ in rows]), [index for index in range(len(rows)) if index in bad]
    if not failing:
        assert of_all(picky, batch, at_once=at_once) == list(range(len(rows)))
        return
    with pytest.raises(ProcessingError, match=rf"ValueError: not {failing[0]}\n") as raised:
        of_all(picky, batch, at_once=at_once)
    error = raised.value
    assert (error.topic, error.partition, error.offset, error.node) == ("source", 0, 40 + failing[0], "asked")
    assert isinstance(error.__cause__, ValueError)


def test_calls_behind_a_failed_one_are_cancelled_and_those_before_it_end(calls: Calls) -> None:
    ended: list[int] = []
    cancelled: list[int] = []

    async def one_fails(index: int) -> int:
        if index == 1:
            raise ValueError("no")
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cancelled.append(index)
            raise
        ended.append(index)
        return index

    with pytest.raises(ProcessingError):
        calls(one_fails, numbered([None] * 5), at_once=4)
    assert ended == [0]
    assert cancelled == [2, 3], "the last one was never called"


def test_a_record_beyond_its_deadline_is_an_error_that_says_what_to_do(calls: Calls) -> None:
    closed: list[int] = []

    async def hangs(index: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(index)
        return index

    with pytest.raises(ProcessingError, match="TimeoutError: no result within 2,500 ms") as raised:
        calls(hangs, numbered([b"k"]), deadline=seconds(2.5))
    assert "deadline=" in raised.value.hint
    assert raised.value.offset == 40
    assert closed == [0]
    assert calls.clock.now_ms() == 2500


def test_a_call_that_does_not_let_itself_be_cancelled_holds_nobody_up(calls: Calls) -> None:
    async def stubborn(index: int) -> int:
        while True:
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                continue
            return index

    with pytest.raises(ProcessingError, match="no result within 1,000 ms"):
        calls(stubborn, numbered([b"k"]), deadline=seconds(1))
    assert calls.clock.now_ms() == 2000


def test_a_deadline_does_not_run_while_a_record_waits_for_its_turn(calls: Calls) -> None:
    async def slow(index: int) -> int:
        await asyncio.sleep(0.9)
        return index

    assert calls(slow, numbered([b"k"] * 4), deadline=seconds(1)) == [0, 1, 2, 3]
    assert calls(slow, numbered([None] * 4), deadline=seconds(1), at_once=1) == [0, 1, 2, 3]


def test_a_coroutine_that_cancels_itself_is_an_error_of_its_record(calls: Calls) -> None:
    async def gives_up(index: int) -> int:
        raise asyncio.CancelledError

    with pytest.raises(ProcessingError, match="was cancelled, and not by streamkit"):
        calls(gives_up, numbered([b"k"]))


def test_what_ends_a_process_is_raised_where_the_batch_is_waited_for() -> None:
    """Not on the loop's thread: that would end, and everybody wait for ever."""

    async def leaves(index: int) -> int:
        raise SystemExit(3)

    loop = ThreadEventLoop()
    step = async_map(Map(name="asked", fn=leaves, calls=AsyncCalls(attempts=5)), PLAN, Coroutines(loop))
    for _ in range(2):
        with pytest.raises(SystemExit) as raised:
            step(numbered([b"k"]))
        assert raised.value.code == 3
    loop.close()


def test_a_key_that_is_not_of_its_type_is_an_error_of_its_record(calls: Calls) -> None:
    async def same(value: int) -> int:
        return value

    batch = batch_of(key_serde(int), [1, 2**80], value_serde(int), [1, 2], offsets=[5, 6])
    with pytest.raises(SerializationError) as raised:
        calls(same, batch)
    assert raised.value.offset == 6


def test_a_lambda_that_returns_a_coroutine_is_told_to_be_async() -> None:
    """Nothing but its result says so: it is found at the first batch, and no coroutine is left behind unawaited."""

    async def doubled(number: int) -> int:
        return number * 2

    job = Job("asking")
    job.stream("numbers", value=int).map(lambda number: doubled(number)).to("out")
    with TestDriver(job) as driver:
        driver.send("numbers", 1)
        driver.send("numbers", 2)
        with pytest.raises(ProcessingError, match="returned a coroutine") as raised:
            driver.commit()
        assert "async def" in raised.value.hint


# Attempts


def test_a_failed_call_is_made_again_after_pauses_that_double(calls: Calls) -> None:
    made: list[tuple[int, int]] = []

    async def flaky(index: int) -> int:
        made.append((index, calls.clock.now_ms()))
        if len(made) < 8:
            raise ConnectionError("reset")
        return index

    assert calls(flaky, numbered([b"k", b"k"]), attempts=8, backoff=seconds(1), deadline=seconds(3600)) == [0, 1]
    moments = [ms for index, ms in made if index == 0]
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert len(pauses) == 7
    for number, pause in enumerate(pauses):
        assert 500 * 2**number <= pause <= 1000 * 2**number + 1
    assert made[-1][0] == 1


def test_records_that_fail_together_do_not_come_back_together_but_each_time_alike(calls: Calls) -> None:
    def moments() -> list[int]:
        seen: dict[int, int] = {}
        began = calls.clock.now_ms()

        async def flaky(index: int) -> int:
            if index in seen:
                seen[index] = calls.clock.now_ms() - began
                return index
            seen[index] = -1
            raise ConnectionError("reset")

        calls(flaky, numbered([None] * 20), attempts=2, backoff=seconds(10))
        return list(seen.values())

    first = moments()
    assert len(set(first)) > 15
    assert min(first) >= 5000
    assert max(first) <= 10_001
    assert moments() == first


def test_the_last_attempt_says_how_many_there_were(calls: Calls) -> None:
    async def refused(index: int) -> int:
        raise ConnectionError("refused")

    with pytest.raises(ProcessingError, match="ConnectionError: refused") as raised:
        calls(refused, numbered([b"k"]), attempts=3)
    assert "failed 3 times" in raised.value.hint


def test_the_deadline_spans_all_attempts_and_keeps_the_last_exception(calls: Calls) -> None:
    async def refused(index: int) -> int:
        await asyncio.sleep(0.3)
        raise ConnectionError("refused")

    with pytest.raises(ProcessingError, match="no result within 1,000 ms") as raised:
        calls(refused, numbered([b"k"]), attempts=100, backoff=seconds(0.1), deadline=seconds(1))
    assert calls.clock.now_ms() == 1000
    assert isinstance(raised.value.__cause__, ConnectionError)


# Giving up


def test_a_task_that_is_given_up_cancels_what_runs_and_runs_nothing_more() -> None:
    began, ended = threading.Event(), threading.Event()

    async def waits(index: int) -> int:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return index

    loop = ThreadEventLoop()
    coroutines = Coroutines(loop)
    step = async_map(Map(name="asked", fn=waits, calls=AsyncCalls()), PLAN, coroutines)
    other = threading.Thread(target=lambda: began.wait(60) and coroutines.give_up())
    other.start()
    with pytest.raises(TaskMigratedError, match="given up"):
        step(numbered([b"k"]))
    assert ended.wait(60)
    began.clear()
    with pytest.raises(TaskMigratedError, match="given up"):
        step(numbered([b"k"]))
    assert not began.is_set()
    other.join()
    loop.close()


# Commits


def test_no_commit_passes_a_record_that_is_unfinished_and_a_failed_one_is_called_again() -> None:
    job = Job("asking")
    asked: list[str] = []
    down = True

    @job.stream("words", key=str, value=str).map(calls=AsyncCalls(attempts=2))
    async def answered(word: str) -> str:
        asked.append(word)
        await asyncio.sleep(len(word))
        if word == "hm" and down:
            raise ConnectionError("down")
        return word.upper()

    answered.to("answers")
    with TestDriver(job) as driver:
        for word in ("yes", "no"):
            driver.send("words", word, key=word)
        driver.commit()
        assert list(driver.committed().values()) == [2]
        for word in ("yes", "hm", "no"):
            driver.send("words", word, key=word)
        with pytest.raises(ProcessingError, match="ConnectionError: down") as raised:
            driver.commit()
        assert raised.value.offset == 3
        assert list(driver.committed().values()) == [2], "the record before it is not committed either"
        down = False
        driver.restart()
        driver.commit()
        assert driver.sent("answers") == [(word, word.upper()) for word in ("yes", "no", "yes", "hm", "no")]
        assert list(driver.committed().values()) == [5]
    assert asked.count("hm") == 3
