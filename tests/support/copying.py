"""Logs to copy: two brokers in memory, what is written into one, and what a committed reader finds in the other."""

from typing import NamedTuple

from streamkit.broker import EARLIEST, LAST_STABLE, Broker
from streamkit.broker.open import open_broker
from streamkit.log import decode
from streamkit.records import EncodedRecords, Header, TopicPartition
from streamkit.seams import Clock, ManualClock, MemoryFileSystem, SeededRng


class Row(NamedTuple):
    """One record without its offset."""

    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


class SlowClock(ManualClock):
    """Two seconds pass whenever somebody looks, so that a commit is due at every third look or so."""

    def monotonic_ms(self) -> float:
        self.advance(2_000)
        return super().monotonic_ms()


def source_log() -> Broker:
    return open_broker("memory://", clock=ManualClock(1_000_000), rng=SeededRng(1))


def target_log(fs: MemoryFileSystem | None = None, clock: Clock | None = None) -> Broker:
    return open_broker("memory://", fs=fs, clock=clock or ManualClock(2_000_000), rng=SeededRng(2))


def encoded(rows: list[Row]) -> EncodedRecords:
    return EncodedRecords.to_append(
        timestamps_ms=[row.timestamp_ms for row in rows],
        keys=[row.key for row in rows],
        values=[row.value for row in rows],
        headers=[row.headers for row in rows],
    )


def append(broker: Broker, place: TopicPartition, rows: list[Row]) -> None:
    """Append rows, each in a record batch of its own, so that they can be fetched and cut anywhere."""
    producer = broker.producer()
    for row in rows:
        producer.send(place, encoded([row]))
    producer.flush()
    producer.close()


def rows_of(broker: Broker, topic: str) -> list[list[Row]]:
    """Return the committed rows of each partition, and check that their offsets ascend to the end."""
    partitions = []
    fetcher = broker.fetcher()
    for index in range(broker.admin.describe_topics()[topic].partition_count):
        place = TopicPartition(topic, index)
        at = broker.admin.list_offsets({place: EARLIEST})[place]
        rows: list[Row] = []
        while at < broker.admin.list_offsets({place: LAST_STABLE})[place]:
            for part in fetcher.fetch({place: at}, wait_ms=0, bytes_max=1 << 20):
                records = decode(part.record_batches, from_offset=at)
                headers = records.headers or [[]] * len(records)
                columns = (records.timestamps_ms.tolist(), records.keys, records.values, map(tuple, headers))
                rows += [Row(*row) for row in zip(*columns, strict=True)]
                at = part.next_offset
        partitions.append(rows)
    fetcher.close()
    return partitions
