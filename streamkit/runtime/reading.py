"""Reads the committed records of a partition that nobody consumes as a source: changelogs, plans, letters."""

from collections.abc import Iterator
from typing import Final

from streamkit.broker import EARLIEST, LAST_STABLE, Broker, Fetcher
from streamkit.errors import TaskCorruptedError
from streamkit.log import DecodedRecords, decode_parts
from streamkit.records import TopicPartition

__all__ = ["read_to"]

_FETCH_BYTES: Final = 8 * 1024 * 1024
_WAIT_MS: Final = 1000
_STALLS_MAX: Final = 30


def read_to(broker: Broker, fetcher: Fetcher, place: TopicPartition, begin: int | None) -> Iterator[DecodedRecords]:
    """Yield the committed records of a partition from `begin` (None: its start) to the last stable offset.

    It ends by position, not by count (rule D10): aborted data, markers and gaps at the end are stepped over.
    """
    offsets = broker.admin.list_offsets({place: LAST_STABLE})
    end_offset = offsets[place]
    position = broker.admin.list_offsets({place: EARLIEST})[place] if begin is None else begin
    stalls = 0
    while position < end_offset:
        fetched = fetcher.fetch({place: position}, wait_ms=_WAIT_MS, bytes_max=_FETCH_BYTES)
        stalls = 0 if fetched else stalls + 1
        if stalls > _STALLS_MAX:
            raise TaskCorruptedError(f"{place} gives nothing at offset {position} below its end {end_offset}")
        for part in fetched:
            for records in decode_parts(part.record_batches, from_offset=position):
                if len(records):
                    yield records
            position = max(position, part.next_offset)
