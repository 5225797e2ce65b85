"""Real processes, killed with SIGKILL at random moments: what is left is what an uninterrupted run leaves.

Thirty kills over word count and hot auctions, the state directory deleted once in between. The moments are drawn from
a printed seed: most wait for some commits (seen by the growth of the coordinator's log) and then a little longer.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest

from streamkit.broker import EARLIEST, LAST_STABLE, Broker, open_broker
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime.position import Note
from streamkit.runtime.reading import read_to
from streamkit.state import POSITION_KEY, RocksDBResources, RocksDBStore

ROOT = Path(__file__).resolve().parents[2]
SEED = 20_261_123
KILLS_PER_JOB = 15
COUNTED_MIN = 20
PARTITIONS = 3

pytestmark = [pytest.mark.process, pytest.mark.slow]


def fill_bids(directory: Path) -> None:
    rng = np.random.default_rng(SEED)
    lines = [
        orjson.dumps(
            {"auction": int(a), "bidder": 1, "price": int(p), "channel": "web", "url": "https://x", "ts": 50 * index}
        )
        for index, (a, p) in enumerate(
            zip(rng.integers(0, 4000, 300_000), rng.integers(1, 10**6, 300_000), strict=True)
        )
    ]
    fill(directory, "bids", lines)


def fill_lines(directory: Path) -> None:
    rng = random.Random(SEED)
    words = [f"w{number}" for number in range(5000)]
    fill(directory, "lines", [" ".join(rng.choices(words, k=10)).encode() for _ in range(120_000)])


def fill(directory: Path, topic: str, values: list[bytes]) -> None:
    broker = open_broker(f"log://{directory}")
    broker.admin.create_topic(topic, PARTITIONS)
    producer = broker.producer()
    for number, begin in enumerate(range(0, len(values), 2000)):
        some = values[begin : begin + 2000]
        records = EncodedRecords.to_append(timestamps_ms=[0] * len(some), keys=[None] * len(some), values=some)
        producer.send(TopicPartition(topic, number % PARTITIONS), records)
    producer.flush()
    producer.close()
    broker.close()


def start(job: str, directory: Path, *flags: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "streamkit",
        "run",
        f"jobs/{job}.py",
        "--bounded",
        "--broker",
        f"log://{directory}",
        *flags,
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def run_to_end(job: str, directory: Path, *flags: str) -> float:
    begin = time.monotonic()
    worker = start(job, directory, *flags)
    _, printed = worker.communicate(timeout=600)
    assert worker.returncode == 0, printed.decode()
    return time.monotonic() - begin


def coordinator_bytes(directory: Path) -> int:
    return (directory / "transactions.log").stat().st_size


def kill_once(job: str, directory: Path, rng: random.Random, run_seconds: float, run_bytes: int) -> bool:
    """Start and kill; return whether it was killed before it ended by itself.

    The calm run took `run_seconds`, and its transactions `run_bytes` in the coordinator's log.
    """
    least = coordinator_bytes(directory)
    worker = start(job, directory)
    deadline = time.monotonic() + 300
    if rng.random() < 0.85:
        growth = run_bytes * rng.uniform(0.3, 0.9)
        while worker.poll() is None and coordinator_bytes(directory) - least < growth and time.monotonic() < deadline:
            least = min(least, coordinator_bytes(directory))  # opening rewrites the log, shorter
            time.sleep(0.001)  # waits for another process, which has no event to wait on
        time.sleep(rng.random() * 0.02)
    else:
        time.sleep(rng.random() * run_seconds)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    return worker.returncode == -signal.SIGKILL


def outputs(broker: Broker, topic: str) -> list[tuple[bytes | None, bytes | None, int]]:
    if topic not in broker.admin.describe_topics():
        return []
    fetcher = broker.fetcher("read_committed")
    rows: list[tuple[bytes | None, bytes | None, int]] = []
    for partition in range(broker.admin.describe_topics()[topic].partition_count):
        for records in read_to(broker, fetcher, TopicPartition(topic, partition), None):
            rows.extend(zip(records.keys, records.values, records.timestamps_ms.tolist(), strict=True))
    return sorted(rows)


def state(directory: Path, job: str) -> dict[str, dict[bytes, bytes]]:
    contents = {}
    for task in sorted((directory / "state" / job).iterdir()):
        if ".damaged" in task.name or task.suffix == ".lock":
            continue
        copy = task.with_name(f"copy-{task.name}")
        shutil.copytree(task, copy)
        stores = [path.parent for path in copy.rglob("CURRENT")]
        for place in stores:
            store = RocksDBStore(str(place), resources=RocksDBResources())
            contents[task.name] = {key: value for key, value in store.scan(b"", b"\xff" * 16) if key != POSITION_KEY}
            store.close()
        shutil.rmtree(copy)
    return contents


def progress(directory: Path, job: str) -> tuple[int, bool]:
    """Return how many transactions the job has committed, and whether every task has finished."""
    broker = open_broker(f"log://{directory}")
    notes = [Note.from_text(offset.metadata) for offset in broker.group(job).committed().values()]
    expected = sum(
        description.partition_count
        for name, description in broker.admin.describe_topics().items()
        if name in ("bids", "lines") or name.endswith("-repartition")
    )
    broker.close()
    return sum(note.transaction for note in notes), len(notes) == expected and all(note.ended_run for note in notes)


def source_offsets(broker: Broker, job: str, topic: str) -> dict[TopicPartition, int]:
    return {place: at.offset for place, at in broker.group(job).committed().items() if place.topic == topic}


@pytest.mark.timeout(1800)  # forty runs and more
def test_thirty_kills_leave_what_an_uninterrupted_run_leaves(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    kills = counted = 0
    for job, topic, output, filling in (
        ("word_count", "lines", "word_counts", fill_lines),
        ("hot_auctions", "bids", "hot_auctions", fill_bids),
    ):
        source, calm = tmp_path / f"{job}-source", tmp_path / f"{job}-calm"
        filling(source)
        shutil.copytree(source, calm)
        run_seconds = run_to_end(job, calm)
        run_bytes = coordinator_bytes(calm) - coordinator_bytes(source)
        broker = open_broker(f"log://{calm}")
        expected = outputs(broker, output), source_offsets(broker, job, topic)
        broker.close()
        expected_state = state(calm, job)
        assert expected[0], "the uninterrupted run wrote nothing"

        kills_of_job, round_number = 0, 0
        while kills_of_job < KILLS_PER_JOB:
            directory = tmp_path / f"{job}-{round_number}"
            shutil.copytree(source, directory)
            for attempt in range(6):
                killed = kill_once(job, directory, rng, run_seconds, run_bytes)
                committed, finished = progress(directory, job)
                if finished:
                    break
                assert killed, "a run that did not finish was not killed either"
                kills_of_job += 1
                counted += committed > 0
                if attempt == 2 and round_number == 0 and (directory / "state").exists():
                    shutil.rmtree(directory / "state")
            # A run that had finished when it was killed is not opened again, and its stores stay as they were last
            # flushed; one more run, without input, applies what the changelog has above them.
            run_to_end(job, directory, *(["--continue"] if finished else []))
            broker = open_broker(f"log://{directory}")
            assert outputs(broker, output) == expected[0]
            assert source_offsets(broker, job, topic) == expected[1]
            assert nothing_hangs(broker)
            broker.close()
            assert state(directory, job) == expected_state
            shutil.rmtree(directory)
            round_number += 1
            assert round_number < 40, "the runs end before they can be killed"
        kills += kills_of_job
    print(f"seed {SEED}: {kills} kills, {counted} of them after the first commit and before the end")
    assert counted >= COUNTED_MIN


def nothing_hangs(broker: Broker) -> bool:
    """Whether every partition's last stable offset is its end: no transaction was left open."""
    places = [
        TopicPartition(name, partition)
        for name, description in broker.admin.describe_topics().items()
        for partition in range(description.partition_count)
    ]
    stable = broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE))
    ends = broker.admin.list_offsets(dict.fromkeys(places, -1))
    assert set(broker.admin.list_offsets(dict.fromkeys(places, EARLIEST))) == set(places)
    return stable == ends
