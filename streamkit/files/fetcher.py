"""The fetcher of a run over files: parts of files by offset, and topics from the broker beneath."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from streamkit.broker import Fetched, Fetcher
from streamkit.errors import OffsetOutOfRangeError
from streamkit.files.bindings import Format, format_of
from streamkit.files.content import Content, InflatedContent, PlainContent, line_end, stretch
from streamkit.files.lines import LinePlace, PartPlace, line_records
from streamkit.files.plan import FilePartition, Part, part_bytes
from streamkit.files.tables import RowPlace, TableShape, csv_names, csv_records, csv_whole_bytes
from streamkit.records import PlacedRecords, RecordColumns, TopicPartition
from streamkit.seams.user_files import FileFacts

__all__ = ["FileFetcher", "FileTopic"]

_NS_PER_MS: Final = 1_000_000
_FIRST_BYTES: Final = 64 * 1024
"""Of each partition at its begin. What is ahead of the others in event time waits for them, but has been read: with a
gigabyte ordered by time, 15 partitions of 16."""
_ROWS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTopic:
    """A stream that is read from files.

    Args:
        partitions: Their parts.
        key_type: What the source declares, None for nothing.
        value_type: What the source declares.
    """

    partitions: tuple[FilePartition, ...]
    key_type: Any = None
    value_type: Any = None

    @property
    def shape(self) -> TableShape:
        """What becomes of a table's rows."""
        return TableShape.of(self.key_type, self.value_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """Records that were read already; see `PlacedRecords`."""

    records: RecordColumns
    size_bytes: int

    def read(self) -> RecordColumns:
        return self.records


class FileFetcher:
    """Reads the parts of files, and everything else from the fetcher beneath; see the `Fetcher` protocol.

    Of lines that are not compressed only the place is fetched: they are read by the thread that computes with them,
    so that what waits to be computed takes no memory.

    Args:
        beneath: For topics.
        topics: What is read from files.
        facts: What each file was when the run began, by its path.
    """

    def __init__(self, beneath: Fetcher, topics: Mapping[str, FileTopic], facts: Mapping[str, FileFacts]) -> None:
        """Open nothing yet."""
        self._beneath, self._topics, self._facts = beneath, topics, facts
        self._contents: dict[TopicPartition, tuple[str, Content]] = {}
        self._names: dict[str, tuple[list[str], int]] = {}

    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        """Return what lies at the positions; waits for topics only where no file has anything.

        Raises:
            OffsetOutOfRangeError: A position is before the begin of a partition or after its end.
            FileError: A file has changed, is damaged, or cannot be read.
        """
        of_files = {place: position for place, position in positions.items() if place.topic in self._topics}
        fetched = [
            part
            for place, position in of_files.items()
            if (part := self._fetch(place, position, bytes_max)) is not None
        ]
        beneath = {place: position for place, position in positions.items() if place not in of_files}
        if beneath or not fetched:
            wait_ms = 0.0 if fetched else wait_ms
            fetched += self._beneath.fetch(beneath, wait_ms=wait_ms, bytes_max=bytes_max)
        return fetched

    def close(self) -> None:
        """Give back what it holds."""
        self._contents.clear()
        self._beneath.close()

    def _fetch(self, place: TopicPartition, position: int, bytes_max: int) -> Fetched | None:
        topic = self._topics[place.topic]
        partition = topic.partitions[place.partition]
        if not partition.begin_offset <= position <= partition.end_offset:
            raise OffsetOutOfRangeError(
                f"{place} has offsets {partition.begin_offset} to {partition.end_offset}, not {position}"
            )
        part = partition.part_at(position)
        if part is None:
            return None
        if position == partition.begin_offset:
            bytes_max = min(bytes_max, _FIRST_BYTES)
        placed, next_offset = self._read(place, topic, part, position, bytes_max)
        return Fetched(
            topic_partition=place,
            record_batches=(),
            next_offset=next_offset,
            end_offset=partition.end_offset,
            in_place=placed,
        )

    def _read(
        self, place: TopicPartition, topic: FileTopic, part: Part, position: int, bytes_max: int
    ) -> tuple[PlacedRecords | None, int]:
        """Return records from a position on, and where they end."""
        form, gzip = format_of(part.path)
        content = self._content(place, part, gzip=gzip)
        at = part.begin + position - part.offset
        where = PartPlace(
            offset=position,
            timestamp_ms=self._facts[part.path].modified_ns // _NS_PER_MS,
            keyed=topic.key_type is not None and form is Format.JSON_LINES,
        )
        if form is Format.CSV:
            return self._read_csv(content, part, where, topic, bytes_max)
        if form is Format.PARQUET:
            # Of a part's bytes: parts of one file have as many each.
            size_bytes = self._facts[part.path].size_bytes
            row_bytes = max(min(size_bytes, part_bytes(size_bytes)) // (part.end - part.begin), 1)
            end = min(at + max(min(bytes_max // row_bytes, _ROWS_MAX), 1), part.end)
            rows = RowPlace(
                content=content,
                path=part.path,
                begin=at,
                end=end,
                size_bytes=(end - at) * row_bytes,
                place=where,
                shape=topic.shape,
            )
            return rows, part.offset + end - part.begin
        if not gzip:
            end = line_end(content, part.path, at, at + bytes_max, part.end)
            return LinePlace(content=content, begin=at, end=end, place=where), part.offset + end - part.begin
        data, last = stretch(content, part.path, at, bytes_max, lambda data: data.rfind(b"\n") + 1)
        next_offset = part.end_offset if last else position + len(data)
        return (_Read(records=line_records(data, where), size_bytes=len(data)) if data else None), next_offset

    def _read_csv(
        self, content: Content, part: Part, where: PartPlace, topic: FileTopic, bytes_max: int
    ) -> tuple[PlacedRecords | None, int]:
        """Return records of a csv file; its first line, which names the columns, is none."""
        if part.path not in self._names:
            self._names[part.path] = csv_names(content, part, bytes_max)
        names, first = self._names[part.path]
        where = replace(where, offset=max(where.offset, part.offset + first))
        data, last = stretch(content, part.path, where.offset - part.offset, bytes_max, csv_whole_bytes)
        next_offset = part.end_offset if last else where.offset + len(data)
        if not data:
            return None, next_offset
        return _Read(records=csv_records(data, names, part, where, topic.shape), size_bytes=len(data)), next_offset

    def _content(self, place: TopicPartition, part: Part, *, gzip: bool) -> Content:
        path, content = self._contents.get(place, ("", None))
        if content is None or path != part.path:
            content = (InflatedContent if gzip else PlainContent)(self._facts[part.path])
            self._contents[place] = (part.path, content)
        return content
