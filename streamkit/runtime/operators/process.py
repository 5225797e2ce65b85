"""The low-level operator: calls a user's function with whole records, and its punctuations as event time passes.

Rows are taken one after the other, in the order they come. What is made for a row stems from it: it bears its place and
the watermark before it, so errors name a record and lateness is judged as for the record itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from streamkit.errors import DefinitionError, PunctuationError, StateError, UnknownStoreError
from streamkit.graph.nodes import Process, Punctuation
from streamkit.graph.stores import KeyValueStore, Store
from streamkit.records import NEVER_MS, Batch, Column, Header, Origin, Record, RowError
from streamkit.runtime.operators.base import Fan
from streamkit.runtime.operators.stateless import objects_of
from streamkit.runtime.places import bad_row, processing_error, rows_in_record, spread_numbers
from streamkit.runtime.typed_store import TypedStore
from streamkit.serde import key_serde, value_serde
from streamkit.topology import NodePlan

__all__ = ["ProcessOperator"]

K = TypeVar("K")
V = TypeVar("V")

_TIMESTAMP_BOUND_MS: Final = 2**60


def stream_times(batch: Batch, before_ms: int) -> npt.NDArray[np.int64]:
    """Return the largest timestamp up to and including each row, of the rows that the node received.

    Args:
        batch: The rows.
        before_ms: The largest one of earlier rows.
    """
    return np.maximum(np.maximum.accumulate(batch.stream_times_ms), before_ms)


class ProcessOperator:
    """One `process` of one task.

    Args:
        node: What it is.
        plan: Types of what it yields.
        stores: What it declared, by name.
        partition: Of the task.
        stream_time_ms: The largest timestamp that it has received; NEVER_MS before the first row.
    """

    def __init__(
        self,
        node: Process,
        plan: NodePlan,
        stores: Mapping[str, TypedStore[Any, Any]],
        partition: int,
        stream_time_ms: int,
    ) -> None:
        """Go on from what the stores hold."""
        self.node, self.stream_time_ms = node, stream_time_ms
        self._stores, self._context = tuple(stores.values()), TaskStores(node.name, partition, stores)
        self._keys, self._values = key_serde(plan.key_type), value_serde(plan.value_type)
        self.out = Fan()

    def receive(self, batch: Batch) -> None:
        """Call the functions for each row, then hand on what they made.

        Raises:
            ProcessingError: A function raised, or yielded what it may not; it names the row's record.
        """
        assert not batch.deleted, "a table's keys are no facts"
        name, made, context = self.node.name, _Made(rekeys=self.node.rekeys), self._context
        records, due = self._records(batch), self._due(batch)
        index = 0
        try:
            for index, record in enumerate(records):
                if index in due:
                    self._punctuate(batch, index, due[index], made)
                results = self.node.fn(context, record)
                if results is not None:
                    for one in results:
                        made.add(index, one, record.timestamp_ms, record)
        except (DefinitionError, StateError, PunctuationError):
            # Not of the record: the job or its state is wrong, or time has come to what fails.
            raise
        except _UnfitRecordError as cause:
            raise processing_error(batch, index, name, ValueError(str(cause)), cause.hint) from cause
        except Exception as cause:
            raise processing_error(batch, index, name, cause) from cause
        for store in self._stores:
            store.settle()
        self.out.receive(made.batch(batch, self._keys, self._values))

    def _records(self, batch: Batch) -> list[Record[Any, Any]]:
        values = objects_of(batch, self.node.name)
        try:
            keys = batch.keys.objects()
        except RowError as error:
            raise bad_row(batch, error, self.node.name) from error
        stamps, headers = batch.timestamps_ms.tolist(), batch.headers
        if headers is None:
            return [
                Record(key=key, value=value, timestamp_ms=stamp)
                for key, value, stamp in zip(keys, values, stamps, strict=True)
            ]
        return [
            Record(key=key, value=value, timestamp_ms=stamp, headers=tuple(some))
            for key, value, stamp, some in zip(keys, values, stamps, headers, strict=True)
        ]

    def _due(self, batch: Batch) -> dict[int, list[tuple[int, Punctuation]]]:
        """Return what is to be called before which row: the multiple that was passed, and the punctuation."""
        due: dict[int, list[tuple[int, Punctuation]]] = {}
        if not self.node.punctuations:
            return due
        times = stream_times(batch, self.stream_time_ms)
        first_ms = int(times[0]) if self.stream_time_ms == NEVER_MS else self.stream_time_ms
        before = np.concatenate(([first_ms], times[:-1]))
        self.stream_time_ms = int(times[-1])
        for punctuation in self.node.punctuations:
            passed = times // punctuation.every_ms
            for index in np.flatnonzero(passed > before // punctuation.every_ms).tolist():
                due.setdefault(index, []).append((int(passed[index]) * punctuation.every_ms, punctuation))
        for calls in due.values():
            calls.sort(key=lambda call: call[0])
        return due

    def _punctuate(self, batch: Batch, index: int, calls: Iterable[tuple[int, Punctuation]], made: "_Made") -> None:
        for at_ms, punctuation in calls:
            try:
                for one in punctuation.fn(self._context, at_ms) or ():
                    made.add(index, one, at_ms, None)
            except (DefinitionError, StateError):
                raise
            except Exception as cause:
                said = processing_error(batch, index, self.node.name, cause)
                raise PunctuationError(
                    f"{punctuation.name} at {at_ms}: {said.primary}",
                    topic=said.topic,
                    partition=said.partition,
                    offset=said.offset,
                    node=said.node,
                    hint="mend the function; nothing of this commit counts, and no policy leaves the record out",
                ) from cause

    def advance(self, watermark_ms: int) -> None:
        """Pass the watermark on: it moves no punctuation, as it is told when a batch ends, wherever that was cut."""
        self.out.advance(watermark_ms)

    def end(self) -> None:
        """Pass the end on."""
        self.out.end()


class TaskStores:
    """What the functions of one node are called with; satisfies `Context`."""

    __slots__ = ("_node", "_stores", "partition")

    def __init__(self, node: str, partition: int, stores: Mapping[str, TypedStore[Any, Any]]) -> None:
        """Keep the stores that the node declared."""
        self._node, self.partition, self._stores = node, partition, stores

    def store(self, store: Store[K, V]) -> KeyValueStore[K, V]:
        """Return the task's part of a store."""
        found = self._stores.get(store.name)
        if found is None or found.handle != store:
            raise UnknownStoreError(
                f"{self._node!r} uses the store {store.name!r} without having declared it",
                hint=f"say it where the function is given: process(stores=[..., {store.name}])",
            )
        return found


class _UnfitRecordError(Exception):
    """A function yielded what it may not."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


class _MadeRow(NamedTuple):
    stems_from: int
    key: Any
    value: Any
    timestamp_ms: int
    headers: Sequence[Header]


class _Made:
    """What was yielded for the rows of one batch, in order."""

    def __init__(self, *, rekeys: bool) -> None:
        self._rekeys, self._own_keys, self._rows = rekeys, rekeys, list[_MadeRow]()

    def add(self, index: int, one: Any, timestamp_ms: int, record: Record[Any, Any] | None) -> None:
        """Take what was yielded for a row: for its record, or by a punctuation ahead of it."""
        if type(one) is not Record:
            raise _UnfitRecordError(f"yielded {one!r}, which is no Record", "yield Record(key=..., value=...)")
        if record is None:
            self._own_keys = True
        elif not self._rekeys and one.key is not record.key and one.key != record.key:
            raise _UnfitRecordError(
                f"yielded a record with the key {one.key!r} for one with the key {record.key!r}",
                "keep the key, or say process(rekeys=True)",
            )
        if one.timestamp_ms != NEVER_MS:
            timestamp_ms = one.timestamp_ms
            if type(timestamp_ms) is not int or abs(timestamp_ms) >= _TIMESTAMP_BOUND_MS:
                raise _UnfitRecordError(
                    f"yielded a record with the timestamp {timestamp_ms!r}", "say it in ms since the Unix epoch"
                )
        if one.headers and (record is None or one.headers is not record.headers):
            _check_headers(one.headers)
        self._rows.append(_MadeRow(index, one.key, one.value, timestamp_ms, one.headers))

    def batch(self, batch: Batch, keys: Any, values: Any) -> Batch:
        """Return the rows that were made, each stemming from the one it was made for."""
        indices = np.array([row.stems_from for row in self._rows], dtype=np.int64)
        headers = [row.headers for row in self._rows]
        some = any(headers)
        stems = rows_in_record(batch)[indices]
        origin = Origin(
            source=batch.origin.source,
            offsets=batch.offsets[indices],
            timestamps_ms=np.array([row.timestamp_ms for row in self._rows], dtype=np.int64),
            watermarks_ms=batch.watermarks_ms[indices],
            published_ms=batch.origin.published_ms,
            stream_times_ms=batch.stream_times_ms[indices],
            row_numbers=spread_numbers(stems, indices),
            headers=lambda: headers if some else None,
        )
        own = Column(keys, objects=[row.key for row in self._rows]) if self._own_keys else batch.keys.take(indices)
        return Batch(origin, own, Column(values, objects=[row.value for row in self._rows]))


def _check_headers(headers: Any) -> None:
    try:
        fit = all(isinstance(name, str) and (data is None or isinstance(data, bytes)) for name, data in headers)
    except (TypeError, ValueError):
        fit = False
    if not fit:
        raise _UnfitRecordError(f"yielded a record with the headers {headers!r}", "say pairs of a name and bytes")
