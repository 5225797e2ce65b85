"""Stateless operators as pure functions from batch to batch, in both spellings, fused into one operator.

Python functions run over a batch's objects in one pass; expressions run on its frame. A user's exception is
translated here, at one place, into a `ProcessingError` that names the record.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import polars as pl

from streamkit.errors import ProcessingError
from streamkit.graph import Filter, FlatMap, KeyBy, Map, MapBatches, MapValues, Node, Peek, Select, Typed
from streamkit.records import Batch, Column, RowError
from streamkit.runtime.operators.base import Fan
from streamkit.runtime.operators.identity import returns_its_argument
from streamkit.runtime.places import bad_row, processing_error
from streamkit.serde import Serde, frame_serde, key_serde, value_serde
from streamkit.topology import NodePlan

__all__ = ["Chain", "Step", "StepCheck", "TableFilter", "step_for"]

ROW_COLUMN = "__row__"

Step: TypeAlias = Callable[[Batch], Batch]


class StepCheck(Protocol):
    """Wraps a columnar step, to run it a second time with the batch cut elsewhere."""

    def __call__(self, node: Node, step: Step) -> Step:
        """Return the step to run in place of `step`."""
        ...


class Chain:
    """A run of fused stateless nodes: each batch goes through all of them before the next one."""

    __slots__ = ("_steps", "out")

    def __init__(self, steps: Sequence[Step], out: Fan) -> None:
        """Apply `steps` in order and hand what is left to `out`."""
        self._steps, self.out = tuple(steps), out

    def receive(self, batch: Batch) -> None:
        """Run the steps; stop early when no row is left. Deleted keys have no value to run them on."""
        if batch.deleted:
            self.out.receive(batch)
            return
        for step in self._steps:
            batch = step(batch)
            if not len(batch):
                return
        self.out.receive(batch)

    def advance(self, watermark_ms: int) -> None:
        """Pass the watermark on: stateless nodes hold nothing back."""
        self.out.advance(watermark_ms)

    def end(self) -> None:
        """Pass the end on."""
        self.out.end()


class TableFilter:
    """Keeps the rows of a table of updates that pass; the keys of all others are deleted downstream.

    An earlier value of such a key may have passed, and whether it was written depends on commits.
    """

    __slots__ = ("_fails", "_passes", "out")

    def __init__(self, passes: Step, fails: Step, out: Fan) -> None:
        """Keep what `passes` keeps; `fails` keeps the rest."""
        self._passes, self._fails, self.out = passes, fails, out

    def receive(self, batch: Batch) -> None:
        """Split the rows; those of one key keep their order."""
        if batch.deleted:
            self.out.receive(batch)
            return
        for rows in _of_distinct_keys(batch):
            self.out.receive(self._passes(rows))
            self.out.receive(self._fails(rows).as_deleted())

    def advance(self, watermark_ms: int) -> None:
        """Pass the watermark on."""
        self.out.advance(watermark_ms)

    def end(self) -> None:
        """Pass the end on."""
        self.out.end()


def _of_distinct_keys(batch: Batch) -> Iterator[Batch]:
    """Yield the rows in stretches that have each key once."""
    keys = batch.keys.encoded()
    if len(set(keys)) == len(keys):
        yield batch
        return
    begin, seen = 0, set[bytes | None]()
    for row, key in enumerate(keys):
        if key in seen:
            yield batch.take(np.arange(begin, row, dtype=np.int64))
            begin, seen = row, set()
        seen.add(key)
    yield batch.take(np.arange(begin, len(keys), dtype=np.int64))


def step_for(node: Node, plan: NodePlan, check: StepCheck) -> Step:
    """Return the function that runs one stateless node."""
    match node:
        case Map() | MapValues():
            return _map(node.name, node.fn, value_serde(plan.value_type))
        case FlatMap():
            return _flat_map(node.name, node.fn, value_serde(plan.value_type))
        case Peek():
            return _peek(node.name, node.fn)
        case Filter():
            if isinstance(node.predicate, pl.Expr):
                return check(node, _filter_columns(node.name, node.predicate, negate=node.negate))
            return _filter(node.name, node.predicate, negate=node.negate)
        case Select():
            return check(node, _select(node, _frame_serde_of(plan)))
        case MapBatches():
            return check(node, _map_batches(node))
        case Typed():
            return _typed(node.name, value_serde(node.value_type))
        case KeyBy():
            return _key_by(node, plan, check)
    raise AssertionError(f"{type(node).__name__} is not a stateless node")


def _frame_serde_of(plan: NodePlan) -> Serde:
    assert plan.schema is not None, "a columnar node has a schema"
    return value_serde(plan.value_type) if plan.value_type is not None else frame_serde(plan.schema)


def objects_of(batch: Batch, node: str) -> list[Any]:
    """Return the values of a batch, or raise the error of the first bad record."""
    try:
        return batch.values.objects()
    except RowError as error:
        raise bad_row(batch, error, node) from error


def frame_of(batch: Batch, node: str) -> pl.DataFrame:
    """Return the values of a batch as a frame, or raise the error of the first bad record."""
    try:
        return batch.values.frame()
    except RowError as error:
        raise bad_row(batch, error, node) from error


def apply_each(fn: Callable[[Any], Any], batch: Batch, node: str) -> list[Any]:
    """Call `fn` with each value; an exception names the record it was called for."""
    values = objects_of(batch, node)
    results: list[Any] = []
    try:
        # `extend` keeps what was made before an exception, so its length is the index of the bad row.
        results.extend(map(fn, values))
    except Exception as cause:
        raise processing_error(batch, len(results), node, cause) from cause
    return results


def _map(name: str, fn: Callable[[Any], Any], serde: Serde) -> Step:
    def step(batch: Batch) -> Batch:
        results = apply_each(fn, batch, name)
        if results and inspect.iscoroutine(results[0]):
            raise _not_awaited(batch, name, results)
        return batch.with_values(Column(serde, objects=results))

    return step


def _not_awaited(batch: Batch, node: str, results: Iterable[Any]) -> ProcessingError:
    """Return the error of a function that is async though its definition does not say so, as a lambda may be."""
    for one in results:
        if inspect.iscoroutine(one):
            one.close()
    cause = TypeError("the function returned a coroutine")
    return processing_error(batch, 0, node, cause, "define it with async def, and map() awaits it")


def _flat_map(name: str, fn: Callable[[Any], Iterable[Any]], serde: Serde) -> Step:
    def step(batch: Batch) -> Batch:
        values = objects_of(batch, name)
        made: list[Any] = []
        ends = [0]
        try:
            # The iterables are not kept: many live containers would set off the garbage collector over and over.
            for some in map(fn, values):
                made.extend(some)
                ends.append(len(made))
        except Exception as cause:
            raise processing_error(batch, len(ends) - 1, name, cause) from cause
        indices = np.repeat(np.arange(len(ends) - 1, dtype=np.int64), np.diff(ends))
        return batch.spread(indices, Column(serde, objects=made))

    return step


def _peek(name: str, fn: Callable[[Any], object]) -> Step:
    def step(batch: Batch) -> Batch:
        apply_each(fn, batch, name)
        return batch

    return step


def _filter(name: str, predicate: Callable[[Any], bool], *, negate: bool) -> Step:
    def step(batch: Batch) -> Batch:
        kept = np.fromiter(map(bool, apply_each(predicate, batch, name)), dtype=np.bool_, count=len(batch))
        return batch.take(np.flatnonzero(kept != negate))

    return step


def _filter_columns(name: str, predicate: pl.Expr, *, negate: bool) -> Step:
    # A null is not true, as in SQL and Polars: such a row fails the predicate, and passes its negation.
    def step(batch: Batch) -> Batch:
        frame = frame_of(batch, name)
        try:
            kept = frame.select(predicate.alias("kept").fill_null(value=False)).get_column("kept").to_numpy()
        except pl.exceptions.PolarsError as cause:
            raise expression_error(batch, name, cause) from cause
        return batch.take(np.flatnonzero(kept != negate))

    return step


def expression_error(batch: Batch, node: str, cause: Exception) -> ProcessingError:
    """Return the error of an expression, which names the first record of the batch it failed in."""
    first, last = int(batch.offsets[0]), int(batch.offsets[-1])
    error = ProcessingError(
        f"{type(cause).__name__}: {cause}",
        topic=batch.origin.source.topic,
        partition=batch.origin.source.partition,
        offset=first,
        node=node,
        hint=f"the expression failed on a batch of offsets {first} to {last}",
    )
    error.exact = first == last
    return error


def _select(node: Select, serde: Serde) -> Step:
    def step(batch: Batch) -> Batch:
        frame = frame_of(batch, node.name)
        try:
            made = frame.with_columns(node.expressions) if node.keep else frame.select(node.expressions)
        except pl.exceptions.PolarsError as cause:
            raise expression_error(batch, node.name, cause) from cause
        if made.height != frame.height:
            # A selection of literals alone has one row; each input row has its own.
            made = pl.concat([made] * frame.height) if made.height == 1 else made
        return batch.with_values(Column(serde, frame=made))

    return step


def _map_batches(node: MapBatches) -> Step:
    def step(batch: Batch) -> Batch:
        frame = frame_of(batch, node.name).with_row_index(ROW_COLUMN)
        try:
            made = node.fn(frame)
        except Exception as cause:
            raise expression_error(batch, node.name, cause) from cause
        if ROW_COLUMN in made.columns:
            rows = made.get_column(ROW_COLUMN).to_numpy().astype(np.int64)
            made = made.drop(ROW_COLUMN)
        elif made.height in (0, frame.height):
            rows = np.arange(made.height, dtype=np.int64)
        else:
            lost = ValueError(
                f"map_batches made {made.height} rows of {frame.height} and dropped the column {ROW_COLUMN!r}, "
                "which says what record each row stems from"
            )
            raise expression_error(batch, node.name, lost)
        return batch.spread(rows, Column(frame_serde(dict(made.schema)), frame=made))

    return step


def _typed(name: str, serde: Serde) -> Step:
    def step(batch: Batch) -> Batch:
        values = batch.values
        if values.is_frame:
            return batch.with_values(Column(serde, frame=values.frame()))
        try:
            objects = serde.rows_from_dicts(objects_of(batch, name))
        except RowError as error:
            raise bad_row(batch, error, name) from error
        return batch.with_values(Column(serde, objects=objects))

    return step


def _key_by(node: KeyBy, plan: NodePlan, check: StepCheck) -> Step:
    serde = key_serde(plan.key_type)
    if plan.spelling == "columns":
        return check(node, _key_columns(node, serde))
    assert callable(node.key), "a key that is no expression is a function"
    return _key_python(node.name, node.key, serde)


def _key_columns(node: KeyBy, serde: Serde) -> Step:
    expression = pl.col(node.key) if isinstance(node.key, str) else node.key
    assert isinstance(expression, pl.Expr), "a columnar key is a column or an expression"
    selected = expression.alias("key")

    def step(batch: Batch) -> Batch:
        frame = frame_of(batch, node.name)
        try:
            keys = frame.select(selected)
        except pl.exceptions.PolarsError as cause:
            raise expression_error(batch, node.name, cause) from cause
        if keys.get_column("key").null_count():
            index = int(keys.get_column("key").is_null().arg_true()[0])
            raise bad_row(batch, RowError(index, "the key is null"), node.name, ProcessingError)
        return batch.with_keys(Column(serde, frame=keys))

    return step


def _key_python(name: str, key: Callable[[Any], Any], serde: Serde) -> Step:
    if returns_its_argument(key):
        return lambda batch: batch.with_keys(Column(serde, objects=objects_of(batch, name)))

    def step(batch: Batch) -> Batch:
        return batch.with_keys(Column(serde, objects=apply_each(key, batch, name)))

    return step
