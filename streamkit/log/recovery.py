"""What a log's files hold after whatever happened to the last process: whole batches, then perhaps a torn tail.

A process or machine that died leaves the end of the last segment incomplete; that tail was never acknowledged and is
cut. Damage anywhere else is something that was acknowledged and is gone, so it is an error, and nothing is changed:
a batch that is followed by a valid one, any batch of an earlier segment, an end below what is known to be durable.

Not here: appending (`partition_log`).
"""

import contextlib
import re
from itertools import takewhile
from typing import Final, NamedTuple

import numpy as np

from streamkit.errors import CorruptBatchError
from streamkit.log.header import HEADER_BYTES, BatchHeader, check, parse_header
from streamkit.log.index import OffsetEntry, SparseIndex
from streamkit.log.segment import SEGMENT_BYTES_MAX, Segment
from streamkit.seams import FileSystem

__all__ = ["Recovered", "recover", "segment_offsets"]

_SEGMENT_NAME: Final = re.compile(r"(\d{20})\.log")
_INDEX_NAME: Final = re.compile(r"(\d{20})\.(?:index|timeindex)")
_CHECK_BYTES: Final = 4 * 2**20
_SEARCH_BYTES: Final = 2**20
_MAGIC: Final = (16, 2)


class Recovered(NamedTuple):
    """The segments in order, the offset after the last record, and how many torn bytes were cut."""

    segments: list[Segment]
    end_offset: int
    cut_bytes: int


class _Scan(NamedTuple):
    """What a segment holds: its whole batches' indexes, end position and next offset, and the damage after them."""

    sparse_index: SparseIndex
    size_bytes: int
    end_offset: int
    damage: CorruptBatchError | None


def segment_offsets(fs: FileSystem, directory: str) -> list[int]:
    """Return the first offsets of the segments in a directory, in order."""
    return sorted(int(match[1]) for match in map(_SEGMENT_NAME.fullmatch, fs.list(directory)) if match)


def recover(fs: FileSystem, directory: str, *, recover_from: int, index_interval_bytes: int) -> Recovered:
    """Open the segments of a directory, check the batches from `recover_from` on, and cut a torn tail.

    Everything that is left is durable when this returns. An empty directory gets its first segment.

    Args:
        fs: The files.
        directory: The partition's directory; it exists.
        recover_from: Everything below this offset is known to be durable.
        index_interval_bytes: How many bytes one entry of the sparse indexes stands for.

    Raises:
        CorruptBatchError: There is damage that is no torn tail; names file and byte. Nothing was changed.
    """
    base_offsets = segment_offsets(fs, directory)
    if not base_offsets:
        return _first_segment(fs, directory, recover_from, index_interval_bytes)
    segments = [
        Segment(fs, directory, base_offset, index_interval_bytes=index_interval_bytes) for base_offset in base_offsets
    ]
    for segment in segments[:-1]:
        segment.sealed = True
    try:
        recovered = _recover_segments(segments, recover_from)
    except BaseException:
        for segment in segments:
            segment.close()
        raise
    for name in fs.list(directory):
        match = _INDEX_NAME.fullmatch(name)
        if match and int(match[1]) not in base_offsets:
            fs.remove(f"{directory}/{name}")
    # A process that died after making a file may not have come to this.
    fs.sync_dir(directory)
    return recovered


def _first_segment(fs: FileSystem, directory: str, recover_from: int, index_interval_bytes: int) -> Recovered:
    if recover_from:
        primary = f"the log has no segments, but records up to offset {recover_from} were durable"
        raise CorruptBatchError(primary, file=directory, position=0, hint="restore the directory from a backup")
    segment = Segment(fs, directory, 0, index_interval_bytes=index_interval_bytes)
    segment.adopt_index(segment.new_index())
    fs.sync_dir(directory)
    fs.sync_dir(directory.rpartition("/")[0] or ".")
    return Recovered([segment], 0, 0)


def _recover_segments(segments: list[Segment], recover_from: int) -> Recovered:
    first = max((row for row, segment in enumerate(segments) if segment.base_offset <= recover_from), default=0)
    scans: list[_Scan] = []
    end_offset = 0
    for segment in segments[first:]:
        if segment.base_offset < end_offset:
            raise segment.damage(f"segment begins at offset {segment.base_offset}, below {end_offset}", 0)
        scan = _scan(segment, recover_from)
        if scan.damage is not None and (segment.sealed or _batch_after(segment, scan)):
            raise scan.damage
        scans.append(scan)
        end_offset = scan.end_offset
    last = segments[-1]
    cut_bytes = last.size_bytes - scans[-1].size_bytes
    if end_offset < recover_from:
        primary = f"the log ends at offset {end_offset}, but records up to {recover_from} were durable"
        raise last.damage(primary, scans[-1].size_bytes)
    last.size_bytes = scans[-1].size_bytes
    # The process that wrote the tail may have died before it synced it.
    last.finish()
    for segment, scan in zip(segments[first:], scans, strict=True):
        segment.adopt_index(scan.sparse_index)
    return Recovered(segments, end_offset, cut_bytes)


def _scan(segment: Segment, recover_from: int) -> _Scan:
    index, position = _known(segment, recover_from)
    end_offset, damage = segment.base_offset, None
    while position < segment.size_bytes and damage is None:
        found, damage = _whole_batches(segment, position)
        for at, header in found:
            if header.base_offset < end_offset or header.last_offset - segment.base_offset > SEGMENT_BYTES_MAX:
                # The batch is whole, so it is no torn tail.
                primary = f"record batch has offset {header.base_offset} where {end_offset} or more follows"
                raise segment.damage(primary, at)
            index.note(header, at)
            position, end_offset = at + header.size_bytes, header.last_offset + 1
    if segment.sealed:
        index.seal()
    return _Scan(index, position, end_offset, damage)


def _known(segment: Segment, recover_from: int) -> tuple[SparseIndex, int]:
    """Return the index of what needs no second look, and the position of the first batch that does."""
    index = segment.stored_index() if recover_from > segment.base_offset else None
    entry = None if index is None else index.batch_before(recover_from - 1)
    if index is None or entry is None or not segment.agrees(entry.position, last_offset=entry.offset):
        return segment.new_index(), 0
    index.rewind_to(entry)
    if not _has_largest(index, segment, entry):
        return segment.new_index(), 0
    return index, entry.position


def _has_largest(index: SparseIndex, segment: Segment, entry: OffsetEntry) -> bool:
    """Return whether the largest timestamp before the batch of `entry` is in the index.

    The index files are not synced, so a power cut may keep one of them and lose the end of the other. Entries added
    behind such a hole would say that there is no larger timestamp before them.
    """
    start = index.batch_before(index.largest.offset)
    if start is not None and not segment.agrees(start.position, last_offset=start.offset):
        return False
    walked = segment.headers(0 if start is None else start.position)
    before = takewhile(lambda found: found[0] < entry.position, walked)
    return all(header.control or header.max_timestamp_ms <= index.largest.timestamp_ms for _, header in before)


def _whole_batches(segment: Segment, position: int) -> tuple[list[tuple[int, BatchHeader]], CorruptBatchError | None]:
    """Return some whole batches from `position` on, and the damage that ended the reading, if any did."""
    found: list[tuple[int, BatchHeader]] = []
    try:
        for at, batch in segment.batches(position, bytes_max=_CHECK_BYTES):
            found.append((at, parse_header(batch)))
    except CorruptBatchError as error:
        return found, error
    return found, None


def _batch_after(segment: Segment, scan: _Scan) -> bool:
    """Return whether a whole batch of a later offset lies anywhere behind the damage."""
    position = scan.size_bytes + 1
    while position + HEADER_BYTES <= segment.size_bytes:
        data = segment.read_at(position, _SEARCH_BYTES + HEADER_BYTES)
        for start in _candidates(data, scan.end_offset):
            header = parse_header(data, start)
            batch = segment.read_at(position + start, header.size_bytes)
            with contextlib.suppress(CorruptBatchError):
                check(batch)
                return True
        position += len(data) - HEADER_BYTES + 1
    return False


def _candidates(data: bytes, end_offset: int) -> list[int]:
    """Return where in `data` a header may begin: right magic, and an offset after that of the damaged batch."""
    start_count = len(data) - HEADER_BYTES + 1
    octets = np.frombuffer(data, np.uint8)
    magic_at, magic = _MAGIC
    starts = np.flatnonzero(octets[magic_at : magic_at + start_count] == magic)
    offsets = np.ndarray((start_count,), ">i8", buffer=data, strides=(1,))[starts]
    likely = starts[(offsets > end_offset) & (offsets - end_offset <= SEGMENT_BYTES_MAX)]
    return [start for start in likely.tolist() if _parses(data, start)]


def _parses(data: bytes, start: int) -> bool:
    try:
        parse_header(data, start)
    except CorruptBatchError:
        return False
    return True
