"""A filtered table of updates deletes the keys that do not pass, so that the last value of each key is of the log."""

from datetime import timedelta

import msgspec
import polars as pl
import pytest

from streamkit import Job, Tumbling, agg
from streamkit.errors import DefinitionError
from streamkit.testing import TestDriver


class Move(msgspec.Struct):
    account: str
    amount: int


class Balance(msgspec.Struct):
    total: int


def overdrawn(spelling: str) -> Job:
    job = Job("overdrawn")
    moves = job.stream("moves", value=Move)
    balances = moves.group_by("account", type=str, name="by_account", shards=2).agg(
        {"total": agg.sum("amount")}, name="balances"
    )
    if spelling == "columns":
        balances.filter(pl.col("total") < 0).typed(Balance).map_values(lambda balance: -balance.total).to("overdrawn")
    else:
        balances.map_values(lambda row: row["total"]).filter(lambda total: total < 0).map_values(abs).to("overdrawn")
    return job


@pytest.mark.parametrize("spelling", ["columns", "python"])
@pytest.mark.parametrize("commits", [1, 2, 4])
def test_the_last_value_of_a_key_does_not_depend_on_commits(spelling: str, commits: int) -> None:
    """`a` is overdrawn only between two of its moves: it may be written in between, and is deleted after."""
    moves = [("a", -5), ("b", -1), ("a", 9), ("c", 3), ("b", -1), ("a", 1), ("c", -9), ("b", 0)]
    with TestDriver(overdrawn(spelling)) as driver:
        for index, (account, amount) in enumerate(moves):
            driver.send("moves", {"account": account, "amount": amount})
            if index % (len(moves) // commits) == 0:
                driver.commit()
        driver.commit()
        sent = driver.sent("overdrawn")
    assert dict(sent) == {"a": None, "b": 2, "c": 6}


def test_a_bounded_run_writes_a_tombstone_for_a_key_that_does_not_pass() -> None:
    with TestDriver(overdrawn("python")) as driver:
        for account, amount in (("a", -5), ("b", 1)):
            driver.send("moves", {"account": account, "amount": amount})
        driver.end()
        driver.send("moves", {"account": "a", "amount": 7})
        driver.end()
        assert driver.sent("overdrawn")[-1] == ("a", None)


def windowed(job: Job, emit: str) -> "object":
    moves = job.stream("moves", value=Move)
    window = Tumbling(timedelta(milliseconds=10), grace=timedelta(0))
    grouped = moves.group_by("account", type=str, name="by_account", shards=1)
    return grouped.window(window, emit=emit).count(name="counts")  # type: ignore[arg-type]  # one of the two


def test_final_windows_that_do_not_pass_are_left_out() -> None:
    job = Job("busy")
    windowed(job, "final").filter(lambda count: count > 1).to("busy")  # type: ignore[attr-defined]  # a table
    with TestDriver(job) as driver:
        for stamp in (1, 2, 15):
            driver.send("moves", {"account": "a", "amount": 0}, timestamp_ms=stamp)
        driver.end()
        assert [value["value"] for _, value in driver.sent("busy")] == [2]


def test_windows_that_are_updated_cannot_be_filtered() -> None:
    table = windowed(Job("busy"), "update")
    with pytest.raises(DefinitionError, match="its windows are updated"):
        table.filter(lambda count: count > 1)  # type: ignore[attr-defined]  # a table
