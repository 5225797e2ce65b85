"""Faust's producer on a streamkit broker: appends in batches on a thread, and acknowledges what is durable.

While one batch is appended and flushed the next one gathers, so that one flush acknowledges many records. A record
that cannot be appended stops the app: the offsets of what it was made from are not committed after that.

Invariants: one thread at a time uses the broker's producer; records of a partition are appended in the order of
`send`; a future is done only when its record is durable.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from faust.transport import base
from faust.types.tuples import TP, FutureMessage, RecordMetadata

from streamkit.broker import Appended, Producer
from streamkit.broker.partitioner import Placement, partition_of
from streamkit.errors import BrokerError
from streamkit.hosts.faust.topics import Topics
from streamkit.hosts.leases import Lease, lease
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.records.encoded import Header
from streamkit.seams import SystemClock

__all__ = ["BrokerProducer"]

_PENDING_MAX: Final = 10_000
"""So many records wait for the next batch before `send` waits too."""


class _Pending:
    """One record on its way, and who waits for it."""

    __slots__ = ("future", "headers", "key", "place", "timestamp_ms", "value")

    def __init__(self, place: TP, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Any) -> None:
        self.place, self.key, self.value, self.timestamp_ms = place, key, value, timestamp_ms
        self.headers: list[Header] = list(headers.items() if isinstance(headers, Mapping) else headers or ())
        self.future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()


class BrokerProducer(base.Producer):
    """Appends to the broker that the app's URL names.

    Keys are placed as Kafka's Java client does, unless the app has a `producer_partitioner`; records without a key go
    round robin.
    """

    transport: Any

    def __post_init__(self) -> None:
        """Open nothing yet."""
        self.error: Exception | None = None
        self._lease: Lease | None = None
        self._producer: Producer | None = None
        self._topics: Topics | None = None
        self._placements: dict[str, Placement] = {}
        self._pending: list[_Pending] = []
        self._sending: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._soon: set[FutureMessage] = set()
        self._clock = SystemClock()

    async def on_start(self) -> None:
        """Open the broker, or share it with who has it open in this process.

        Raises:
            StreamkitError: It cannot be opened.
        """
        held = self._lease = await asyncio.to_thread(lease, self.transport.broker_url)
        self._producer = await asyncio.to_thread(held.broker.producer)
        self._topics = Topics(held.broker, self.app)
        await self._topics.refresh()
        await super().on_start()

    async def on_stop(self) -> None:
        """Finish what was sent, and give the broker back."""
        await self.flush()
        held, self._lease = self._lease, None
        if held is not None and self._producer is not None:
            await asyncio.to_thread(self._producer.close)
            await asyncio.to_thread(held.release)

    async def on_restart(self) -> None:
        """Begin anew."""
        self.on_init()
        self.__post_init__()

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        **_: Any,
    ) -> Awaitable[RecordMetadata]:
        """Take one record; the answer is done once it is durable.

        A topic that does not exist is made. Waits while more than 10,000 records wait for the disk.

        Raises:
            StreamkitError: An earlier record could not be appended; the app is on its way down.
            UnknownTopicError: There is no such topic, and the app may make none.
        """
        place = TP(topic, await self._place(topic, key) if partition is None else partition)
        while len(self._pending) >= _PENDING_MAX:
            self._room.clear()
            await self._room.wait()
        if self.error is not None:
            raise self.error
        stamp_ms = self._clock.now_ms() if timestamp is None else int(timestamp * 1000)
        self.app.on_produce_message.send(
            key=key, value=value, partition=partition, timestamp=timestamp, headers=headers
        )
        self._pending.append(_Pending(place, key, value, stamp_ms, headers))
        if self._sending is None:
            self._sending = asyncio.ensure_future(self._send_all())
        return self._pending[-1].future

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        **_: Any,
    ) -> RecordMetadata:
        """Append one record and wait until it is durable; raises what `send` raises, and why it failed."""
        return await (await self.send(topic, key, value, partition, timestamp, headers))

    def send_soon(self, fut: FutureMessage) -> None:
        """Send later, but before offsets are committed."""
        self._soon.add(fut)
        fut.add_done_callback(self._soon.discard)
        super().send_soon(fut)

    async def flush(self) -> None:
        """Wait until everything sent before is durable, or failed: then `error` says why."""
        if self._soon and self.error is None:
            _, late = await asyncio.wait(self._soon, timeout=self.request_timeout)
            if late:
                self._fail(BrokerError(f"{len(late)} records were not sent within producer_request_timeout"))
        while self._sending is not None:
            await asyncio.shield(self._sending)

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,  # noqa: ARG002  # the broker's to say
        **asked: Any,
    ) -> None:
        """Make a topic unless it exists; how many replicas it has is the broker's to say."""
        await self._known_topics().make(topic, partitions, **asked)

    def key_partition(self, topic: str, key: bytes) -> TP:
        """Return where a key goes.

        Raises:
            UnknownTopicError: Nothing has been sent to the topic or read from it, so its partition count is not known.
        """
        count = self._known_topics().known_count(topic)
        return TP(topic, self._partition(topic, key, count))

    def supports_headers(self) -> bool:
        """Return true: every broker keeps headers."""
        return True

    async def _place(self, topic: str, key: bytes | None) -> int:
        return self._partition(topic, key, await self._known_topics().count(topic))

    def _partition(self, topic: str, key: bytes | None, count: int) -> int:
        if self.partitioner is not None:
            every = list(range(count))
            return int(self.partitioner(key, every, every))
        if key is not None:
            return partition_of(key, count)
        return int(self._placements.setdefault(topic, Placement(count)).place([None])[0])

    def _known_topics(self) -> Topics:
        if self._topics is None:
            raise BrokerError("the producer of the app was not started")
        return self._topics

    async def _send_all(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                self._room.set()
                await self._send_batch(batch)
        finally:
            self._sending = None

    async def _send_batch(self, batch: list[_Pending]) -> None:
        by_place: dict[TP, list[_Pending]] = {}
        for one in batch:
            by_place.setdefault(one.place, []).append(one)
        try:
            if self.error is not None:
                raise self.error
            appended = await asyncio.to_thread(self._append, by_place)
        except Exception as error:  # noqa: BLE001  # whatever it is, who waits must hear of it
            for one in batch:
                if not one.future.done():
                    one.future.set_exception(error)
                    one.future.exception()  # whoever waits sees it; nobody has to
            if self.error is None:
                self._fail(error)
                await self.crash(error)
            return
        for place, records in by_place.items():
            _acknowledge(place, records, appended[TopicPartition(*place)])

    def _append(self, by_place: Mapping[TP, list[_Pending]]) -> Mapping[TopicPartition, Appended]:
        assert self._producer is not None, "the producer was not started"
        for place, records in by_place.items():
            self._producer.send(TopicPartition(*place), _encoded(records))
        return self._producer.flush()

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._room.set()


def _encoded(records: list[_Pending]) -> EncodedRecords:
    return EncodedRecords.to_append(
        timestamps_ms=[one.timestamp_ms for one in records],
        keys=[one.key for one in records],
        values=[one.value for one in records],
        headers=[one.headers for one in records] if any(one.headers for one in records) else None,
    )


def _acknowledge(place: TP, records: list[_Pending], appended: Appended) -> None:
    # Another producer may have written in between two batches of ours: then no offset is known, as with acks=0.
    whole = appended.last_offset - appended.base_offset + 1 == len(records)
    for index, one in enumerate(records):
        if not one.future.done():
            offset = appended.base_offset + index if whole else -1
            one.future.set_result(RecordMetadata(*place, place, offset, one.timestamp_ms / 1000, 0))
