"""Latency of a running count: from handing a record to the producer until its count is with a reader.

The n-th record of a key is answered by the first count of that key that is n or more: a system may leave counts out
when records come together. Load and reader are processes of their own; both read the machine's monotonic clock.
"""

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from data import PARTITIONS, SEED
from kafka_systems import GUARANTEES, HERE, RUNS, STREAMS, java_command, renamed_job
from kafka_topics import Topics, partition_of
from measuring import ROOT

RECORDS_PER_SECOND = 10_000
KEY_COUNT = 1_000
TICK_SECONDS = 0.01
LATE_SECONDS_MAX = 0.1
WARM_SECONDS = 10
COMMIT_MS = 100
ANSWER_SECONDS_MAX = 60
PERCENTILES = (50, 99, 99.9)


def measure_latency(bootstrap: str, *, seconds: int, runs: int, ours: bool) -> None:
    """Measure each system under each guarantee, in turn, and print medians of the percentiles."""
    sides = [(system, guarantee) for guarantee in GUARANTEES for system in ["streamkit", "Kafka Streams"][not ours :]]
    found: dict[tuple[str, str], list[list[float]]] = {side: [] for side in sides}
    for number in range(runs):
        for index, (system, guarantee) in enumerate(sides):
            name = f"latency_{number}_{index}"
            found[system, guarantee].append(_one(bootstrap, name, system, guarantee, seconds))
    print(f"\nlatency: {RECORDS_PER_SECOND:,} records/s for {seconds} s after {WARM_SECONDS} s to warm up, {runs} runs")
    print(f"  {'ms':<40} {'p50':>8} {'p99':>8} {'p99.9':>8}")
    for (system, guarantee), results in found.items():
        medians = [statistics.median(column) for column in zip(*results, strict=True)]
        print(f"  {f'{system}, {guarantee}':<40} " + " ".join(f"{one:8.1f}" for one in medians), flush=True)


def running_count(bootstrap: str, name: str, system: str, guarantee: str, directory: Path) -> list[str]:
    """Return the command that runs a system's running count from `NAME-in` to `NAME-out` at its best for latency."""
    if system != "streamkit":
        return java_command(
            STREAMS,
            ("-Xmx2g",),
            job="running",
            bootstrap=bootstrap,
            id=name,
            input=f"{name}-in",
            output=f"{name}-out",
            state=directory / "state",
            guarantee=GUARANTEES[guarantee],
            commit_ms=COMMIT_MS,
            # Without a cache each count goes out at once.
            cache_bytes=0,
            linger_ms=0,
        )
    names = {"running_count": name, "clicks": f"{name}-in", "running_counts": f"{name}-out"}
    job_file = renamed_job(HERE / "jobs" / "running_count.py", names, directory)
    command = [sys.executable, "-m", "streamkit", "run", str(job_file), "--broker", f"kafka://{bootstrap}"]
    return [*command, "--guarantee", guarantee, "--state-dir", str(directory / "state")]


def _one(bootstrap: str, name: str, system: str, guarantee: str, seconds: int) -> list[float]:
    directory, topics = RUNS / name, Topics(bootstrap)
    directory.mkdir(parents=True)
    topics.create(f"{name}-in", f"{name}-out")
    job = subprocess.Popen(
        running_count(bootstrap, name, system, guarantee, directory), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    shared = ["--bootstrap", bootstrap, "--name", name, "--seconds", str(seconds), "--directory", str(directory)]
    try:
        with subprocess.Popen([sys.executable, __file__, "read", *shared]) as reading:
            subprocess.run([sys.executable, __file__, "load", *shared], check=True)
        assert reading.returncode == 0, "the reader failed"
    finally:
        job.terminate()
        with suppress(subprocess.TimeoutExpired):
            job.wait(30)
        job.kill()
        job.wait()
    latencies = latencies_ms(directory, seconds)
    topics.drop(name)
    shutil.rmtree(directory)
    return [float(one) for one in np.percentile(latencies, PERCENTILES)]


def latencies_ms(directory: Path, seconds: int) -> np.ndarray:
    """Return how long each record that was sent after the warm-up waited for its answer."""
    sent, received = np.load(directory / "sent.npy"), np.load(directory / "received.npy")
    keys = keys_of(seconds)
    waited = []
    for key in range(KEY_COUNT):
        mine = np.flatnonzero(keys == key)
        answers = received[received[:, 0] == key]
        # The first answer whose count covers the n-th record; counts grow.
        counts = np.maximum.accumulate(answers[:, 1])
        first = np.searchsorted(counts, np.arange(1, len(mine) + 1))
        assert len(mine) == 0 or counts[-1] == len(mine), f"key {key}: {counts[-1:]} instead of {len(mine)}"
        waited.append((answers[first, 2] - sent[mine])[mine >= WARM_SECONDS * RECORDS_PER_SECOND])
    return np.concatenate(waited) * 1000


def keys_of(seconds: int) -> np.ndarray:
    """Return the key of each record, drawn from a seed."""
    count = (WARM_SECONDS + seconds) * RECORDS_PER_SECOND
    return np.random.default_rng(SEED).integers(0, KEY_COUNT, count)


async def load(asked: argparse.Namespace) -> None:
    """Hand over the records at their times, whatever became of those before; keep when each was handed over."""
    keys = keys_of(asked.seconds)
    sent = np.zeros(len(keys))
    each = int(RECORDS_PER_SECOND * TICK_SECONDS)
    producer = AIOKafkaProducer(bootstrap_servers=asked.bootstrap, acks="all")
    await producer.start()
    queues: list[asyncio.Queue[list[bytes] | None]] = [asyncio.Queue() for _ in range(PARTITIONS)]
    topic = f"{asked.name}-in"
    sending = [asyncio.create_task(_send(producer, topic, number, queue)) for number, queue in enumerate(queues)]
    begin, behind = time.monotonic(), 0.0
    for tick, at in enumerate(range(0, len(keys), each)):
        now = time.monotonic()
        due = begin + tick * TICK_SECONDS
        if now < due:
            await asyncio.sleep(due - now)
        else:
            behind = max(behind, now - due)
            await asyncio.sleep(0)
        parts: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        for key in keys[at : at + each].tolist():
            encoded = b"%d" % key
            parts[partition_of(encoded)].append(encoded)
        sent[at : at + each] = time.monotonic()
        for queue, part in zip(queues, parts, strict=True):
            queue.put_nowait(part)
    for queue in queues:
        queue.put_nowait(None)
    await asyncio.gather(*sending)
    await producer.stop()
    np.save(asked.directory / "sent.npy", sent)
    if behind > LATE_SECONDS_MAX:
        print(f"  the load was up to {behind * 1000:,.0f} ms late: the machine is too busy", file=sys.stderr)


async def _send(
    producer: AIOKafkaProducer, topic: str, partition: int, queue: "asyncio.Queue[list[bytes] | None]"
) -> None:
    """Send what is handed over, in order, and wait here while the client is busy."""
    last: Any = None
    while (part := await queue.get()) is not None:
        batch: Any = producer.create_batch()
        for key in part:
            assert batch.append(key=key, value=b"1", timestamp=None) is not None, "it fits"
        last = await producer.send_batch(batch, topic, partition=partition)
    if last is not None:
        await last


async def read(asked: argparse.Namespace) -> None:
    """Read counts until all records are answered; keep key, count and when each was received."""
    wanted = len(keys_of(asked.seconds))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=asked.bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    consumer.assign([TopicPartition(f"{asked.name}-out", partition) for partition in range(PARTITIONS)])
    rows: list[tuple[int, int, float]] = []
    latest: dict[int, int] = {}
    total = 0
    async with asyncio.timeout(WARM_SECONDS + asked.seconds + ANSWER_SECONDS_MAX):
        while total < wanted:
            found = await consumer.getmany(timeout_ms=100)
            now = time.monotonic()
            for records in found.values():
                for record in records:
                    key, count = int(record.key or b"0"), int(record.value or b"0")
                    rows.append((key, count, now))
                    total += count - latest.get(key, 0)
                    latest[key] = count
    await consumer.stop()
    np.save(asked.directory / "received.npy", np.array(rows))


def main() -> None:
    """Be the load or the reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["load", "read"])
    parser.add_argument("--bootstrap")
    parser.add_argument("--name")
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--directory", type=Path)
    asked = parser.parse_args()
    asyncio.run(load(asked) if asked.role == "load" else read(asked))


if __name__ == "__main__":
    main()
