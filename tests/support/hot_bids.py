"""Bids that a clock shared by partitions would call late: perfectly ordered in each of four, read over the whole topic.

What the job `hot_auctions` must answer is known in closed form. `Watched` says what a shared clock would have dropped.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson
from jobs_apart import job_apart
from outcomes import settle
from workers import read, running, until, worker

from streamkit.broker import Admin, Broker, Fetched, Fetcher, Group, Isolation, Producer
from streamkit.broker.protocols import Assign, Member, Membership
from streamkit.log import decode
from streamkit.records import NEVER_MS, EncodedRecords, TopicPartition
from streamkit.runtime import Summary
from streamkit.runtime.blocks import BlockHeader, decode_frame_block

PARTITION_COUNT = 4
WINDOWS_COUNT = 10
"""Longer than a worker lets one source run ahead of another."""
FROM_MS = 1_700_000_000_000
STEP_MS = 4
WINDOW_MS = 10_000
AUCTION_COUNT = 50
BIDS_PER_WINDOW = WINDOW_MS // STEP_MS
BATCH_RECORDS = 500

Answer = dict[tuple[int, int], tuple[int, int]]
"""By auction and start of the window: how many bids, and the best."""


def fill(broker: Broker, topic: str, windows_count: int, *, longer_bytes: int = 60) -> int:
    """Make the topic; return how many bids are in it.

    All partitions span the same event time. A record of each is `longer_bytes` longer than that of the one before, so
    that what is fetched, or committed, together is apart in event time.
    """
    broker.admin.create_topic(topic, PARTITION_COUNT, {"retention.ms": "-1"})
    producer = broker.producer()
    count = windows_count * BIDS_PER_WINDOW
    for partition in range(PARTITION_COUNT):
        for first in range(0, count, BATCH_RECORDS):
            stamps = [FROM_MS + index * STEP_MS for index in range(first, first + BATCH_RECORDS)]
            values = [
                _bid(partition, first + number, stamp, 20 + partition * longer_bytes)
                for number, stamp in enumerate(stamps)
            ]
            records = EncodedRecords.to_append(timestamps_ms=stamps, keys=[None] * len(values), values=values)
            producer.send(TopicPartition(topic, partition), records)
    producer.flush()
    producer.close()
    return PARTITION_COUNT * count


def _bid(partition: int, index: int, stamp: int, url_bytes: int) -> bytes:
    bid = {"auction": index % AUCTION_COUNT, "bidder": index, "price": index + partition, "channel": "c"}
    return orjson.dumps({**bid, "url": "u" * url_bytes, "ts": stamp})


def closed_form(windows_count: int) -> Answer:
    """Every auction has as many bids in every window; its last one in the last partition is the best."""
    bids = PARTITION_COUNT * BIDS_PER_WINDOW // AUCTION_COUNT
    return {
        (auction, FROM_MS + number * WINDOW_MS): (
            bids,
            (number + 1) * BIDS_PER_WINDOW - AUCTION_COUNT + auction + PARTITION_COUNT - 1,
        )
        for number in range(windows_count)
        for auction in range(AUCTION_COUNT)
    }


def answer(records: Sequence[tuple[bytes | None, bytes | None]]) -> Answer:
    """Return what the job wrote; no window may stand there twice."""
    found: Answer = {}
    for key, value in records:
        assert key is not None, "results are keyed by auction"
        assert value is not None, "windows are not deleted"
        row = orjson.loads(value)
        place = int(key), row["window_start"]
        assert place not in found, f"{place} was published twice"
        found[place] = row["bids"], row["best"]
    return found


class Watched:
    """A broker that notes what is fetched of repartition topics."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.admin: Admin = broker.admin
        self.fetched: dict[TopicPartition, dict[int, tuple[BlockHeader, bytes]]] = {}

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        return WatchedFetcher(self._broker.fetcher(isolation), self.fetched)

    def producer(self, transactional_id: str | None = None) -> Producer:
        return self._broker.producer(transactional_id)

    def group(self, name: str) -> Group:
        return self._broker.group(name)

    def join(self, group: str, topics: Sequence[str], member: Member, assign: Assign) -> Membership:
        return self._broker.join(group, topics, member, assign)

    def close(self) -> None:
        self._broker.close()

    def bids_late_by_one_clock(self) -> tuple[int, int]:
        """Return how many bids a clock shared by all channels of a shard would have dropped, and how many there were.

        As Kafka Streams judges: in the order of the partition, by the largest event time that it has shown so far.
        """
        dropped = seen = 0
        for blocks in self.fetched.values():
            clock_ms = NEVER_MS
            for _, (header, block) in sorted(blocks.items()):
                if header.kind == "frame":
                    for row in decode_frame_block(block).iter_rows(named=True):
                        seen += row["bids$0"]
                        dropped += row["bids$0"] if row["window_end"] <= clock_ms else 0
                clock_ms = max(clock_ms, NEVER_MS if header.watermark_ms is None else header.watermark_ms)
        return dropped, seen


class WatchedFetcher:
    def __init__(self, inner: Fetcher, noted: dict[TopicPartition, dict[int, tuple[BlockHeader, bytes]]]) -> None:
        self._inner, self._noted = inner, noted

    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        fetched = self._inner.fetch(positions, wait_ms=wait_ms, bytes_max=bytes_max)
        for part in fetched:
            if part.topic_partition.topic.endswith("-repartition") and part.record_batches:
                records = decode(part.record_batches)
                noted = self._noted.setdefault(part.topic_partition, {})
                for offset, headers, value in zip(
                    records.offsets.tolist(), records.headers, records.values, strict=True
                ):
                    noted[offset] = BlockHeader.from_headers(headers), value or b""
        return fetched

    def close(self) -> None:
        self._inner.close()


def cold_start(broker: Broker, prefix: str, directory: Path, workers_count: int) -> None:
    """Read the whole topic with workers on threads: nothing is late, though one clock would have called it so."""
    bids_count = fill(broker, f"{prefix}bids", WINDOWS_COUNT)
    job, watched = job_apart("hot_auctions", prefix, directory), Watched(broker)
    with contextlib.ExitStack() as stack:
        ends = [
            stack.enter_context(
                running(
                    worker(
                        job,
                        watched,
                        bounded=True,
                        worker_id=f"worker-{number}",
                        commit_interval_ms=20,
                        fetch_bytes_max=200_000,
                    )
                )
            )[1]
            for number in range(workers_count)
        ]
        until(lambda: all(ends))
    summaries = [end for ended in ends for end in ended]
    assert all(isinstance(summary, Summary) and summary.finished and summary.late == 0 for summary in summaries)
    settle(broker, prefix)
    found = answer([(key, value) for key, value, _ in read(broker, f"{prefix}hot_auctions")])
    assert found == closed_form(WINDOWS_COUNT)
    late_count, seen_count = watched.bids_late_by_one_clock()
    assert seen_count >= bids_count
    assert late_count > 0, "the partitions did not run apart, so this proved nothing"
