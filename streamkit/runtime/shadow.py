"""A broker behind which sources end where they are told, and all else is in another log.

A replay must read its sources to exactly the offsets that a state stands for, however much has come since. With a
scratch log behind it, a job can be run again without writing anything where it lives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from streamkit.broker import (
    LAST_STABLE,
    LATEST,
    Admin,
    Broker,
    Fetched,
    Fetcher,
    Isolation,
    OffsetSpec,
)
from streamkit.broker.forwarding import ForwardingAdmin, ForwardingBroker
from streamkit.log import decode, encode, parse_header, place
from streamkit.records import EncodedRecords, PlacedRecords, RecordColumns, TopicPartition

__all__ = ["ShadowBroker"]


class ShadowBroker(ForwardingBroker):
    """Sources of one broker, up to their ends; all other topics, producers and groups of another, or of the same.

    Args:
        sources: Has the source topics. Of them it is read alone.
        rest: Has everything else; its source topics, of the same partition counts, are empty if it is another broker.
        ends: Where each source partition ends.
    """

    def __init__(self, sources: Broker, rest: Broker, ends: Mapping[TopicPartition, int]) -> None:
        """Open nothing."""
        self._sources, self._ends = sources, dict(ends)
        super().__init__(rest, _ShadowAdmin(sources.admin, rest.admin, self._ends))

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        """Return a fetcher that reads from both."""
        return _ShadowFetcher(self._sources.fetcher(isolation), self._beneath.fetcher(isolation), self._ends)


class _ShadowAdmin(ForwardingAdmin):
    def __init__(self, sources: Admin, rest: Admin, ends: Mapping[TopicPartition, int]) -> None:
        super().__init__(rest)
        self._sources, self._ends = sources, ends

    def list_offsets(self, specs: Mapping[TopicPartition, OffsetSpec]) -> Mapping[TopicPartition, int]:
        ours = {at: spec for at, spec in specs.items() if at in self._ends}
        ended = {at: self._ends[at] for at, spec in ours.items() if spec in (LATEST, LAST_STABLE)}
        asked = {at: spec for at, spec in ours.items() if at not in ended}
        found = {at: min(offset, self._ends[at]) for at, offset in self._sources.list_offsets(asked).items()}
        rest = self._beneath.list_offsets({at: spec for at, spec in specs.items() if at not in self._ends})
        return ended | found | dict(rest)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        self._beneath.delete_records({at: offset for at, offset in before.items() if at not in self._ends})


class _ShadowFetcher:
    def __init__(self, sources: Fetcher, rest: Fetcher, ends: Mapping[TopicPartition, int]) -> None:
        self._sources, self._rest, self._ends = sources, rest, ends

    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        # A source below its end has what is asked for, so nobody waits for it.
        below = {at: offset for at, offset in positions.items() if at in self._ends and offset < self._ends[at]}
        others = {at: offset for at, offset in positions.items() if at not in self._ends}
        fetched = [] if not below else list(self._sources.fetch(below, wait_ms=0, bytes_max=bytes_max))
        made = [_cut(part, self._ends[part.topic_partition]) for part in fetched]
        if others or not made:
            made += self._rest.fetch(others, wait_ms=0 if made or below else wait_ms, bytes_max=bytes_max)
        return made

    def close(self) -> None:
        self._sources.close()
        self._rest.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Below:
    """Records of a file below an offset; see `PlacedRecords`."""

    records: PlacedRecords
    end_offset: int

    @property
    def size_bytes(self) -> int:
        return self.records.size_bytes

    def read(self) -> RecordColumns:
        return self.records.read().below(self.end_offset)


def _cut(fetched: Fetched, end_offset: int) -> Fetched:
    """Leave out the records at and beyond an offset."""
    if fetched.in_place is not None:
        return replace(
            fetched,
            in_place=_Below(records=fetched.in_place, end_offset=end_offset),
            next_offset=min(fetched.next_offset, end_offset),
            end_offset=end_offset,
        )
    batches: list[bytes] = []
    for batch in fetched.record_batches:
        header = parse_header(batch)
        if header.last_offset < end_offset:
            batches.append(batch)
        elif header.base_offset < end_offset:
            batches += _below(batch, end_offset)
    return Fetched(
        topic_partition=fetched.topic_partition,
        record_batches=batches,
        next_offset=min(fetched.next_offset, end_offset),
        end_offset=end_offset,
    )


def _below(batch: bytes, end_offset: int) -> list[bytes]:
    """Return the records of a batch below an offset, each in a batch of its own: offsets may have gaps."""
    records = decode([batch]).below(end_offset)
    headers = records.headers
    made = []
    for index, offset in enumerate(records.offsets.tolist()):
        one = EncodedRecords.to_append(
            timestamps_ms=[int(records.timestamps_ms[index])],
            keys=[records.keys[index]],
            values=[records.values[index]],
            headers=None if headers is None else [headers[index]],
        )
        (encoded,) = encode(one)
        place(encoded, offset, 0)
        made.append(bytes(encoded))
    return made
