"""Overlapping windows: each row is in several, and each of those is judged, closed and published on its own."""

import random
from datetime import timedelta

import msgspec
import orjson
import polars as pl
import pytest
from machine import Machine

from streamkit import Hopping, Job, Windowed, agg
from streamkit.graph import Emit
from streamkit.testing import TestDriver


class Row(msgspec.Struct):
    ts: int


def ms(count: int) -> timedelta:
    return timedelta(milliseconds=count)


def hopping_job(size: int = 30, advance: int = 10, *, grace: int = 0, emit: Emit = "final") -> Job:
    job = Job("hopping")
    rows = job.stream("rows", key=str, timestamp="ts")
    windows = rows.group_by_key().window(Hopping(ms(size), advance=ms(advance), grace=ms(grace)), emit=emit)
    windows.count(name="counts").to("out")
    windows.late.to("late")
    return job


def counted(job: Job, stamps: list[int]) -> tuple[dict[tuple[int, int], int], list[int], int]:
    """Return the counts by window of rows sent one by one, the stamps of late rows, and the counter of late rows."""
    with TestDriver(job) as driver:
        for ts in stamps:
            driver.send("rows", {"ts": ts}, key="a")
            driver.commit()
        late = sum(runner.task.context.counters.late for runner in driver._runners)
        made = {(value["window_start"], value["window_end"]): value["value"] for _, value in driver.sent("out")}
        return made, [value["ts"] for _, value in driver.sent("late")], late


def test_a_row_is_in_every_window_that_spans_it_before_the_epoch_too() -> None:
    assert counted(hopping_job(), [5, 100])[0] == {(-20, 10): 1, (-10, 20): 1, (0, 30): 1}


def test_the_advance_need_not_divide_the_size() -> None:
    """Windows begin at multiples of the advance: 13 is in [7, 17) alone, 14 in that and in [14, 24)."""
    made, _, _ = counted(hopping_job(10, 7), [13, 14, 100])
    assert made == {(7, 17): 2, (14, 24): 1}


def test_a_row_that_is_late_for_its_first_window_alone_is_counted_in_the_others_and_once_as_late() -> None:
    made, late, late_count = counted(hopping_job(), [25, 31, 19, 200])
    # At watermark 31 the windows up to [0, 30) are closed; of those of 19, [10, 40) is open.
    assert made == {(0, 30): 1, (10, 40): 3, (20, 50): 2, (30, 60): 1}
    assert (late, late_count) == ([19], 1)


def test_a_row_that_is_late_for_all_its_windows_is_in_none() -> None:
    made, late, late_count = counted(hopping_job(), [45, 70, 45, 10, 70, 300])
    assert made[40, 70] == 1
    assert made[50, 80] == made[60, 90] == 2
    assert (late, late_count) == ([45, 10], 2)


def test_grace_holds_every_window_open_for_as_long() -> None:
    made, late, _ = counted(hopping_job(grace=10), [25, 39, 29, 200])
    assert made[0, 30] == 2
    assert late == []


def test_windows_that_an_earlier_bounded_run_published_take_no_more_rows_and_the_others_do() -> None:
    machine = Machine(hopping_job(), {"rows": 1})
    machine.send("rows", 0, [(b"a", orjson.dumps({"ts": 25}), 0)])
    rng = random.Random(1)
    machine.run_bounded(rng)
    machine.send("rows", 0, [(b"a", orjson.dumps({"ts": 35}), 0), (b"a", orjson.dumps({"ts": 52}), 0)])
    machine.run_bounded(rng, go_on=True)
    made = [orjson.loads(value or b"") for _, value, _ in machine.read("out")]
    counts = sorted((one["window_start"], one["value"]) for one in made)
    # The first run closed what had begun by 25: [0, 30), [10, 40) and [20, 50).
    assert counts == [(0, 1), (10, 1), (20, 1), (30, 2), (40, 1), (50, 1)]
    assert [stamp for _, _, stamp in machine.read("late")] == [35]


def test_updates_of_a_hopping_window_say_how_far_each_window_is() -> None:
    with TestDriver(hopping_job(emit="update")) as driver:
        for ts in (5, 15):
            driver.send("rows", {"ts": ts}, key="a")
            driver.commit()
        assert [(value["window_start"], value["value"]) for _, value in driver.sent("out")] == [
            (-20, 1),
            (-10, 1),
            (0, 1),
            (-10, 2),
            (0, 2),
            (10, 1),
        ]
        assert driver.table("counts") == {
            Windowed("a", -10, 20): 2,
            Windowed("a", 0, 30): 2,
            Windowed("a", 10, 40): 1,
        }


def shuffled(row_count: int) -> tuple[tuple[int, int], list[tuple[object, object]]]:
    job = Job("shuffled")
    rows = job.stream("rows", value=Row, timestamp="ts")
    windows = rows.group_by(pl.col("ts") % 2, type=int, name="by_parity").window(
        Hopping(ms(40), advance=ms(10), grace=ms(0))
    )
    windows.agg({"n": agg.count(), "last": agg.last("ts")}, name="stats").to("out")
    with TestDriver(job) as driver:
        for ts in range(row_count):
            driver.send("rows", {"ts": ts})
        driver.process()
        driver.send("rows", {"ts": 1000})
        driver.commit()
        driver.commit()
        return driver.shuffle_rows(), sorted(driver.sent("out"), key=str)


@pytest.mark.parametrize("rows_max", [1, 3, 200_000])
def test_rows_combine_before_the_shuffle_into_one_a_window_and_key(
    rows_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few rows are spread over their windows at a time."""
    monkeypatch.setattr("streamkit.runtime.groups.frames._SPREAD_ROWS_MAX", rows_max)
    (rows_in, rows_out), made = shuffled(60)
    assert rows_in == 61
    assert rows_out == 2 * 9 + 4
    assert len(made) == 2 * 9
