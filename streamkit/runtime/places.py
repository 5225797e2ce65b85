"""Where a row came from: its index within its record, and the error that names topic, partition, offset and node."""

from typing import Final

import numpy as np
import numpy.typing as npt

from streamkit.errors import DeserializationError, ProcessingError, RecordError, SerializationError
from streamkit.records import Batch, RowError
from streamkit.runtime.aggregates import AggregateOverflow

__all__ = ["bad_row", "check_keys", "processing_error", "rows_in_record", "spread_numbers"]

_SPREAD_BITS: Final = 20
"""Room for what one row becomes at each step that numbers rows anew: a million; three steps fit."""
_MEND: Final = "mend the function; the record stays uncommitted and the next run begins before it"


def bad_row(batch: Batch, error: RowError, node: str, kind: type[RecordError] = DeserializationError) -> RecordError:
    """Return the error of the row at `error.index` of `batch`, ready to be raised from `error`."""
    return kind(
        error.reason,
        topic=batch.origin.source.topic,
        partition=batch.origin.source.partition,
        offset=int(batch.offsets[error.index]),
        node=node,
        data=error.data,
    )


def processing_error(batch: Batch, index: int, node: str, cause: Exception, hint: str = _MEND) -> ProcessingError:
    """Return the error of a user's function that raised `cause` for the row at `index`."""
    preview = _preview(batch, index)
    return ProcessingError(
        f"{type(cause).__name__}: {cause}",
        topic=batch.origin.source.topic,
        partition=batch.origin.source.partition,
        offset=int(batch.offsets[index]),
        node=node,
        data=preview,
        hint=cause.hint if isinstance(cause, AggregateOverflow) else hint,
    )


def check_keys(batch: Batch, node: str) -> None:
    """Encode the key of each row: a group would do so once, when nobody knows its rows any more.

    Raises:
        SerializationError: A key is not of its type; it names the record.
    """
    try:
        batch.keys.encoded()
    except RowError as error:
        raise bad_row(batch, error, node, SerializationError) from error


def rows_in_record(batch: Batch) -> npt.NDArray[np.int64]:
    """Return each row's index among the rows of its own record, which no cut of the batch changes."""
    numbers = batch.origin.row_numbers
    if numbers is not None:
        rows = np.arange(len(numbers)) if batch.rows is None else batch.rows
        return spread_numbers(numbers[rows], rows)
    # Records of one offset but two timestamps are results of two windows.
    offsets, stamps = batch.offsets, batch.timestamps_ms
    return _ranks((np.diff(offsets, prepend=offsets[0] - 1) | np.diff(stamps, prepend=stamps[0])).astype(np.int64))


def spread_numbers(numbers: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers of rows that others became: those of one row, which stand together, come one after the other.

    Args:
        numbers: Of the row that each stems from.
        rows: The index of that row.
    """
    if not len(rows):
        return numbers
    return (numbers << _SPREAD_BITS) + _ranks(np.diff(rows, prepend=rows[0] - 1))


def _ranks(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count from 0 in each run of rows; a step that is not 0 begins one."""
    begins = np.flatnonzero(steps)
    indices = np.arange(len(steps), dtype=np.int64)
    ranks: npt.NDArray[np.int64] = indices - np.repeat(begins, np.diff(begins, append=len(indices)))
    return ranks


def _preview(batch: Batch, index: int) -> bytes:
    return repr(batch.values.objects()[index]).encode("utf-8", "backslashreplace")
