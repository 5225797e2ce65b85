"""Faust's consumer on a streamkit broker: one worker that owns every partition its app subscribes to.

Fetching and committing block, so they run on threads. Faust's bookkeeping of what was acknowledged is kept, but for two
things that would commit beyond a record that was not. Offsets without a record (the markers of transactions, what was
aborted or compacted away) are noted here, where they are seen; Faust takes the next record for one of them. And nothing
is committed while the first record that was not committed yet is missing.

A commit is a transaction of a producer that bears the app's id. It fences the worker that had it before, so of two
workers of one app the older one stops at its next commit, instead of both moving the same offsets.

Invariants: a position moves only by what was handed to Faust, or by a seek; nothing is committed after a record could
not be produced.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from faust.transport import consumer as base
from faust.types.tuples import TP, ConsumerMessage

from streamkit.broker import EARLIEST, LAST_STABLE, CommittedOffset, Fetched, Fetcher, Producer
from streamkit.errors import ConfigError, ProducerFencedError, StreamkitError
from streamkit.hosts.faust.topics import Topics
from streamkit.hosts.leases import Lease, lease
from streamkit.log import decode
from streamkit.records import TopicPartition

__all__ = ["BrokerConsumer"]

_WAIT_MS: Final = 200.0
"""How long a fetch waits for news: stopping waits for the fetch that is under way."""


class BrokerConsumer(base.Consumer):
    """Reads what is committed, from the committed offsets of the group that is named after the app's id on."""

    transport: Any

    def __post_init__(self) -> None:
        """Open nothing yet."""
        self._lease: Lease | None = None
        self._records: Fetcher | None = None
        self._owner: Producer | None = None
        self._assigned: set[TP] = set()
        self._counts: Mapping[str, int] = {}
        self._positions: dict[TP, int] = {}
        self._sought: dict[TP, int] = {}
        self._noted: dict[TP, int] = {}
        self._ends: dict[TP, int] = {}
        self._generation = 0
        self._fetching: asyncio.Future[Any] | None = None
        self._rebalancing = asyncio.Lock()
        self._committing = asyncio.Lock()

    async def on_start(self) -> None:
        """Open the broker, or share it with who has it open in this process, and fence an older worker of the app.

        Raises:
            ConfigError: The app is client-only.
            StreamkitError: The broker cannot be opened.
        """
        if self.app.client_only:
            raise ConfigError("a client-only app is not supported on streamkit's brokers", hint="start it as a worker")
        await asyncio.to_thread(self._open)
        await super().on_start()

    def _open(self) -> None:
        self._lease = lease(self.transport.broker_url)
        self._records = self._lease.broker.fetcher()
        self._owner = self._lease.broker.producer(f"{self.app.conf.id}-faust")

    async def on_stop(self) -> None:
        """Commit what was acknowledged, and give the broker back."""
        if self._lease is None:
            return
        await super().on_stop()
        await self._fetch_ended()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._records is not None:
            self._records.close()
        if self._owner is not None:
            self._owner.close()
        if self._lease is not None:
            self._lease.release()
        self._lease = self._records = self._owner = None

    async def on_restart(self) -> None:
        """Begin anew."""
        await super().on_restart()
        self.__post_init__()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Own every partition of these topics; those that do not exist are made.

        Raises:
            ConfigError: The app has tables.
            UnknownTopicError: A topic does not exist, and the app may make none.
        """
        if self.app.tables:
            raise ConfigError(
                f"Faust tables are not supported on streamkit's brokers: {', '.join(sorted(self.app.tables))}",
                hint="keep state in a streamkit job, and mount it: streamkit.hosts.faust.mount(app, job)",
            )
        known = Topics(self._leased().broker, self.app)
        self._counts = await known.counts(topics)
        assigned = {TP(topic, partition) for topic, count in self._counts.items() for partition in range(count)}
        # Assigning waits for the subscription to be done, so it cannot be a part of subscribing.
        self.add_future(self._rebalance(assigned))

    async def _rebalance(self, assigned: set[TP]) -> None:
        async with self._rebalancing:
            self.app.on_rebalance_start()
            await self.on_partitions_revoked(self._assigned - assigned)
            self._assigned = assigned
            self._generation += 1
            self.app.consumer_generation_id = self._generation
            await self.on_partitions_assigned(set(assigned), self._generation)

    def assignment(self) -> set[TP]:
        """Return the partitions that this worker owns."""
        return set(self._assigned)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Read on from the committed offsets, or from the start (or end) where there is none.

        Where records were deleted beyond a committed offset, the log's start is next.
        """
        try:
            positions = await asyncio.to_thread(self._committed_positions, sorted(self._assigned))
        except StreamkitError as error:
            # Faust logs what is raised here and goes on without reading.
            await self.crash(error)
            raise
        self._positions.update(positions)
        self._sought.update(positions)
        return positions

    def _committed_positions(self, places: list[TP]) -> dict[TP, int]:
        committed = self._leased().broker.group(self.app.conf.id).committed()
        starts = self._offsets(places, EARLIEST)
        fresh = starts if self.app.conf.consumer_auto_offset_reset != "latest" else self._offsets(places, LAST_STABLE)
        positions = {}
        for place in places:
            known = committed.get(TopicPartition(*place))
            positions[place] = fresh[place] if known is None else max(known.offset, starts[place])
            if known is not None and known.offset < starts[place]:
                self.log.warning("%r: records up to %d were deleted before they were read", place, starts[place])
        return positions

    def _offsets(self, places: Iterable[TP], spec: int) -> dict[TP, int]:
        offsets = self._leased().broker.admin.list_offsets({TopicPartition(*place): spec for place in places})
        return {TP(place.topic, place.partition): offset for place, offset in offsets.items()}

    async def _seek(self, partition: TP, offset: int) -> None:
        self._positions[partition] = offset

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Read several partitions on from other positions."""
        for place, offset in partitions.items():
            await self.seek(place, offset)

    async def position(self, tp: TP) -> int | None:
        """Return the offset that is read next."""
        return self._positions.get(tp)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Return where each partition begins."""
        return await asyncio.to_thread(self._offsets, partitions, EARLIEST)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the last stable offset of each partition."""
        return await asyncio.to_thread(self._offsets, partitions, LAST_STABLE)

    def highwater(self, tp: TP) -> int:
        """Return the last stable offset of a partition as of the last fetch."""
        return self._ends.get(tp, 0)

    def topic_partitions(self, topic: str) -> int | None:
        """Return the partition count of a topic that is subscribed to."""
        return self._counts.get(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """Return where a key goes."""
        if partition is not None or key is None:
            return partition
        return self.app.producer.key_partition(topic, key).partition

    async def create_topic(self, topic: str, partitions: int, replication: int, **asked: Any) -> None:
        """Make a topic unless it exists."""
        await self.app.producer.create_topic(topic, partitions, replication, **asked)

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:
        """Fetch once. What was sought meanwhile is not read from where it was before."""
        await self._fetch_ended()
        active = self._assigned if active_partitions is None else active_partitions
        asked = {place: self._positions[place] for place in active if place in self._positions}
        if not asked:
            await self.sleep(_WAIT_MS / 1000)
            return {}
        self._fetching = asyncio.ensure_future(asyncio.to_thread(self._fetch, asked, min(timeout * 1000, _WAIT_MS)))
        fetched: list[Fetched]
        records: dict[TP, list[Any]]
        fetched, records = await asyncio.shield(self._fetching)
        for part in fetched:
            place = TP(part.topic_partition.topic, part.topic_partition.partition)
            if self._positions.get(place) != asked[place]:
                del records[place]
                continue
            self._note_gaps(place, asked[place], records[place])
            self._positions[place], self._ends[place] = part.next_offset, part.end_offset
        return records

    def _fetch(self, asked: Mapping[TP, int], wait_ms: float) -> tuple[list[Fetched], dict[TP, list[Any]]]:
        assert self._records is not None, "the consumer was not started"
        positions = {TopicPartition(*place): position for place, position in asked.items()}
        bytes_max = self.app.conf.consumer_max_fetch_size
        fetched = list(self._records.fetch(positions, wait_ms=wait_ms, bytes_max=bytes_max))
        return fetched, {
            TP(part.topic_partition.topic, part.topic_partition.partition): _rows(
                part.record_batches, positions[part.topic_partition]
            )
            for part in fetched
        }

    async def _fetch_ended(self) -> None:
        """Wait for a fetch whose caller was cancelled."""
        if self._fetching is not None:
            await asyncio.gather(self._fetching, return_exceptions=True)
            self._fetching = None

    def _note_gaps(self, place: TP, position: int, rows: list[Any]) -> None:
        """Note the offsets without a record below each record, once: a second reading notes nothing again."""
        noted, gaps = max(position, self._noted.get(place, 0)), self._gap[place]
        for row in rows:
            if row[0] > noted:
                gaps.addi(noted, row[0])
            noted = max(noted, row[0] + 1)
        self._noted[place] = noted

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset to commit: nothing while the record at the last one is not acknowledged.

        Faust lets that one record be missing when the next is there.
        """
        committed = self._committed_offset[tp]
        awaited = self._sought.get(tp, 0) if committed is None else committed
        acknowledged = self._acked[tp]
        if acknowledged and min(acknowledged) > awaited and not self._gap[tp].overlaps(awaited):
            return None
        return super()._new_offset(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Note nothing: `_note_gaps` has, and Faust would note the record at `offset_to` too."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget the partitions that are gone."""
        await super().on_partitions_revoked(revoked)
        for place in revoked:
            self._positions.pop(place, None)
            self._noted.pop(place, None)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        offset, timestamp_ms, key, value, headers = record
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            offset,
            timestamp_ms / 1000,
            0,
            headers,
            key,
            value,
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit offsets durably; return false, and stop the app, if that or producing failed."""
        producer: Any = self.app.producer
        if producer.error is not None:
            return False
        try:
            async with self._committing:
                await asyncio.to_thread(self._commit_as_owner, dict(offsets))
        except StreamkitError as error:
            await self.crash(error)
            return False
        return True

    def _commit_as_owner(self, offsets: Mapping[TP, int]) -> None:
        assert self._owner is not None, "the consumer was not started"
        committed = {TopicPartition(*place): CommittedOffset(offset=offset) for place, offset in offsets.items()}
        try:
            self._owner.begin()
            self._owner.send_offsets(self.app.conf.id, committed)
            self._owner.commit()
        except ProducerFencedError as error:
            raise ProducerFencedError(
                f"another worker of the Faust app {self.app.conf.id!r} took over",
                detail="on streamkit's brokers one worker owns all partitions of an app",
                hint="run one worker, or give the other app another id",
            ) from error

    def _leased(self) -> Lease:
        assert self._lease is not None, "the consumer was not started"
        return self._lease


def _rows(record_batches: Iterable[bytes], position: int) -> list[Any]:
    """Return offset, timestamp (ms), key, value and headers of each record from a position on."""
    records = decode(list(record_batches), from_offset=position)
    headers = records.headers if records.headers is not None else [[] for _ in records.values]
    stamps = records.timestamps_ms.tolist()
    return list(zip(records.offsets.tolist(), stamps, records.keys, records.values, headers, strict=True))
