"""How one group is folded, record by record: `aggregate`, `reduce`, and the reference of the built-ins."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from operator import length_hint
from typing import Any, Protocol

import msgspec

from streamkit.errors import SerializationError
from streamkit.graph import Aggregation, Columns, Fold, Reduce
from streamkit.records import Batch
from streamkit.runtime.aggregates import RowAggregates
from streamkit.runtime.places import processing_error, rows_in_record
from streamkit.serde.orders import holds_sets, in_one_order

__all__ = ["RowFold", "fold_for"]


class RowFold(Protocol):
    """The step, the merge and the encoding of one aggregation in the Python spelling."""

    @property
    def mergeable(self) -> bool:
        """Whether partial results can be merged (if not, stored values are loaded before the fold)."""
        ...

    def empty(self) -> dict[Any, Any]:
        """Return accumulators by key, of no key yet; `fold` takes a key that is missing as a new group."""
        ...

    def fold(self, groups: dict[Any, Any], keys: Sequence[Any], values: Sequence[Any], rows: "FoldedRows") -> None:
        """Fold each value into the accumulator of its key."""
        ...

    def merge(self, one: Any, other: Any) -> Any:
        """Return the accumulator of both; may change `one`."""
        ...

    def final(self, accumulator: Any) -> Any:
        """Return the value of a finished group."""
        ...

    def encode(self, accumulators: Collection[Any]) -> list[bytes]:
        """Return each accumulator as it is stored."""
        ...

    def decode(self, stored: Iterable[bytes]) -> list[Any]:
        """Read stored accumulators."""
        ...


class FoldedRows:
    """The rows being folded: where each came from, for errors and for `first` and `last`."""

    __slots__ = ("batch", "indices", "node")

    def __init__(self, batch: Batch, indices: Sequence[int] | None, node: str) -> None:
        """Rows `indices` of `batch`, all of them if None."""
        self.batch, self.indices, self.node = batch, indices, node

    def error(self, position: int, cause: Exception) -> Exception:
        """Return the error of the row at `position` among the folded ones."""
        index = position if self.indices is None else self.indices[position]
        return processing_error(self.batch, index, self.node, cause)

    def orders(self) -> list[tuple[int, str, int, int, int]]:
        """Return (timestamp, topic, partition, offset, row) of each row: the order of `first` and `last`."""
        batch, source = self.batch, self.batch.origin.source
        stamps, offsets = batch.timestamps_ms.tolist(), batch.offsets.tolist()
        rows = rows_in_record(batch).tolist()
        indices = range(len(stamps)) if self.indices is None else self.indices
        return [(stamps[index], source.topic, source.partition, offsets[index], rows[index]) for index in indices]


class _Codec:
    """Accumulators as msgpack, of the declared type where there is one.

    Equal accumulators have equal bytes. In which order a dict was filled depends, if partial results are merged, on
    where they were cut: so it is stored sorted, and what is finished is as if it had been stored. Where rows have one
    order, so has a dict, and keeps it. A set is laid out in no order at all, and is stored sorted either way.
    """

    def __init__(self, node: str, accumulator_type: Any, *, mergeable: bool) -> None:
        self._node, self.mergeable = node, mergeable
        kind = Any if accumulator_type is None else accumulator_type
        self._sorted = mergeable and not in_one_order(kind)
        unordered = self._sorted or holds_sets(kind)
        self._encoder = msgspec.msgpack.Encoder(order="sorted" if unordered else None)
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(kind)

    def encode(self, accumulators: Collection[Any]) -> list[bytes]:
        encoded: list[bytes] = []
        try:
            # `extend` keeps what was made before an exception, so its length is the index of the bad one.
            encoded.extend(map(self._encoder.encode, accumulators))
        except (TypeError, OverflowError, ValueError, msgspec.MsgspecError) as cause:
            bad = next(islice(accumulators, len(encoded), None))
            raise SerializationError(
                f"an accumulator of {type(bad).__name__} cannot be stored: {cause}",
                node=self._node,
                data=repr(bad).encode("utf-8", "backslashreplace"),
                hint="use builtins, dataclasses or msgspec structs; integers of at most 64 bits",
            ) from cause
        return encoded

    def decode(self, stored: Iterable[bytes]) -> list[Any]:
        return list(map(self._decoder.decode, stored))

    def final(self, accumulator: Any) -> Any:
        return self.decode(self.encode([accumulator]))[0] if self._sorted else accumulator


class _Aggregate(_Codec):
    def __init__(self, node: str, how: Fold) -> None:
        super().__init__(node, how.accumulator_type, mergeable=how.merge is not None)
        self._fn, self._initial, self._merge = how.fn, how.initial, how.merge

    def empty(self) -> dict[Any, Any]:
        # It makes the missing start value in C: a third off the fold (measured).
        return defaultdict(self._initial)

    def fold(self, groups: dict[Any, Any], keys: Sequence[Any], values: Sequence[Any], rows: FoldedRows) -> None:
        fn = self._fn
        upcoming = iter(values)
        try:
            if keys is values:
                for value in upcoming:
                    groups[value] = fn(groups[value], value)
                return
            for key, value in zip(keys, upcoming, strict=True):
                groups[key] = fn(groups[key], value)
        except Exception as cause:
            raise rows.error(len(values) - length_hint(upcoming) - 1, cause) from cause

    def merge(self, one: Any, other: Any) -> Any:
        assert self._merge is not None, "an aggregate without merge= is never merged"
        return self._merge(one, other)


class _Reduce(_Codec):
    def __init__(self, node: str, how: Reduce) -> None:
        super().__init__(node, how.value_type, mergeable=how.commutative)
        self._fn = how.fn

    def empty(self) -> dict[Any, Any]:
        return {}

    def fold(self, groups: dict[Any, Any], keys: Sequence[Any], values: Sequence[Any], rows: FoldedRows) -> None:
        fn = self._fn
        upcoming = iter(values)
        try:
            for key, value in zip(keys, upcoming, strict=True):
                groups[key] = fn(groups[key], value) if key in groups else value
        except Exception as cause:
            raise rows.error(len(values) - length_hint(upcoming) - 1, cause) from cause

    def merge(self, one: Any, other: Any) -> Any:
        return self._fn(one, other)


class _BuiltIns:
    """`agg` and `count` record by record: the reference that the columnar spelling is held against."""

    mergeable = True

    def __init__(self, how: Columns) -> None:
        self._aggregates = RowAggregates(how.aggregates)
        self._scalar = how.scalar
        self.merge: Callable[[Any, Any], Any] = self._aggregates.merge

    def encode(self, accumulators: Collection[Any]) -> list[bytes]:
        return list(map(self._aggregates.encode, accumulators))

    def decode(self, stored: Iterable[bytes]) -> list[Any]:
        return list(map(self._aggregates.decode, stored))

    def empty(self) -> dict[Any, Any]:
        return defaultdict(self._aggregates.initial)

    def fold(self, groups: dict[Any, Any], keys: Sequence[Any], values: Sequence[Any], rows: FoldedRows) -> None:
        add = self._aggregates.add
        upcoming = iter(values)
        try:
            for key, order, value in zip(keys, rows.orders(), upcoming, strict=True):
                add(groups[key], value, order)
        except Exception as cause:
            raise rows.error(len(values) - length_hint(upcoming) - 1, cause) from cause

    def final(self, accumulator: Any) -> Any:
        columns = self._aggregates.final(accumulator)
        return next(iter(columns.values())) if self._scalar else columns


def fold_for(node: Aggregation) -> RowFold:
    """Return the row-by-row fold of an aggregation."""
    match node.how:
        case Fold() as how:
            return _Aggregate(node.name, how)
        case Reduce() as how:
            return _Reduce(node.name, how)
        case Columns() as how:
            return _BuiltIns(how)
