"""One segment: a file of record batches, named after its first offset, and its two index files.

`size_bytes` is the head: bytes of the file beyond it do not count, and are cut before the next append. The index
files are derived from the segment: written some time after it, never synced, compared with it whenever an entry is
used, and built again when they are missing, damaged or wrong.

Not here: which segment (`partition_log`), what to do about damage at open (`recovery`).
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from streamkit.errors import CorruptBatchError, SegmentFullError
from streamkit.log.header import HEADER_BYTES, BatchHeader, check, parse_header
from streamkit.log.index import SparseIndex
from streamkit.seams import FileSystem

__all__ = ["OFFSET_END", "SEGMENT_BYTES_MAX", "Segment"]

OFFSET_END: Final = 2**63
"""Beyond every offset."""

SEGMENT_BYTES_MAX: Final = 2**31 - 1
"""Positions and relative offsets in an index have 31 bits."""

_WALK_BYTES = 16 * 2**10

_UNSTORED_BYTES = 2**10
"""Index files are written so many bytes at a time: a write for each entry makes every fsync of the segment slower."""


class _Sizes(NamedTuple):
    """How much of an index its files hold."""

    offsets_bytes: int
    times_bytes: int


_NOTHING_STORED = _Sizes(0, 0)


class Segment:
    """An open segment. Reading is safe beside one thread that appends."""

    def __init__(self, fs: FileSystem, directory: str, base_offset: int, *, index_interval_bytes: int) -> None:
        """Open the file, made if missing. All that it holds counts."""
        stem = f"{directory}/{base_offset:020d}"
        self.path, self.base_offset, self.sealed = f"{stem}.log", base_offset, False
        self._index_paths = f"{stem}.index", f"{stem}.timeindex"
        self._fs, self._index_interval_bytes = fs, index_interval_bytes
        self._index: SparseIndex | None = None
        self._stored = _NOTHING_STORED
        self._file = fs.open(self.path, create=True)
        self.size_bytes = self._file.size_bytes()

    @property
    def index(self) -> SparseIndex:
        """The indexes: those in use, or from their files, or built again."""
        if self._index is None:
            stored = self.stored_index()
            if stored is None:
                return self._rebuild_index()
            self._index, self._stored = stored, _sizes(stored)
        return self._index

    def append(self, data: bytes | bytearray, headers: Sequence[BatchHeader], *, size_bytes_max: int) -> None:
        """Write batches at the head with one write; `headers` are those of the batches in `data`.

        Raises:
            SegmentFullError: They do not fit: the segment would exceed `size_bytes_max` and is not empty, or an
                index cannot hold the place. Nothing was written.
            OSError: The write failed; the head stays where it was.
        """
        end_position = self.size_bytes + len(data)
        farthest = max(end_position, headers[-1].last_offset - self.base_offset)
        if farthest > SEGMENT_BYTES_MAX or (self.size_bytes and end_position > size_bytes_max):
            primary = f"{len(data)} bytes do not fit into {self.path}, which has {self.size_bytes}"
            raise SegmentFullError(primary)
        self._cut_beyond_head()
        index, position = self.index, self.size_bytes
        self._file.write_at(position, data)
        self.size_bytes = end_position
        for header in headers:
            index.note(header, position)
            position += header.size_bytes
        if len(index.offsets) - self._stored.offsets_bytes >= _UNSTORED_BYTES:
            self._store_index(index)

    def sync(self) -> None:
        """Make what was appended durable."""
        self._file.sync()

    def finish(self) -> None:
        """Make the segment durable, with nothing beyond its head, before another one is begun."""
        self._cut_beyond_head()
        self._file.sync()

    def seal(self) -> None:
        """Complete the indexes: the segment takes no more batches."""
        self.index.seal()
        self._store_index(self.index)
        self.sealed = True

    def truncate(self, size_bytes: int) -> None:
        """Cut the segment back to a batch boundary, durably, and let it take batches again."""
        self.size_bytes, self.sealed = size_bytes, False
        self.finish()
        self._rebuild_index()

    def read_at(self, position: int, size_bytes: int) -> bytes:
        """Return bytes of the file, as many of them as lie before the head."""
        return self._file.read_at(position, max(0, min(size_bytes, self.size_bytes - position)))

    def headers(self, position: int = 0) -> Iterator[tuple[int, BatchHeader]]:
        """Yield position and header of each batch from the one at `position` on; CRCs are not checked.

        Raises:
            CorruptBatchError: A header is damaged; names file and byte.
        """
        end_position, data, data_position = self.size_bytes, b"", position
        while position < end_position:
            if position + HEADER_BYTES > data_position + len(data):
                data, data_position = self.read_at(position, _WALK_BYTES), position
            header = self._parse(data, position - data_position, position)
            yield position, header
            position += header.size_bytes

    def locate(self, offset: int) -> int:
        """Return the position of the first batch that ends at or after `offset`; the head if there is none."""
        entry = self.index.batch_before(offset)
        position = 0 if entry is None else entry.position
        if entry is not None and not self.agrees(position, last_offset=entry.offset):
            self._distrust_index()
            position = 0
        return next((at for at, header in self.headers(position) if header.last_offset >= offset), self.size_bytes)

    def locate_time(self, timestamp_ms: int) -> int:
        """Return the position of a batch before which no record reaches `timestamp_ms`."""
        entry = self.index.time_before(timestamp_ms)
        if entry is None:
            return 0
        position = self.locate(entry.offset)
        if self.agrees(position, last_offset=entry.offset, max_timestamp_ms=entry.timestamp_ms):
            return position
        self._distrust_index()
        return 0

    def batches(self, position: int, *, bytes_max: int, end: int = OFFSET_END) -> Iterator[tuple[int, bytes]]:
        """Read once, and yield position and bytes of each checked batch that lies below the offset `end`.

        Args:
            position: Where a batch begins.
            bytes_max: How much is read; the first batch comes whole even if it is larger.
            end: A batch that reaches this offset is left out, and those after it.

        Raises:
            CorruptBatchError: A batch is damaged; names file and byte.
        """
        data = self.read_at(position, max(bytes_max, HEADER_BYTES))
        start = 0
        while start < len(data):
            if start and start + HEADER_BYTES > len(data):
                break
            header = self._parse(data, start, position + start)
            if header.last_offset >= end:
                break
            if start + header.size_bytes > len(data):
                if start:
                    break
                data = self.read_at(position, header.size_bytes)
            batch = data[start : start + header.size_bytes]
            try:
                check(batch)
            except CorruptBatchError as error:
                raise self.damage(error.primary, position + start) from error
            yield position + start, batch
            start += header.size_bytes

    def agrees(self, position: int, *, last_offset: int, max_timestamp_ms: int | None = None) -> bool:
        """Return whether the batch at `position` is the one that an index entry says."""
        try:
            header = self._parse(self.read_at(position, HEADER_BYTES), 0, position)
        except CorruptBatchError:
            return False
        return header.last_offset == last_offset and max_timestamp_ms in (None, header.max_timestamp_ms)

    def damage(self, primary: str, position: int) -> CorruptBatchError:
        """Return the error for damage at a byte of this file."""
        hint = "nothing was changed: restore the file from a backup"
        return CorruptBatchError(primary, file=self.path, position=position, hint=hint)

    def new_index(self) -> SparseIndex:
        """Return an empty index for this segment."""
        return SparseIndex(self.base_offset, self._index_interval_bytes)

    def stored_index(self) -> SparseIndex | None:
        """Read the index files; None if one is missing or they cannot be a segment's."""
        stored = self._stored_bytes()
        return None if stored is None else SparseIndex.parse(self.base_offset, self._index_interval_bytes, *stored)

    def adopt_index(self, index: SparseIndex) -> None:
        """Use an index built from this segment; the files are written only if they differ."""
        self._index, self._stored = index, _sizes(index)
        if self._stored_bytes() != (bytes(index.offsets), bytes(index.times)):
            self._stored = _NOTHING_STORED
            self._store_index(index)

    def close(self) -> None:
        """Complete the index files and close the file."""
        if self._index is not None and self._stored != _sizes(self._index):
            self._store_index(self._index)
        self._file.close()

    def remove(self) -> None:
        """Remove the files; who has the segment open may go on reading."""
        for path in (self.path, *self._index_paths):
            self._fs.remove(path)

    def _cut_beyond_head(self) -> None:
        if self._file.size_bytes() > self.size_bytes:
            self._file.truncate(self.size_bytes)

    def _parse(self, data: bytes, start: int, position: int) -> BatchHeader:
        try:
            header = parse_header(data, start)
        except CorruptBatchError as error:
            raise self.damage(error.primary, position) from error
        if position + header.size_bytes > self.size_bytes:
            primary = f"record batch claims {header.size_bytes} bytes, {self.size_bytes - position} are there"
            raise self.damage(primary, position)
        return header

    def _distrust_index(self) -> None:
        # The index of the segment that is appended to belongs to the appending thread; lookups then walk.
        if self.sealed:
            self._rebuild_index()

    def _rebuild_index(self) -> SparseIndex:
        index = self.new_index()
        for position, header in self.headers():
            index.note(header, position)
        if self.sealed:
            index.seal()
        self._index, self._stored = index, _NOTHING_STORED
        self._store_index(index)
        return index

    def _stored_bytes(self) -> tuple[bytes, bytes] | None:
        contents = []
        for path in self._index_paths:
            try:
                file = self._fs.open(path)
            except FileNotFoundError:
                return None
            with contextlib.closing(file):
                contents.append(file.read_at(0, file.size_bytes()))
        return contents[0], contents[1]

    def _store_index(self, index: SparseIndex) -> None:
        # The files only save the next opening some work: nothing fails for them.
        with contextlib.suppress(OSError):
            for path, entries, start in zip(self._index_paths, (index.offsets, index.times), self._stored, strict=True):
                with contextlib.closing(self._fs.open(path, create=True)) as file:
                    file.write_at(start, entries[start:])
                    if file.size_bytes() > len(entries):
                        file.truncate(len(entries))
            self._stored = _sizes(index)


def _sizes(index: SparseIndex) -> _Sizes:
    return _Sizes(len(index.offsets), len(index.times))
