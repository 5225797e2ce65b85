"""`make bench`: whole processes on both sides, in turn, each result checked before its time is printed.

A figure is the median of the runs; the ratio is the other side's median time over ours, so 0.5 means that we take
twice as long. Nothing here gates anything.
"""

import argparse
import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).parent))
import data  # the benchmarks are scripts beside each other, not a package
from measuring import CACHE, ROOT, millions_a_second, print_sides, timed

from streamkit.broker import EARLIEST, LATEST, open_broker
from streamkit.log import decode
from streamkit.records import TopicPartition

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    records: int
    job: str
    topic: str
    lines: Callable[[], object]
    against: Path
    against_name: str
    output: str
    check: Callable[[list[tuple[bytes | None, bytes | None]]], str]
    target: float
    key_of: Callable[[bytes], bytes] | None = None


def check_hot(rows: list[tuple[bytes | None, bytes | None]]) -> str:
    """Return the three figures of the hot auctions' result, each (auction, window) once."""
    values = [orjson.loads(value or b"null") for _, value in rows]
    distinct = {(key, value["window_start"]) for (key, _), value in zip(rows, values, strict=True)}
    assert len(distinct) == len(rows), "a window was published twice"
    return f"{len(rows)} {sum(value['bids'] for value in values)} {sum(value['best'] for value in values)}"


def check_counts(rows: list[tuple[bytes | None, bytes | None]]) -> str:
    """Return the three figures of counts by key, from the last value of each key."""
    counts = {key: int(value or b"0") for key, value in rows}
    return f"{len(counts)} {sum(counts.values())} {sum(count * count for count in counts.values())}"


ROWS = [
    Row(
        name="hot auctions, topic to topic, exactly-once",
        records=data.BID_COUNT,
        job="jobs/hot_auctions.py",
        topic="bids",
        lines=data.bid_lines,
        against=HERE / "against" / "polars_hot_auctions.py",
        against_name="Polars scan_ndjson and group-by",
        output="hot_auctions",
        check=check_hot,
        target=0.35,
    ),
    Row(
        name="word count, Python functions, topic to topic, exactly-once",
        records=data.LINE_COUNT,
        job="jobs/word_count.py",
        topic="lines",
        lines=data.text_lines,
        against=HERE / "against" / "counter_word_count.py",
        against_name="plain Counter loop",
        output="word_counts",
        check=check_counts,
        target=0.5,
    ),
    Row(
        name="running count per key, a Python function on a typed struct, topic to topic, exactly-once",
        records=data.BID_COUNT,
        job="benchmarks/jobs/auction_counts.py",
        topic="bids_keyed",
        lines=data.bid_lines,
        against=HERE / "against" / "plain_auction_counts.py",
        against_name="plain loop, msgspec and a dict",
        output="auction_counts",
        check=check_counts,
        target=0.3,
        key_of=data.auction_of,
    ),
]


SCRIPTS = {"log": "log_append.py", "restore": "restore.py", "replay": "replay.py", "memory": "memory.py"}
"""What is measured by a script of its own."""


def read_topic(directory: Path, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """Return key and value of every committed record of a topic."""
    broker = open_broker(f"log://{directory}")
    fetcher = broker.fetcher()
    rows: list[tuple[bytes | None, bytes | None]] = []
    for partition in range(broker.admin.describe_topics()[topic].partition_count):
        place = TopicPartition(topic, partition)
        position = broker.admin.list_offsets({place: EARLIEST})[place]
        end = broker.admin.list_offsets({place: LATEST})[place]
        while position < end:
            for part in fetcher.fetch({place: position}, wait_ms=100, bytes_max=8 << 20):
                records = decode(part.record_batches, from_offset=position)
                rows.extend(zip(records.keys, records.values, strict=True))
                position = part.next_offset
    fetcher.close()
    broker.close()
    return rows


def run_ours(row: Row, source: Path) -> tuple[float, str]:
    """Run the job on a fresh copy of the log; return seconds and the figures of its result."""
    directory = CACHE / "run"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(source, directory)
    os.sync()
    command = [sys.executable, "-m", "streamkit", "run", row.job, "--broker", f"log://{directory}", "--bounded"]
    seconds, _ = timed(command)
    figures = row.check(read_topic(directory, row.output))
    shutil.rmtree(directory)
    return seconds, figures


def measure(row: Row, runs: int) -> None:
    """Measure one row of the table and print it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path, source = CACHE / f"{row.topic}.txt", CACHE / f"{row.topic}-log"
    data.write_file(row.lines(), path)  # type: ignore[arg-type]  # an iterator of lines
    data.write_topic(path, source, row.topic, row.key_of)
    ours, others = [], []
    for _ in range(runs):
        seconds, printed = timed([sys.executable, str(row.against), str(path)], POLARS_MAX_THREADS="2")
        others.append(seconds)
        seconds, figures = run_ours(row, source)
        assert figures == printed.strip(), f"results differ: {figures} by streamkit, {printed.strip()} by the other"
        ours.append(seconds)
    print_sides(
        f"{row.name}: {row.records:,} records, {runs} runs each in turn, result {figures}",
        ours,
        others,
        against_name=row.against_name,
        target=row.target,
        speed=millions_a_second(row.records, "records"),
    )


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=[*(row.topic for row in ROWS), *SCRIPTS])
    asked = parser.parse_args()
    # As an installer leaves it: a working tree may be forbidden to keep its bytecode.
    compileall.compile_dir(ROOT / "streamkit", quiet=1)
    for row in ROWS:
        if asked.only in (None, row.topic):
            measure(row, asked.runs)
    for name, script in SCRIPTS.items():
        if asked.only in (None, name):
            sys.stdout.flush()
            subprocess.run([sys.executable, str(HERE / script)], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
