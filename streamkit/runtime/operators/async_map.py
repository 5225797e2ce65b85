"""An async function over a batch: many keys at once, the rows of one key one after the other.

A batch is handed on when every row of it has its result, in the order of the rows. So nothing behind this step, the
commit among them, ever sees a row whose predecessors are unfinished.
"""

import asyncio
import zlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, TypeAlias

from streamkit.errors import ProcessingError, SerializationError
from streamkit.graph import AsyncCalls, Map
from streamkit.records import Batch, Column, RowError
from streamkit.runtime.coroutines import Coroutines
from streamkit.runtime.operators.stateless import Step, objects_of
from streamkit.runtime.places import bad_row, processing_error
from streamkit.serde import value_serde
from streamkit.topology import NodePlan

__all__ = ["async_map"]

_CLEAN_UP_SECONDS: Final = 1.0
"""How long a cancelled call is waited for: it may have something to close, or not let itself be cancelled at all."""

AsyncFn: TypeAlias = Callable[[Any], Coroutine[Any, Any, Any]]


def async_map(node: Map, plan: NodePlan, coroutines: Coroutines) -> Step:
    """Return the step that runs an async function over each batch, and waits for all its rows."""
    serde, calls = value_serde(plan.value_type), node.calls
    assert calls is not None, "an async function has calls"

    def step(batch: Batch) -> Batch:
        rows = _Rows(node.fn, calls, batch, objects_of(batch, node.name))
        coroutines.run(rows.run(_lines(batch, node.name)))
        if rows.error is not None:
            raise _translated(batch, rows.end, node.name, rows.error, calls)
        return batch.with_values(Column(serde, objects=rows.results))

    return step


def _lines(batch: Batch, node: str) -> Sequence[Sequence[int]]:
    """Return the rows of each key, in order; keys come in the order of their first rows. A row without key is alone."""
    try:
        keys = batch.keys.encoded()
    except RowError as error:
        raise bad_row(batch, error, node, SerializationError) from error
    lines: list[list[int]] = []
    by_key: dict[bytes, list[int]] = {}
    for index, key in enumerate(keys):
        line = None if key is None else by_key.get(key)
        if line is not None:
            line.append(index)
            continue
        lines.append([index])
        if key is not None:
            by_key[key] = lines[-1]
    return lines


def _translated(batch: Batch, index: int, node: str, cause: BaseException, calls: AsyncCalls) -> BaseException:
    if not isinstance(cause, Exception):
        return cause
    error: ProcessingError
    if isinstance(cause, _DeadlineError):
        hint = (
            "raise deadline= of AsyncCalls, or let the function give up sooner by itself, with attempts= to try again; "
            "the record stays uncommitted and the next run begins before it"
        )
        error = processing_error(batch, index, node, TimeoutError(str(cause)), hint)
        error.__cause__ = cause.__cause__ or cause
        return error
    if calls.attempts > 1:
        hint = f"it failed {calls.attempts} times; mend the function, or allow more attempts= in AsyncCalls"
        error = processing_error(batch, index, node, cause, hint)
    else:
        error = processing_error(batch, index, node, cause)
    error.__cause__ = cause
    return error


class _DeadlineError(Exception):
    """A row had no result when its deadline was over; the cause is what its last attempt had raised, if it had."""


class _Rows:
    """The calls for the rows of one batch.

    After an error no row behind it matters: those under way are cancelled, but those before it go on, for one of them
    may fail too. So the error is that of the first row that fails, however the calls overlapped.
    """

    def __init__(self, fn: AsyncFn, calls: AsyncCalls, batch: Batch, values: Sequence[Any]) -> None:
        self._fn, self._calls, self._batch, self._values = fn, calls, batch, values
        self._under_way: dict[int, asyncio.Task[bool]] = {}
        self._raised: dict[int, BaseException] = {}
        self.results: list[Any] = [None] * len(values)
        self.end = len(values)
        """The first row that is known to fail."""
        self.error: BaseException | None = None

    async def run(self, lines: Sequence[Sequence[int]]) -> None:
        """Call the function for each row, at most so many at once."""
        waiting = iter(lines)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._calls.at_once, len(lines))):
                group.create_task(self._work(waiting))

    async def _work(self, waiting: Iterator[Sequence[int]]) -> None:
        for line in waiting:
            for index in line:
                if index < self.end:
                    await self._row(index)

    async def _row(self, index: int) -> None:
        # A task of its own: to cancel a call does not cancel who waits for it, and a call that cancels itself shows.
        task = self._under_way[index] = asyncio.create_task(self._attempts(index))
        try:
            await asyncio.wait({task}, timeout=self._calls.deadline_ms / 1000)
        finally:
            del self._under_way[index]
            late = not task.done()
            if late:
                task.cancel()
                await asyncio.wait({task}, timeout=_CLEAN_UP_SECONDS)
        if index >= self.end:
            return
        if late:
            error = _DeadlineError(f"no result within {self._calls.deadline_ms:,} ms")
            error.__cause__ = self._raised.get(index)
            self._fail(index, error)
        elif task.cancelled():
            self._fail(index, RuntimeError("the coroutine was cancelled, and not by streamkit"))
        elif not task.result():
            self._fail(index, self._raised[index])

    async def _attempts(self, index: int) -> bool:
        """Call the function until it returns; return whether it did."""
        for attempt in range(1, self._calls.attempts + 1):
            try:
                self.results[index] = await self._fn(self._values[index])
            except Exception as error:  # noqa: BLE001  # raised where the batch is waited for, if it is the last
                self._raised[index] = error
            except (SystemExit, KeyboardInterrupt) as error:
                # It would end the loop's thread here: it is raised where the batch is waited for.
                self._raised[index] = error
                return False
            else:
                return True
            if attempt < self._calls.attempts:
                await asyncio.sleep(self._pause_ms(index, attempt) / 1000)
        return False

    def _pause_ms(self, index: int, attempt: int) -> float:
        """Return how long to wait after a failed attempt; drawn from the record's place, so a run is repeatable."""
        pause_ms = min(self._calls.backoff_ms << (attempt - 1), self._calls.deadline_ms)
        place = f"{self._batch.origin.source}@{self._batch.offsets[index]}#{attempt}"
        return pause_ms * (1 - zlib.crc32(place.encode()) / 2**33)

    def _fail(self, index: int, error: BaseException) -> None:
        self.end, self.error = index, error
        for other, task in self._under_way.items():
            if other > index:
                task.cancel()
