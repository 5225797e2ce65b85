"""Entries in the order of their keys, the last one of each key: what a sorted table is written from.

Millions of entries do not fit into the processor's caches, and in the order of their keys each lies somewhere else. So
short keys are sorted as numbers, in columns, and keys and values are taken from cells of one size: numpy waits for many
of them at once, where an interpreter that follows references waits for one after the other.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streamkit.state.entries import FlatEntries

__all__ = ["in_order"]

_NUMPY_KEYS_MIN: Final = 1000
_WORD_BYTES: Final = 8
_WORDS_MAX: Final = 4
"""Of longer keys Python's own order of bytes is as fast (measured with random ones)."""

_ROWS: Final = 1000
_PADDING_MAX: Final = 2
"""Cells take at most this many times what is in them."""


def in_order(parts: Sequence[FlatEntries]) -> Iterator[tuple[Sequence[bytes], Sequence[bytes | None]]]:
    """Yield keys in the order of bytes, each once, and beside them the last value of each; up to 1,000 at a time.

    Cost: 0.25 us an entry of 116 bytes (measured). Memory for as much again as the entries have; for their objects too
    if some are tombstones or much longer than others.
    """
    lengths = np.concatenate([part.lengths for part in parts])
    key_lengths, value_lengths = lengths[:, 0], lengths[:, 1]
    if len(lengths) < _NUMPY_KEYS_MIN or key_lengths.max() > _WORDS_MAX * _WORD_BYTES:
        latest = {key: value for part in parts for key, value in zip(*part.columns(), strict=True)}
        ordered = sorted(latest)
        yield ordered, [latest[key] for key in ordered]
        return
    word_count = max(1, -(-int(key_lengths.max()) // _WORD_BYTES))
    keys = _cells([part.keys for part in parts], key_lengths, word_count * _WORD_BYTES)
    order = _order(keys.view(">u8").astype(np.uint64), key_lengths)
    value_bytes = max(1, int(value_lengths.max()))
    if value_lengths.min() < 0 or value_bytes * len(lengths) > _PADDING_MAX * int(value_lengths.sum()):
        values = np.array([value for part in parts for value in part.columns()[1]], dtype=object)
    else:
        values = _cells([part.values for part in parts], value_lengths, value_bytes)
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        yield _taken(keys, key_lengths, rows), _taken(values, value_lengths, rows)


def _cells(parts: Sequence[bytes], lengths: npt.NDArray[np.int64], cell_bytes: int) -> npt.NDArray[Any]:
    """Return byte strings that lie one behind the other, each in a row of its own, filled up with zeros."""
    cells = np.zeros((len(lengths), cell_bytes), dtype=np.uint8)
    ends, start, columns = np.cumsum(lengths), 0, np.arange(cell_bytes)
    done_bytes = 0
    for part in parts:
        done_bytes += len(part)
        end = int(np.searchsorted(ends, done_bytes, side="right"))
        some, source = cells[start:end], np.frombuffer(part, dtype=np.uint8)
        if (lengths[start:end] == cell_bytes).all():
            some[:] = source.reshape(some.shape)
        else:
            some[columns < lengths[start:end, None]] = source
        start = end
    return cells


def _order(words: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the last row of each key, in the order of keys: by their words, then by length: zeros may be their own."""
    columns = [lengths, *(words[:, index] for index in reversed(range(words.shape[1])))]
    columns = [column for column in columns if (column != column[0]).any()] or [lengths]
    order = np.lexsort(columns)  # of equal keys the later row stays behind
    last = np.zeros(len(order), dtype=bool)
    last[-1] = True
    for column in columns:
        placed = column[order]
        last[:-1] |= placed[1:] != placed[:-1]
    return order[last]


def _taken(cells: npt.NDArray[Any], lengths: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> list[Any]:
    if cells.dtype == object:
        items: list[Any] = cells[rows].tolist()
        return items
    cell_bytes = cells.shape[1]
    items = cells.view(f"V{cell_bytes}")[rows, 0].tolist()
    here = lengths[rows]
    if (here == cell_bytes).all():
        return items
    return [item[:length] for item, length in zip(items, here.tolist(), strict=True)]
