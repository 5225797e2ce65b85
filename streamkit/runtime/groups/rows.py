"""Groups of the Python spelling: a dict of accumulators for each window."""

from collections.abc import Iterable, Sequence
from itertools import filterfalse, groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkit.broker.partitioner import partitions_of
from streamkit.errors import ProcessingError, SerializationError
from streamkit.records import Batch, Column, RowError
from streamkit.runtime.aggregates import AggregateOverflow
from streamkit.runtime.blocks import decode_row_block, encode_row_block
from streamkit.runtime.groups.base import UNWINDOWED_MS, Results, RowWindows, overflow
from streamkit.runtime.groups.folds import FoldedRows, RowFold
from streamkit.runtime.operators.stateless import objects_of
from streamkit.runtime.places import bad_row
from streamkit.serde import Serde

__all__ = ["RowGroups"]

_HASHED_AS_THEY_ARE = (str, int, bytes)


class RowGroups:
    """Accumulators by window end and key.

    While rows are added, the keys of a window may be Python objects: they are encoded once per distinct key, when
    the groups leave. Merged and stored groups have encoded keys. Both kinds live side by side until `_settle`.

    Args:
        node: The aggregation's name, for errors.
        fold: How one group is folded.
        key_serde: Encodes keys.
        key_type: The declared type; keys of other types than str, int and bytes are encoded row by row.
        value_serde: Handed to the column of results.
    """

    def __init__(self, node: str, fold: RowFold, key_serde: Serde, key_type: Any, value_serde: Serde) -> None:
        """Start empty."""
        self._node, self._fold, self._key_serde, self._value_serde = node, fold, key_serde, value_serde
        self._key_type = key_type
        self._by_object: dict[int, dict[Any, Any]] = {}
        self._by_key: dict[int, dict[bytes, Any]] = {}

    def _empty(self) -> "RowGroups":
        return RowGroups(self._node, self._fold, self._key_serde, self._key_type, self._value_serde)

    def __len__(self) -> int:
        """Return how many groups there are, counting a key twice that is held in both forms."""
        return sum(map(len, self._by_object.values())) + sum(map(len, self._by_key.values()))

    def add(self, batch: Batch, windows: RowWindows | None) -> None:
        """Fold the rows of each window in their order."""
        values = objects_of(batch, self._node)
        by_window, keys = self._keyed(batch)
        for end_ms, rows in [(UNWINDOWED_MS, None)] if windows is None else windows.by_end():
            indices = None if rows is None else rows.tolist()
            groups = by_window.get(end_ms)
            if groups is None:
                groups = by_window[end_ms] = self._fold.empty()
            if indices is None:
                self._fold.fold(groups, keys, values, FoldedRows(batch, None, self._node))
            else:
                picked_keys = [keys[index] for index in indices]
                picked = [values[index] for index in indices]
                self._fold.fold(groups, picked_keys, picked, FoldedRows(batch, indices, self._node))
            if None in groups:
                null = list(keys).index(None)
                raise bad_row(batch, RowError(null, "the key is null"), self._node, ProcessingError)

    def _keyed(self, batch: Batch) -> tuple[dict[int, dict[Any, Any]], Sequence[Any]]:
        try:
            if self._fold.mergeable and self._key_type in _HASHED_AS_THEY_ARE:
                keys = batch.keys.objects()
                # True and 1.0 would be the group of 1, if that came first.
                if self._key_type is not int or set(map(type, keys)) <= {int}:
                    return self._by_object, keys
            return self._by_key, batch.keys.encoded()
        except RowError as error:
            raise bad_row(batch, error, self._node) from error

    def missing_keys(self, batch: Batch, windows: RowWindows | None) -> list[tuple[int, bytes]]:
        """Return the (window end, key) of a batch that are not here yet: to be loaded before an ordered fold."""
        try:
            keys = batch.keys.encoded()
        except RowError as error:
            raise bad_row(batch, error, self._node) from error
        if windows is None:
            # No pair is made of a key that is here: of a running count they were a tenth of the time. Nor is it
            # `set.difference`, which would walk all groups: a dict with defaults is no plain dict to it.
            missing = set(filterfalse(self._by_key.get(UNWINDOWED_MS, {}).__contains__, keys))
            return [(UNWINDOWED_MS, key) for key in sorted(key for key in missing if key is not None)]
        rows, ends_ms = windows.spread()
        pairs = zip(ends_ms.tolist(), rows.tolist(), strict=True)
        wanted = {(end_ms, key) for end_ms, row in pairs if (key := keys[row]) is not None}
        return sorted(pair for pair in wanted if pair[1] not in self._by_key.get(pair[0], ()))

    def absorb(self, block: bytes) -> None:
        """Merge the accumulators of a row block."""
        rows = decode_row_block(block)
        if rows:
            ends_ms, keys, encoded = zip(*rows, strict=True)
            self._put([end_ms or UNWINDOWED_MS for end_ms in ends_ms], keys, self._fold.decode(encoded))

    def load(self, ends_ms: Sequence[int], keys: Sequence[bytes], encoded: Sequence[bytes]) -> None:
        """Merge stored accumulators."""
        self._settle()
        self._put(ends_ms, keys, self._fold.decode(encoded))

    def _put(self, ends_ms: Iterable[int], keys: Sequence[bytes], accumulators: Sequence[Any]) -> None:
        """Merge accumulators in; those of one window stand together."""
        begin = 0
        for end_ms, run in groupby(ends_ms):
            end = begin + len(list(run))
            groups = self._by_key.get(end_ms)
            if groups is None:
                groups = self._by_key[end_ms] = self._fold.empty()
            self._merge(groups, keys[begin:end], accumulators[begin:end])
            begin = end

    def _merge(self, groups: dict[bytes, Any], keys: Sequence[bytes], accumulators: Sequence[Any]) -> None:
        merge, key = self._fold.merge, b""
        try:
            for key, accumulator in zip(keys, accumulators, strict=True):
                groups[key] = merge(groups[key], accumulator) if key in groups else accumulator
        except AggregateOverflow as cause:
            raise overflow(self._node, cause, key) from cause
        except Exception as cause:
            raise ProcessingError(
                f"merging two partial results raised {type(cause).__name__}: {cause}",
                node=self._node,
                data=key,
                hint="a merge must be exact, associative and commutative",
            ) from cause

    def _settle(self) -> None:
        """Encode the keys that are still objects, once each."""
        for end_ms, groups in self._by_object.items():
            objects = list(groups)
            try:
                keys = self._key_serde.encoded_from_objects(objects)
            except RowError as error:
                raise SerializationError(
                    f"the key {objects[error.index]!r} is not of the declared type: {error.reason}",
                    node=self._node,
                    hint="return the declared type from group_by or key_by, or change the declaration",
                ) from error
            assert None not in keys, "null keys are refused when rows are added"
            self._put([end_ms] * len(keys), keys, list(groups.values()))  # type: ignore[arg-type]  # no nulls
        self._by_object.clear()

    def take_until(self, end_ms: int) -> "RowGroups":
        """Move the closed windows to a new collection."""
        taken = self._empty()
        for source, target in zip(self._held(), taken._held(), strict=True):  # noqa: SLF001  # one class
            for closed in [end for end in source if end <= end_ms]:
                target[closed] = source.pop(closed)
        return taken

    def take_all(self) -> "RowGroups":
        """Move everything to a new collection."""
        taken = self._empty()
        for source, target in zip(self._held(), taken._held(), strict=True):  # noqa: SLF001  # one class
            target |= source
            source.clear()
        return taken

    def _held(self) -> tuple[dict[int, Any], dict[int, Any]]:
        return self._by_object, self._by_key

    def ends_ms(self) -> npt.NDArray[np.int64]:
        """Return the window end of each group."""
        self._settle()
        return np.repeat(
            np.array(list(self._by_key), dtype=np.int64), [len(groups) for groups in self._by_key.values()]
        )

    def keys(self) -> Sequence[bytes]:
        """Return the encoded keys."""
        self._settle()
        return [key for groups in self._by_key.values() for key in groups]

    def merge_stored(self, stored: Sequence[bytes | None]) -> None:
        """Merge the stored accumulators in; a fold that cannot merge has loaded them already."""
        if not self._fold.mergeable:
            return
        self._settle()
        upcoming = iter(stored)
        for groups in self._by_key.values():
            # The groups come first: once they end, nothing more of what is stored is taken.
            found = [(key, data) for key, data in zip(groups, upcoming, strict=False) if data is not None]
            if found:
                keys, encoded = zip(*found, strict=True)
                # What is stored came first. The values of existing keys: the dict keeps its order.
                mine = [groups[key] for key in keys]
                groups.update(zip(keys, self._fold.decode(encoded), strict=True))
                self._merge(groups, keys, mine)

    def encoded(self) -> list[bytes]:
        """Return the encoded accumulators."""
        self._settle()
        return [encoded for groups in self._by_key.values() for encoded in self._fold.encode(groups.values())]

    def results(self) -> Results:
        """Return the finished groups, by window and key."""
        self._settle()
        for end_ms in sorted(self._by_key):
            groups = self._by_key.pop(end_ms)
            self._by_key[end_ms] = self._fold.empty()
            self._by_key[end_ms].update(sorted(groups.items()))
        keys: list[bytes | None] = list(self.keys())
        values = [self._final(key, value) for groups in self._by_key.values() for key, value in groups.items()]
        return Results(
            keys=Column(self._key_serde, encoded=keys),
            values=Column(self._value_serde, objects=values),
            ends_ms=self.ends_ms(),
        )

    def _final(self, key: bytes, accumulator: Any) -> Any:
        try:
            return self._fold.final(accumulator)
        except AggregateOverflow as cause:
            raise overflow(self._node, cause, key) from cause

    def blocks(self, shard_count: int) -> list[tuple[int, bytes]]:
        """Return row blocks by shard."""
        keys = self.keys()
        rows = list(zip(self.ends_ms().tolist(), keys, self.encoded(), strict=True))
        shards = partitions_of(keys, shard_count)
        order = np.argsort(shards, kind="stable")
        cuts = np.searchsorted(shards[order], np.arange(shard_count + 1)).tolist()
        placed = [rows[index] for index in order.tolist()]
        return [
            (shard, block)
            for shard, (begin, end) in enumerate(pairwise(cuts))
            for block in encode_row_block(placed[begin:end])
        ]
