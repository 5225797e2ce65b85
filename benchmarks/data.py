"""The inputs of the benchmarks: made once, the same on every machine."""

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from streamkit.broker import open_broker
from streamkit.broker.partitioner import partition_of
from streamkit.records import EncodedRecords, TopicPartition

BID_COUNT = 2_000_000
BIDS_PER_SECOND = 10_000
AUCTIONS_PER_WINDOW = 18_400
LINE_COUNT = 1_000_000
WORDS_PER_LINE = 10
VOCABULARY = 20_000
PARTITIONS = 4
BATCH_ROWS = 4_000
SEED = 20_260_101
START_MS = 1_700_000_000_000
JUMBLED_MS = 3_000


def bid_lines(count: int = BID_COUNT) -> Iterator[bytes]:
    """Yield bids of 127 bytes as JSON, ordered by event time, 10,000 a second."""
    rng = np.random.default_rng(SEED)
    for begin in range(0, count, 100_000):
        size = min(100_000, count - begin)
        base = 100_000 + begin // 20
        auctions = (base + rng.integers(0, AUCTIONS_PER_WINDOW, size)).tolist()
        prices = rng.integers(100_000, 1_000_000, size).tolist()
        bidders = rng.integers(10_000, 100_000, size).tolist()
        for index, (auction, price, bidder) in enumerate(zip(auctions, prices, bidders, strict=True)):
            stamp = START_MS + (begin + index) * 1000 // BIDS_PER_SECOND
            yield (
                b'{"auction":%d,"bidder":%d,"price":%d,"channel":"ch-%d","url":"https://bids.example/%d","ts":%d}'
                % (auction, bidder, price, bidder % 10, auction * 1_000 + bidder % 1_000, stamp)
            ).ljust(127)


def auction_of(bid: bytes) -> bytes:
    """Return the auction of a bid's line as the bytes of a key."""
    return bid[len(b'{"auction":') : bid.index(b",")]


def jumbled(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines so that each comes less than 3 s of event time later or earlier than it would in order."""
    rng = random.Random(SEED)
    while some := list(itertools.islice(lines, JUMBLED_MS * BIDS_PER_SECOND // 1000)):
        rng.shuffle(some)
        yield from some


def text_lines(count: int = LINE_COUNT) -> Iterator[bytes]:
    """Yield lines of ten words, the words drawn as in a language: few are common, many are rare."""
    rng = random.Random(SEED)
    words = [f"word{number}" for number in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(VOCABULARY)))
    for _ in range(count):
        yield " ".join(rng.choices(words, cum_weights=weights, k=WORDS_PER_LINE)).encode()


def write_file(lines: Iterator[bytes], path: Path) -> None:
    """Write lines to a file, once."""
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)
    partial.rename(path)


def write_topic(path: Path, directory: Path, topic: str, key_of: Callable[[bytes], bytes] | None = None) -> None:
    """Append the lines of a file to a topic, once: without keys round robin by batch, or where its key belongs."""
    if directory.exists():
        return
    partial = directory.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    broker = open_broker(f"log://{partial}")
    broker.admin.create_topic(topic, PARTITIONS)
    producer = broker.producer()
    with path.open("rb") as file:
        for number in itertools.count():
            values = [line.rstrip(b"\n") for line in itertools.islice(file, BATCH_ROWS)]
            if not values:
                break
            for partition, keys, some in _placed(values, number % PARTITIONS, key_of):
                stamps = [START_MS] * len(some)
                records = EncodedRecords.to_append(timestamps_ms=stamps, keys=keys, values=some)
                producer.send(TopicPartition(topic, partition), records)
    producer.flush()
    producer.close()
    broker.close()
    partial.rename(directory)


def _placed(
    values: list[bytes], partition: int, key_of: Callable[[bytes], bytes] | None
) -> Iterator[tuple[int, list[bytes | None], list[bytes]]]:
    """Yield partition, keys and values of each part of a batch."""
    if key_of is None:
        yield partition, [None] * len(values), values
        return
    keys = list(map(key_of, values))
    places = [partition_of(key, PARTITIONS) for key in keys]
    for place in range(PARTITIONS):
        chosen = [index for index, one in enumerate(places) if one == place]
        if chosen:
            yield place, [keys[index] for index in chosen], [values[index] for index in chosen]
