"""What may be said of an async function, and what is refused at its line."""

import functools
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from streamkit import AsyncCalls, Job, Stream
from streamkit.errors import DefinitionError
from streamkit.graph import Map
from streamkit.topology import compile_graph, describe


class Trade(msgspec.Struct):
    symbol: str
    size: int


def trades(job: Job | None = None) -> Stream[None, Trade]:
    return (job or Job("rules")).stream("trades", value=Trade)


def symbol(trade: Trade) -> str:
    return trade.symbol


async def waits(value: Any) -> Any:
    return value


async def yields(value: Any) -> AsyncIterator[Any]:
    yield value


def returns(value: Any) -> Coroutine[Any, Any, int]:
    return waits(value)


class Waits:
    async def __call__(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize("fn", [waits, Waits(), functools.partial(waits)], ids=lambda fn: type(fn).__name__)
def test_a_map_takes_an_async_function(fn: Any) -> None:
    job, slow = Job("rules"), AsyncCalls(at_once=2, deadline=timedelta(seconds=1), attempts=3)
    plain, told = trades(job).map(fn, name="plain"), job.stream("more").map(fn, calls=slow, name="told")
    decorated = job.stream("others").map(calls=slow, name="decorated")(fn)
    nodes = [job.node(one.name) for one in (plain, told, decorated)]
    assert [node.calls for node in nodes if isinstance(node, Map)] == [AsyncCalls(), slow, slow]
    assert decorated.fn is fn


def test_the_rows_of_an_async_map_are_of_the_type_its_function_says() -> None:
    async def sizes(trade: Trade) -> int:
        return trade.size

    job = Job("rules")
    assert job.plan(trades(job).map(sizes).name).value_type is int


@pytest.mark.parametrize("fn", [yields, returns])
def test_what_is_not_defined_as_async_gives_no_coroutine(fn: Any) -> None:
    with pytest.raises(DefinitionError, match="async"):
        trades().map(fn)


def test_a_plain_function_has_no_calls() -> None:
    with pytest.raises(DefinitionError, match="no async function"):
        trades().map(symbol, calls=AsyncCalls())  # type: ignore[arg-type]  # the type checker says so too
    with pytest.raises(DefinitionError, match="takes AsyncCalls"):
        trades().map(waits, calls=5)  # type: ignore[call-overload]  # the type checker says so too


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"at_once": 0}, "at_once=0"),
        ({"at_once": 10_001}, "10,000"),
        ({"at_once": True}, "at_once=True"),
        ({"attempts": 0}, "attempts=0"),
        ({"attempts": 101}, "attempts=101"),
        ({"deadline": timedelta(0)}, "deadline"),
        ({"backoff": timedelta(seconds=-1)}, "backoff"),
    ],
    ids=lambda value: str(value),
)
def test_calls_out_of_their_range_are_refused(wrong: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        AsyncCalls(**wrong)


def test_the_description_says_how_an_async_function_is_called() -> None:
    job = Job("rules")
    slow = AsyncCalls(at_once=2, deadline=timedelta(minutes=1), attempts=3, backoff=timedelta(milliseconds=50))
    trades(job).map(waits, calls=slow, name="slow").map(waits, name="once").map(symbol).to("out")
    described = describe(compile_graph(job.build()))
    assert described.nodes["slow"].details == {
        "async": "2 at once",
        "deadline_ms": 60_000,
        "attempts": 3,
        "backoff_ms": 50,
    }
    assert described.nodes["once"].details == {"async": "100 at once", "deadline_ms": 30_000, "attempts": 1}
    assert described.nodes["symbol"].details == {}
    assert "async 2 at once · deadline 1 min · attempts 3 · backoff 50 ms" in described.to_text()
