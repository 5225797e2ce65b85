"""The fetcher for an aiokafka whose inside is not known: over its public consumer, record by record.

Records become record batches again, with the offsets that they have. It costs a multiple of the raw fetcher. A call may
return somewhat less than its limit, and where records are there it waits for them whatever `wait_ms` says.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as TheirPartition

from streamkit.broker.kafka.client_thread import ClientThread
from streamkit.broker.kafka.cluster import Cluster, client_options
from streamkit.broker.kafka.errors import translated
from streamkit.broker.kafka.offsets import list_offsets, out_of_range
from streamkit.broker.protocols import EARLIEST, LAST_STABLE, LATEST, Fetched, Isolation
from streamkit.errors import BrokerError, StreamkitError
from streamkit.log.codec import encode, parse_header, place
from streamkit.log.header import BATCH_BYTES_MAX
from streamkit.records import EncodedRecords, TopicPartition

__all__ = ["RecordFetcher"]

_STEP_MS: Final = 100.0


class RecordFetcher:
    """Reads records by position and batches them; see the `Fetcher` protocol."""

    def __init__(self, thread: ClientThread, cluster: Cluster, isolation: Isolation) -> None:
        """Connect when something is fetched."""
        self._thread, self._cluster, self._isolation = thread, cluster, isolation
        self._consumer: Any = None
        self._closed = False

    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        """Return what lies at the positions; wait up to `wait_ms` if nothing does.

        Raises:
            OffsetOutOfRangeError: A position is before the log start or after the end.
            UnknownTopicError: A partition does not exist.
            BrokerUnavailableError: A leader does not answer within the deadline.
        """
        if self._closed:
            raise BrokerError("the fetcher is closed")
        if not positions:
            return []
        timeout_ms = wait_ms + 2 * self._cluster.settings.request_timeout_ms
        return self._thread.run(self._fetch(dict(positions), wait_ms, bytes_max), timeout_ms)

    def close(self) -> None:
        """Close the connections; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._thread.run(self.stop(), self._cluster.settings.request_timeout_ms)

    async def stop(self) -> None:
        """Stop the consumer; on the client's loop, for the broker that closes."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _fetch(self, positions: dict[TopicPartition, int], wait_ms: float, bytes_max: int) -> list[Fetched]:
        ends = await self._ends(positions)
        loop = asyncio.get_running_loop()
        there = any(position < ends[tp] for tp, position in positions.items())
        wait_ms = max(wait_ms, self._cluster.settings.request_timeout_ms) if there else wait_ms
        end = loop.time() + wait_ms / 1000
        try:
            consumer = await self._placed(positions)
            while True:
                got = await consumer.getmany(timeout_ms=int(min(wait_ms, _STEP_MS)))
                found = [await self._fetched(tp, got, position, bytes_max) for tp, position in positions.items()]
                found = [one for one in found if one.next_offset > positions[one.topic_partition]]
                if found or loop.time() >= end:
                    return found
        except StreamkitError:
            raise
        except Exception as error:
            raise translated(error, "records could not be fetched") from error

    async def _ends(self, positions: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return where the log of each partition ends for this reader, having checked the positions."""
        starts = await list_offsets(self._cluster, dict.fromkeys(positions, EARLIEST))
        lasts = await list_offsets(self._cluster, dict.fromkeys(positions, LATEST))
        for tp, position in positions.items():
            if not starts[tp] <= position <= lasts[tp]:
                raise await out_of_range(self._cluster, tp, position)
        if self._isolation == "read_uncommitted":
            return lasts
        return await list_offsets(self._cluster, dict.fromkeys(positions, LAST_STABLE))

    async def _placed(self, positions: dict[TopicPartition, int]) -> Any:
        """Return the consumer, standing at the positions."""
        if self._consumer is None:
            make: Any = AIOKafkaConsumer
            consumer = make(
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level=self._isolation,
                **client_options(self._cluster.settings),
            )
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        wanted = {TheirPartition(*tp): position for tp, position in positions.items()}
        if self._consumer.assignment() != wanted.keys():
            self._consumer.assign(list(wanted))
        for tp, position in wanted.items():
            self._consumer.seek(tp, position)
        return self._consumer

    async def _fetched(
        self, tp: TopicPartition, got: Mapping[Any, list[Any]], position: int, bytes_max: int
    ) -> Fetched:
        theirs = TheirPartition(*tp)
        next_offset: int = await self._consumer.position(theirs)
        batches: list[bytes] = []
        size_bytes = 0
        for run in _runs(got.get(theirs, [])):
            for batch in _encoded(run, bytes_max):
                if batches and size_bytes + len(batch) > bytes_max:
                    return self._answer(tp, batches, parse_header(batches[-1]).last_offset + 1)
                batches.append(batch)
                size_bytes += len(batch)
        return self._answer(tp, batches, max(next_offset, position))

    def _answer(self, tp: TopicPartition, batches: list[bytes], next_offset: int) -> Fetched:
        theirs = TheirPartition(*tp)
        consumer = self._consumer
        end = (
            consumer.highwater(theirs) if self._isolation == "read_uncommitted" else consumer.last_stable_offset(theirs)
        )
        return Fetched(
            topic_partition=tp, record_batches=batches, next_offset=next_offset, end_offset=max(end or 0, next_offset)
        )


def _runs(records: Sequence[Any]) -> list[list[Any]]:
    """Cut records where offsets are missing: a record batch of ours has an offset for each record."""
    runs: list[list[Any]] = []
    for record in records:
        if runs and runs[-1][-1].offset + 1 == record.offset:
            runs[-1].append(record)
        else:
            runs.append([record])
    return runs


def _encoded(run: Sequence[Any], bytes_max: int) -> list[bytes]:
    records = EncodedRecords.to_append(
        timestamps_ms=[record.timestamp for record in run],
        keys=[record.key for record in run],
        values=[record.value for record in run],
        headers=[list(record.headers) for record in run],
    )
    # No record is refused for its size: it came out of a log.
    largest = max(len(record.key or b"") + len(record.value or b"") for record in run)
    offset = run[0].offset
    batches = []
    for batch in encode(records, batch_bytes_max=max(bytes_max, 2 * largest, BATCH_BYTES_MAX)):
        place(batch, offset)
        offset = parse_header(batch).last_offset + 1
        batches.append(bytes(batch))
    return batches
