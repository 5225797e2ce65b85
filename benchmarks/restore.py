"""Restore of 2 M keys of 16 B with 100 B values from the changelog, against SST write and ingest by rocksdict alone.

The other side gets the same pairs, sorted already, from a file. Both are whole processes, in turn, and both stores are
read once more and compared before a time is printed.
"""

import argparse
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import orjson
from measuring import CACHE, ROOT, millions_a_second, print_sides, timed

from streamkit.broker import open_broker
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime.position import Position
from streamkit.state import POSITION_KEY, Digest, EntriesDigest, RocksDBResources, RocksDBStore, store_key
from streamkit.topology.names import store_index

JOB = "benchmarks/jobs/running_count.py"
STORE, CHANGELOG = "counts", "running_count-counts-changelog"
INDEX = store_index(STORE)
KEY_BYTES, VALUE_BYTES, TRANSACTION_ROWS, SEED = 16, 100, 20_000, 5


def pairs(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield distinct store keys in random order, with values that compress as little as real ones."""
    rng = random.Random(SEED)
    numbers = list(range(count))
    rng.shuffle(numbers)
    for number in numbers:
        yield store_key(INDEX, b"%014d" % number), rng.randbytes(VALUE_BYTES // 2).hex().encode()


def make_log(directory: Path, count: int) -> None:
    """Write the changelog of a task as its transactions would have written it."""
    broker = open_broker(f"log://{directory}?durability=os")
    broker.admin.create_topic(CHANGELOG, 1, {"cleanup.policy": "compact"})
    producer, digest = broker.producer("load"), Digest()
    upcoming = pairs(count)
    for transaction in range(1, count // TRANSACTION_ROWS + 1):
        some = [next(upcoming) for _ in range(TRANSACTION_ROWS)]
        keys, values = [key for key, _ in some], [value for _, value in some]
        digest.add(keys, values)
        entries = EntriesDigest()
        entries.add(keys, values)
        position = Position(
            transaction=transaction, digests={STORE: digest.to_text()}, entries={STORE: entries.to_text()}
        )
        records = EncodedRecords.to_append(
            timestamps_ms=[0] * (len(keys) + 1),
            keys=[*keys, POSITION_KEY],
            values=[*values, orjson.dumps(position.to_json())],
        )
        producer.begin()
        producer.send(TopicPartition(CHANGELOG, 0), records)
        producer.commit()
    producer.close()
    broker.close()


def digest_of(path: Path) -> str:
    """Return the digest of the pairs in a RocksDB directory."""
    store, digest = RocksDBStore(str(path), resources=RocksDBResources()), Digest()
    for key, value in store.scan(b"", POSITION_KEY):
        digest.add([key], [value])
    store.close()
    return digest.to_text()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keys", type=int, default=2_000_000)
    asked = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    log, file = CACHE / f"restore-{asked.keys}-log", CACHE / f"restore-{asked.keys}.pairs"
    if not file.exists():
        shutil.rmtree(log, ignore_errors=True)
        make_log(log, asked.keys)
        file.write_bytes(b"".join(key + value for key, value in sorted(pairs(asked.keys))))
    ours, theirs = [], []
    state, alone = CACHE / "restore-state", CACHE / "restore-alone"
    for _ in range(asked.runs):
        for directory in (state, alone):
            shutil.rmtree(directory, ignore_errors=True)
        alone.mkdir()
        against = [sys.executable, str(ROOT / "benchmarks/against/rocksdict_ingest.py"), str(file), str(alone)]
        theirs.append(timed(against)[0])
        command = [sys.executable, "-m", "streamkit", "restore", JOB]
        ours.append(timed([*command, "--broker", f"log://{log}", "--state-dir", str(state)])[0])
    made, expected = digest_of(state / "running_count" / "0_0" / "rocksdb"), digest_of(alone / "db")
    assert made == expected, f"stores differ: {made} by streamkit, {expected} by rocksdict"
    print_sides(
        f"restore of {asked.keys:,} keys, {asked.runs} runs each in turn, digest {made}",
        ours,
        theirs,
        against_name="SST write and ingest by rocksdict",
        target=0.3,
        speed=millions_a_second(asked.keys, "keys"),
    )


if __name__ == "__main__":
    main()
