"""The log of one partition: segments in offset order, appended at the head, read from any offset.

The head (which segments there are, and the next offset) is one value that is replaced whole, so a reader or a sync
beside the one appending thread sees a head that was. Nothing appended counts as durable before `sync` returned.

Not here: who may append and who sees what (`broker.partition`), what a crash leaves (`recovery`).
"""

import contextlib
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streamkit.errors import SegmentFullError
from streamkit.log.codec import decode
from streamkit.log.cut import LogPlace
from streamkit.log.header import BatchHeader, parse_header, place
from streamkit.log.recovery import recover
from streamkit.log.segment import OFFSET_END, Segment
from streamkit.seams import FileSystem

__all__ = ["LogConfig", "PartitionLog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """Kafka's `segment.bytes` and `index.interval.bytes` of the topic."""

    segment_bytes: int
    index_interval_bytes: int


class _Head(NamedTuple):
    segments: tuple[Segment, ...]
    end_offset: int
    active_bytes: int
    """How much of the last segment counts."""


class PartitionLog:
    """One partition's segments. One thread appends at a time; reading and syncing are safe beside it."""

    def __init__(self, fs: FileSystem, directory: str, config: LogConfig, head: _Head) -> None:
        """Take recovered segments; see `open`."""
        self._fs, self._directory, self._config, self._head = fs, directory, config, head
        self.start_offset = head.segments[0].base_offset
        self._synced_offset = self._acknowledged_offset = head.end_offset
        self._sync_lock = threading.Lock()
        self._failure: OSError | None = None

    @classmethod
    def open(cls, fs: FileSystem, directory: str, config: LogConfig, *, recover_from: int = 0) -> "PartitionLog":
        """Open the log in `directory`, made if missing; what a crash left torn at the end is cut.

        Args:
            fs: The files.
            directory: The partition's directory.
            config: Of the topic.
            recover_from: Everything below this offset is known to be durable.

        Raises:
            CorruptBatchError: There is damage that is no torn tail; names file and byte. Nothing was changed.
        """
        fs.make_dirs(directory)
        recovered = recover(fs, directory, recover_from=recover_from, index_interval_bytes=config.index_interval_bytes)
        segments = tuple(recovered.segments)
        return cls(fs, directory, config, _Head(segments, recovered.end_offset, segments[-1].size_bytes))

    @property
    def end_offset(self) -> int:
        """The next offset that is given out."""
        return self._head.end_offset

    @property
    def durable_offset(self) -> int:
        """Everything below it survives a power cut, or was acknowledged without that."""
        return max(self._synced_offset, self._acknowledged_offset)

    @property
    def synced(self) -> bool:
        """Whether everything appended survives a power cut."""
        return self._synced_offset == self._head.end_offset

    @property
    def place(self) -> LogPlace:
        """Where the log ends in its files."""
        segments, _, active_bytes = self._head
        return LogPlace(segments[-1].base_offset, active_bytes)

    def append(self, batches: Sequence[bytearray]) -> tuple[int, int]:
        """Give the batches their offsets and write them at the head, in as few writes as segments allow.

        Args:
            batches: At least one, each at most as large as a batch may be; placed here.

        Returns:
            The first and last offset given out (inclusive).

        Raises:
            OSError: The file system refused. Nothing was appended: the head is where it was. A refused fsync is
                final, as in `sync`.

        Cost: one write a segment; no sync but of a segment that is full.
        """
        if self._failure is not None:
            raise self._failure
        before = self._head
        headers, end_offset = [], before.end_offset
        for batch in batches:
            place(batch, end_offset)
            headers.append(parse_header(batch))
            end_offset = headers[-1].last_offset + 1
        begun: list[Segment] = []
        try:
            self._write(begun, batches, headers)
        except BaseException:
            self._take_back(begun, before.active_bytes)
            raise
        segments = (*before.segments, *begun)
        self._head = _Head(segments, end_offset, segments[-1].size_bytes)
        return before.end_offset, end_offset - 1

    def sync(self, upto: int) -> None:
        """Return once everything below the offset `upto` is durable; one fsync serves all who wait.

        Raises:
            OSError: The fsync failed, now or earlier: what is on the disk is unknown, so it is not tried again.
        """
        with self._sync_lock:
            if self._failure is not None:
                raise self._failure
            if self._synced_offset >= upto:
                return
            segments, end_offset, _ = self._head
            with self._failing_for_good():
                # Every earlier segment was synced before the next one was begun.
                segments[-1].sync()
            self._synced_offset = end_offset

    def acknowledge(self) -> None:
        """Count everything appended as durable, though it is not: the caller cuts the log if it is lost.

        One thread calls this at a time.

        Raises:
            OSError: An fsync failed earlier.
        """
        if self._failure is not None:
            raise self._failure
        self._acknowledged_offset = self._head.end_offset

    def read(self, offset: int, *, bytes_max: int, end: int = OFFSET_END) -> list[bytes]:
        """Return checked batches, from the one that holds `offset` (or the first after it) on.

        Args:
            offset: Below `end`.
            bytes_max: About how much; at least one batch comes, however large.
            end: A batch that reaches this offset is left out, and all after it.

        Raises:
            CorruptBatchError: A batch is damaged; names file and byte.
        """
        found: list[bytes] = []
        for segment in self._segments_from(offset):
            position = segment.locate(offset)
            while bytes_max > 0 or not found:
                batches = [batch for _, batch in segment.batches(position, bytes_max=bytes_max, end=end)]
                if not batches:
                    break
                found += batches
                read_bytes = sum(map(len, batches))
                position, bytes_max = position + read_bytes, bytes_max - read_bytes
            if found and bytes_max <= 0:
                break
        return found

    def scan(self, from_offset: int) -> Iterator[BatchHeader]:
        """Yield the header of each batch, from the one that holds `from_offset` on; CRCs are not checked.

        Raises:
            CorruptBatchError: A header is damaged; names file and byte.
        """
        for segment in self._segments_from(from_offset):
            for _, header in segment.headers(segment.locate(from_offset)):
                yield header

    def offset_for_time(self, timestamp_ms: int) -> int | None:
        """Return the first offset whose timestamp is not below `timestamp_ms`, None if there is none.

        Source: KIP-33.
        """
        for segment in self._segments_from(self.start_offset):
            for position, header in segment.headers(segment.locate_time(timestamp_ms)):
                if header.control or header.max_timestamp_ms < timestamp_ms or header.last_offset < self.start_offset:
                    continue
                ((_, batch),) = segment.batches(position, bytes_max=1)
                records = decode([batch], from_offset=self.start_offset)
                reached = np.flatnonzero(records.timestamps_ms >= timestamp_ms)
                if len(reached):
                    return int(records.offsets[reached[0]])
        return None

    def delete_before(self, offset: int) -> None:
        """Move the log start up to `offset`, and remove the segments that lie wholly below it.

        Who is reading such a segment reads on. Called by the thread that appends.
        """
        self.start_offset = max(self.start_offset, offset)
        segments = self._head.segments
        first = self._segment_index(segments, self.start_offset)
        self._head = self._head._replace(segments=segments[first:])
        for segment in segments[:first]:
            segment.remove()

    def close(self) -> None:
        """Close the files; closing twice does nothing."""
        for segment in self._head.segments:
            segment.close()

    def _write(self, begun: list[Segment], batches: Sequence[bytearray], headers: Sequence[BatchHeader]) -> None:
        segment, start = self._head.segments[-1], 0
        while start < len(batches):
            end, size_bytes = start + 1, len(batches[start])
            while end < len(batches) and segment.size_bytes + size_bytes + len(batches[end]) <= self._segment_bytes:
                size_bytes += len(batches[end])
                end += 1
            data = batches[start] if end == start + 1 else b"".join(batches[start:end])
            try:
                segment.append(data, headers[start:end], size_bytes_max=self._segment_bytes)
            except SegmentFullError:
                segment = self._roll(segment, begun, headers[start].base_offset)
                continue
            start = end

    def _take_back(self, begun: Sequence[Segment], active_bytes: int) -> None:
        """Leave nothing of a failed append, on the disk either: what it left would not join what follows."""
        with self._sync_lock, self._failing_for_good():
            if self._failure is not None:
                return
            for segment in reversed(begun):
                segment.close()
                segment.remove()
            self._fs.sync_dir(self._directory)
            self._head.segments[-1].truncate(active_bytes)

    @contextlib.contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        """Remember an error that leaves unknown what is on the disk, so that nothing is acknowledged after it."""
        try:
            yield
        except OSError as error:
            self._failure = error
            raise

    @property
    def _segment_bytes(self) -> int:
        return self._config.segment_bytes

    def _roll(self, full: Segment, begun: list[Segment], base_offset: int) -> Segment:
        """Begin a segment; the one before it is whole and durable first, so only the last can ever be torn."""
        with self._sync_lock, self._failing_for_good():
            full.finish()
        full.seal()
        segment = Segment(
            self._fs, self._directory, base_offset, index_interval_bytes=self._config.index_interval_bytes
        )
        begun.append(segment)
        with self._sync_lock, self._failing_for_good():
            segment.truncate(0)
            self._fs.sync_dir(self._directory)
        return segment

    def _segments_from(self, offset: int) -> tuple[Segment, ...]:
        segments = self._head.segments
        return segments[self._segment_index(segments, offset) :]

    @staticmethod
    def _segment_index(segments: Sequence[Segment], offset: int) -> int:
        """Return which segment holds `offset`, the first one for what lies before it."""
        return max(0, bisect_right(segments, offset, key=lambda segment: segment.base_offset) - 1)
