"""The stateful operator: merges partial results over the overlay, closes windows, emits results.

Between commits it holds only *deltas*. A window that opens and closes within one commit touches neither store nor
changelog; `_stored` spares reads for windows of which nothing is stored, or whose rows are in memory.
"""

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from streamkit.errors import RecordError
from streamkit.graph import AnyWindow, Emit
from streamkit.records import NEVER_MS, Batch, Origin, TopicPartition
from streamkit.runtime.context import TaskContext
from streamkit.runtime.groups import FrameGroups, Groups, RowGroups, RowWindows
from streamkit.runtime.groups.base import UNWINDOWED_MS
from streamkit.runtime.operators.base import Fan
from streamkit.runtime.operators.stored import StoredWindows
from streamkit.runtime.places import check_keys
from streamkit.state import Digest, split_window_key, store_key, store_range, window_keys, window_range

__all__ = ["AggregateOperator", "AggregateSpec"]

_RUN: Final = struct.Struct(">I")
RUN_BYTES: Final = _RUN.size
"""Of a value without windows, the number of the run that changed it last."""
_SCANNED_ROWS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateSpec:
    """What one aggregation is; `window` None keeps one group a key for ever.

    `published_ms` goes with its results: windows of them that begin at or before it were published by an earlier run.
    """

    node: str
    store_index: int
    window: AnyWindow | None
    emit: Emit
    ordered: bool
    published_ms: int = NEVER_MS


class AggregateOperator:
    """One store of one task.

    The value of a window's group is its accumulator; without windows the number of the run that changed it last
    leads it, so that a bounded run can write each changed key once, at its end, after any crash.

    Args:
        spec: What it is.
        groups: An empty collection of the right spelling.
        context: Of the task.
        digest: Of the store's contents, as of the task's position.
    """

    def __init__(self, spec: AggregateSpec, groups: Groups, context: TaskContext, digest: Digest) -> None:
        """Start from what the store holds."""
        self.spec, self._groups, self._context, self.digest = spec, groups, context, digest
        self._empty = groups.take_all()
        self._stored = StoredWindows(self._window_ends() if spec.window is not None else ())
        self.out = Fan()
        self._ended = False

    def _window_ends(self) -> Iterator[int]:
        """Yield the end of each window that has stored rows: one look at the first row of each."""
        begin, end = store_range(self.spec.store_index)
        while (row := next(self._context.overlay.scan(begin, end), None)) is not None:
            end_ms = split_window_key(row[0])[1]
            yield end_ms
            begin = window_range(self.spec.store_index, end_ms)[1]

    @property
    def held_count(self) -> int:
        """How many partial rows of open windows were folded since the last commit; a table without windows has none."""
        return 0 if self.spec.window is None else len(self._groups)

    @property
    def closed_by_end(self) -> bool:
        """Whether the end of this run closed its windows."""
        return self._ended and self.spec.window is not None

    def receive(self, batch: Batch) -> None:
        """Fold rows without windows."""
        self.fold(batch, None)

    def fold(self, batch: Batch, windows: RowWindows | None) -> None:
        """Fold rows that were not shuffled."""
        if self._context.careful:
            check_keys(batch, self.spec.node)
        if self.spec.ordered:
            assert isinstance(self._groups, RowGroups), "an ordered fold is a Python function"
            self._load([pair for pair in self._groups.missing_keys(batch, windows) if self._may_be_stored(pair[0])])
        self._groups.add(batch, windows)

    def _may_be_stored(self, end_ms: int) -> bool:
        return self.spec.window is None or end_ms in self._stored

    def _load(self, pairs: list[tuple[int, bytes]]) -> None:
        """Load stored accumulators, for a fold that cannot merge."""
        stored = self._context.overlay.get_many(self._store_keys([end for end, _ in pairs], [key for _, key in pairs]))
        found = [(end, key, value) for (end, key), value in zip(pairs, stored, strict=True) if value is not None]
        if found:
            ends, keys, values = zip(*found, strict=True)
            self._groups.load(ends, keys, self._without_run(values))

    def absorb(self, block: bytes) -> None:
        """Merge a block of a shuffle."""
        self._groups.absorb(block)

    def _store_keys(self, ends_ms: Sequence[int] | npt.NDArray[np.int64], keys: Sequence[bytes]) -> list[bytes]:
        if self.spec.window is None:
            prefix = store_key(self.spec.store_index, b"")
            return [prefix + key for key in keys]
        return window_keys(self.spec.store_index, ends_ms, keys)

    def _without_run(self, values: Sequence[bytes]) -> list[bytes]:
        return list(values) if self.spec.window is not None else [value[_RUN.size :] for value in values]

    def _with_run(self, values: list[bytes]) -> list[bytes]:
        if self.spec.window is not None:
            return values
        run = _RUN.pack(self._context.run.number)
        return [run + value for value in values]

    def advance(self, watermark_ms: int) -> None:
        """Close the windows whose end plus grace the watermark has reached, then let the watermark on, less grace."""
        window = self.spec.window
        if window is None:
            self.out.advance(watermark_ms)
            return
        self._close_until(watermark_ms - window.grace_ms)
        # A result is stamped end - 1, so after it nothing on time lies below the watermark less grace.
        self.out.advance(watermark_ms - window.grace_ms)

    def end(self) -> None:
        """Close all windows: no more input comes in this run."""
        if self._ended:
            return
        self._ended = True
        if self.spec.window is not None:
            self._close_until(2**62)
        self.out.end()

    def _close_until(self, end_ms: int) -> None:
        closed = self._groups.take_until(end_ms)
        updating = self.spec.emit == "update"
        if updating and len(closed):
            self._merge_stored(closed)
            self._emit(closed)
        for stored_end, rows in self._stored.take_until(end_ms):
            if rows is None:
                pairs = self._stored_pairs(stored_end)
                self._drop_window(stored_end, [key for key, _ in pairs], [value for _, value in pairs])
                if not updating:
                    self._load_closed(closed, stored_end, pairs)
                continue
            self._drop_window(stored_end, self._store_keys(rows.ends_ms(), rows.keys()), rows.encoded())
            if not updating:
                assert isinstance(closed, FrameGroups), "rows are kept in the spelling of the aggregation"
                closed.merge(rows)
        if not updating and len(closed):
            self._emit(closed)

    def _load_closed(self, closed: Groups, end_ms: int, pairs: list[tuple[bytes, bytes]]) -> None:
        """Add what was stored of a window; an ordered fold has gone on from it where its key came again."""
        stored = {split_window_key(key)[2]: value for key, value in pairs}
        if self.spec.ordered:
            for held_ms, key in zip(closed.ends_ms().tolist(), closed.keys(), strict=True):
                if held_ms == end_ms:
                    stored.pop(key, None)
        closed.load([end_ms] * len(stored), list(stored), list(stored.values()))

    def _stored_pairs(self, end_ms: int) -> list[tuple[bytes, bytes]]:
        return list(self._context.overlay.scan(*window_range(self.spec.store_index, end_ms)))

    def _drop_window(self, end_ms: int, keys: list[bytes], values: list[bytes]) -> None:
        begin, end = window_range(self.spec.store_index, end_ms)
        self._context.overlay.delete_range(self.spec.store_index, begin, end, keys)
        self.digest.remove(keys, values)

    def _merge_stored(self, groups: Groups) -> tuple[list[bytes], list[bytes | None]]:
        """Merge what is stored into `groups`; return the store keys and the values as they were."""
        ends_ms, keys = groups.ends_ms(), groups.keys()
        store_keys = self._store_keys(ends_ms, keys)
        if self.spec.window is not None and self._stored.isdisjoint(set(ends_ms.tolist())):
            return store_keys, [None] * len(store_keys)
        stored = self._context.overlay.get_many(store_keys)
        if self.spec.window is None:
            groups.merge_stored([None if value is None else value[_RUN.size :] for value in stored])
        else:
            groups.merge_stored(stored)
        return store_keys, stored

    def seal(self) -> None:
        """Merge the deltas into the overlay, before a commit; emit updates."""
        if not len(self._groups):
            return
        groups = self._groups.take_all()
        store_keys, stored = self._merge_stored(groups)
        values = self._with_run(groups.encoded())
        self.digest.replace(store_keys, stored, values)
        self._context.overlay.put_many(self.spec.store_index, store_keys, values)
        if self.spec.window is not None:
            self._stored.store(groups)
        if self.spec.emit == "update" and not (self.spec.window is None and self._context.run.bounded):
            self._emit(groups)

    def emit_changed(self, after_run: int, to_run: int) -> None:
        """Emit each key that a run after one, up to another, changed last, as it was sealed, some at a time.

        A table of windows has none.
        """
        if self.spec.window is not None:
            return
        after, to = _RUN.pack(after_run), _RUN.pack(to_run)
        begin, end = store_range(self.spec.store_index)
        changed = (
            (key[len(begin) :], value[_RUN.size :])
            for key, value in self._context.overlay.scan(begin, end)
            if after < value[: _RUN.size] <= to
        )
        for some in _chunks(changed):
            groups = self._empty.take_all()
            groups.load([UNWINDOWED_MS] * len(some), [key for key, _ in some], [value for _, value in some])
            self._emit(groups)

    def stored(self) -> list[tuple[int, bytes, object]]:
        """Return window end (0 without windows), encoded key and finished value of every group that was sealed."""
        begin, end = store_range(self.spec.store_index)
        pairs = list(self._context.overlay.scan(begin, end))
        if not pairs:
            return []
        groups = self._empty.take_all()
        if self.spec.window is None:
            places = [(UNWINDOWED_MS, key[len(begin) :]) for key, _ in pairs]
        else:
            places = [split_window_key(key)[1:] for key, _ in pairs]
        groups.load([end for end, _ in places], [key for _, key in places], self._without_run([v for _, v in pairs]))
        results = groups.results()
        return list(zip(results.ends_ms.tolist(), groups.keys(), results.values.objects(), strict=True))

    def look_up(self, rows: Batch) -> Batch:
        """Return the rows whose key has a result, with that result; of a table without windows.

        What was folded since the last commit is merged first, so every row that was received before counts.
        """
        self.seal()
        keys = [key for key in rows.keys.encoded() if key is not None]
        stored = self._context.overlay.get_many([store_key(self.spec.store_index, key) for key in keys])
        there = {key: row for row, (key, value) in enumerate(zip(keys, stored, strict=True)) if value is not None}
        if not there:
            return rows.take(np.empty(0, dtype=np.int64))
        groups = self._empty.take_all()
        values = [value for value in stored if value is not None]
        groups.load([UNWINDOWED_MS] * len(there), list(there), self._without_run(values))
        # The results come in an order of their own, which the keys then have too.
        results = groups.results()
        return rows.spread(np.array([there[key] for key in groups.keys()], dtype=np.int64), results.values)  # noqa: SIM118  # not a dict

    def _emit(self, groups: Groups) -> None:
        results = groups.results()
        count = len(results.ends_ms)
        stamps, windows = np.full(count, max(self._context.stream_time_ms, 0), dtype=np.int64), None
        if self.spec.window is not None:
            stamps = results.ends_ms - 1
            windows = (results.ends_ms - self.spec.window.size_ms, results.ends_ms)
        origin = Origin(
            source=TopicPartition(self.spec.node, self._context.partition),
            offsets=np.arange(count, dtype=np.int64),
            timestamps_ms=stamps,
            watermarks_ms=np.full(count, self.out.watermark_ms, dtype=np.int64),
            published_ms=self.spec.published_ms,
            windows=windows,
        )
        batch = Batch(origin, results.keys, results.values)
        if self._context.aside.has_results(self.spec.node):
            batch, left_out = self._context.aside.without_results(batch, self._context.reading, self._context.internal)
            self._context.counters.add(left_out)
        try:
            self.out.receive(batch)
        except RecordError:
            self._context.emitted[self.spec.node] = batch
            raise


def _chunks(pairs: Iterable[tuple[bytes, bytes]]) -> Iterable[list[tuple[bytes, bytes]]]:
    upcoming = iter(pairs)
    while some := list(itertools.islice(upcoming, _SCANNED_ROWS)):
        yield some
