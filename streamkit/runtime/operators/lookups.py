"""What a table has for a key, at this moment: asked of whoever keeps the table, and seen through what comes after it.

A join keeps nothing of its own: it looks up what the tables have, for the distinct keys of a batch at once.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from streamkit.records import Batch, Origin
from streamkit.runtime.operators.stateless import Step, objects_of
from streamkit.runtime.places import check_keys, processing_error

__all__ = ["Lookup", "StepLookup", "call_with", "found_in", "rows_of"]

Rows = npt.NDArray[np.int64]


class Lookup(Protocol):
    """A table that can be asked."""

    def look_up(self, rows: Batch) -> Batch:
        """Return the rows whose key has a value now, each with that value in place of its own.

        Args:
            rows: All rows of an origin of their own, of distinct keys, none of them null.

        Raises:
            RecordError: A function that makes the value failed; it names the record of the row that asked.
        """
        ...


class StepLookup:
    """A table behind a stateless node: what the node makes of what is before it."""

    def __init__(self, before: Lookup, step: Step) -> None:
        """Ask `before`, and run `step` on its answer."""
        self._before, self._step = before, step

    def look_up(self, rows: Batch) -> Batch:
        """Return what the step leaves."""
        found = self._before.look_up(rows)
        if not len(found):
            return found
        # The step tells its rows by their places in what it is given; they are given back as places in `rows`.
        made = self._step(_apart(found))
        return rows.spread(rows_of(found)[rows_of(made)], made.values)


def rows_of(batch: Batch) -> Rows:
    """Return the place of each row in the origin of its batch."""
    return np.arange(len(batch), dtype=np.int64) if batch.rows is None else batch.rows


def _apart(batch: Batch) -> Batch:
    """Return the same rows as all those of an origin of their own."""
    origin = Origin(
        source=batch.origin.source,
        offsets=batch.offsets,
        timestamps_ms=batch.timestamps_ms,
        watermarks_ms=batch.watermarks_ms,
        published_ms=batch.origin.published_ms,
    )
    return Batch(origin, batch.keys, batch.values)


def found_in(lookup: Lookup, batch: Batch, node: str) -> tuple[Rows, list[Any]]:
    """Ask a table for the key of each row of any batch, once for each distinct key.

    Returns:
        The rows whose key has a value, in order, and that value of each.

    Raises:
        RecordError: A key is not of its type, or the table raises it.
    """
    check_keys(batch, node)
    keys = batch.keys.encoded()
    first: dict[bytes, int] = {}
    for row, key in enumerate(keys):
        if key is not None:
            first.setdefault(key, row)
    if not first:
        return np.empty(0, dtype=np.int64), []
    found = lookup.look_up(_apart(batch.take(np.fromiter(first.values(), dtype=np.int64, count=len(first)))))
    distinct = list(first)
    values = {
        distinct[place]: value for place, value in zip(rows_of(found).tolist(), objects_of(found, node), strict=True)
    }
    matched = [row for row, key in enumerate(keys) if key is not None and key in values]
    return np.array(matched, dtype=np.int64), [values[keys[row]] for row in matched]


def call_with(
    fn: Callable[[Any, Any], Any], sides: tuple[Sequence[Any], Sequence[Any]], rows: Batch, node: str
) -> list[Any]:
    """Call a function with the two values of each row; an exception names the record of the row."""
    made: list[Any] = []
    try:
        made.extend(map(fn, *sides))
    except Exception as cause:
        raise processing_error(rows, len(made), node, cause) from cause
    return made
