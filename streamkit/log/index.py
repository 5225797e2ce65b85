"""The two sparse indexes of a segment, in memory in exactly the bytes of their files.

The offset index maps the last offset of a batch to the batch's byte position, the time index the largest timestamp
so far to the last offset of the batch that holds it. An entry is added before a batch when more than
`interval_bytes` were appended since the last one, so an index depends on its segment alone and can be built again.
An index that lacks entries is slower, never wrong; entries are compared with the segment when they are used.

Not here: files, and that comparison (`segment`).
"""

import struct
from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from streamkit.log.header import NO_TIMESTAMP_MS, BatchHeader

__all__ = ["OffsetEntry", "SparseIndex", "TimeEntry"]

_OFFSET_ENTRY = struct.Struct(">ii")
_TIME_ENTRY = struct.Struct(">qi")
_OFFSET_TYPE = np.dtype([("offset", ">i4"), ("position", ">i4")])
_TIME_TYPE = np.dtype([("timestamp_ms", ">i8"), ("offset", ">i4")])


class OffsetEntry(NamedTuple):
    """The batch that ends with `offset` begins at byte `position`."""

    offset: int
    position: int


class TimeEntry(NamedTuple):
    """No record up to `offset` has a larger timestamp; the batch that ends there has this one."""

    timestamp_ms: int
    offset: int


class SparseIndex:
    """Offset and time index of the segment that begins at `base_offset`."""

    __slots__ = ("_base_offset", "_interval_bytes", "_largest", "_unindexed_bytes", "offsets", "times")

    def __init__(self, base_offset: int, interval_bytes: int) -> None:
        """Start empty."""
        self.offsets, self.times = bytearray(), bytearray()
        self._base_offset, self._interval_bytes = base_offset, interval_bytes
        self._largest = TimeEntry(NO_TIMESTAMP_MS, base_offset)
        self._unindexed_bytes = 0

    @classmethod
    def parse(cls, base_offset: int, interval_bytes: int, offsets: bytes, times: bytes) -> "SparseIndex | None":
        """Take the contents of two index files; None if they cannot be a segment's indexes."""
        if len(offsets) % _OFFSET_ENTRY.size or len(times) % _TIME_ENTRY.size:
            return None
        columns = [
            *((np.frombuffer(offsets, _OFFSET_TYPE)[name], 0) for name in ("offset", "position")),
            (np.frombuffer(times, _TIME_TYPE)["timestamp_ms"], NO_TIMESTAMP_MS + 1),
            (np.frombuffer(times, _TIME_TYPE)["offset"], 0),
        ]
        if not all((column >= least).all() and (column[1:] > column[:-1]).all() for column, least in columns):
            return None
        index = cls(base_offset, interval_bytes)
        index.offsets, index.times = bytearray(offsets), bytearray(times)
        index._largest = index._last_time()
        return index

    def note(self, header: BatchHeader, position: int) -> None:
        """Take account of a batch that begins at `position`; called for each batch of the segment, in order.

        Control batches are left out of the time index: their timestamps are not those of records.
        """
        if not header.control and header.max_timestamp_ms > self._largest.timestamp_ms:
            self._largest = TimeEntry(header.max_timestamp_ms, header.last_offset)
        if self._unindexed_bytes > self._interval_bytes:
            self.offsets += _OFFSET_ENTRY.pack(header.last_offset - self._base_offset, position)
            self.seal()
            self._unindexed_bytes = 0
        self._unindexed_bytes += header.size_bytes

    @property
    def largest(self) -> TimeEntry:
        """The largest timestamp that was noted, -1 at the base offset if there is none."""
        return self._largest

    def seal(self) -> None:
        """Add the last time entry, once the segment takes no more batches."""
        if self._largest.timestamp_ms > self._last_time().timestamp_ms:
            self.times += _TIME_ENTRY.pack(self._largest.timestamp_ms, self._largest.offset - self._base_offset)

    def rewind_to(self, entry: OffsetEntry) -> None:
        """Go back to just before the batch of one of its entries was noted, but for the entry itself."""
        offset_count = bisect_right(range(len(self.offsets) // _OFFSET_ENTRY.size), entry.offset, key=self._offset)
        time_count = bisect_right(range(len(self.times) // _TIME_ENTRY.size), entry.offset, key=self._time_offset)
        del self.offsets[offset_count * _OFFSET_ENTRY.size :], self.times[time_count * _TIME_ENTRY.size :]
        self._largest, self._unindexed_bytes = self._last_time(), 0

    def batch_before(self, offset: int) -> OffsetEntry | None:
        """Return the last entry whose batch ends at or before `offset`."""
        count = bisect_right(range(len(self.offsets) // _OFFSET_ENTRY.size), offset, key=self._offset)
        if not count:
            return None
        relative_offset, position = _OFFSET_ENTRY.unpack_from(self.offsets, (count - 1) * _OFFSET_ENTRY.size)
        return OffsetEntry(self._base_offset + relative_offset, position)

    def time_before(self, timestamp_ms: int) -> TimeEntry | None:
        """Return the last entry below `timestamp_ms`: no record up to its offset reaches that timestamp."""
        count = bisect_left(range(len(self.times) // _TIME_ENTRY.size), timestamp_ms, key=self._timestamp_ms)
        return self._time(count - 1) if count else None

    def _offset(self, row: int) -> int:
        relative_offset: int = _OFFSET_ENTRY.unpack_from(self.offsets, row * _OFFSET_ENTRY.size)[0]
        return self._base_offset + relative_offset

    def _time(self, row: int) -> TimeEntry:
        timestamp_ms, relative_offset = _TIME_ENTRY.unpack_from(self.times, row * _TIME_ENTRY.size)
        return TimeEntry(timestamp_ms, self._base_offset + relative_offset)

    def _timestamp_ms(self, row: int) -> int:
        return self._time(row).timestamp_ms

    def _time_offset(self, row: int) -> int:
        return self._time(row).offset

    def _last_time(self) -> TimeEntry:
        count = len(self.times) // _TIME_ENTRY.size
        return self._time(count - 1) if count else TimeEntry(NO_TIMESTAMP_MS, self._base_offset)
