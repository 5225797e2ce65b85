"""Replay of the bids of hot auctions, against their first run: whole processes, in turn, on a fresh copy of the log."""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import data  # the benchmarks are scripts beside each other, not a package
from measuring import CACHE, millions_a_second, print_sides, timed
from run import check_hot, read_topic

JOB, TOPIC, OUTPUT = "jobs/hot_auctions.py", "bids", "hot_auctions"


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    path, source, directory = CACHE / f"{TOPIC}.txt", CACHE / f"{TOPIC}-log", CACHE / "replay"
    data.write_file(data.bid_lines(), path)
    data.write_topic(path, source, TOPIC)
    command = [sys.executable, "-m", "streamkit"]
    runs, replays = [], []
    for _ in range(asked.runs):
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(source, directory)
        runs.append(timed([*command, "run", JOB, "--broker", f"log://{directory}", "--bounded"])[0])
        first = check_hot(read_topic(directory, OUTPUT))
        replays.append(timed([*command, "replay", JOB, "--broker", f"log://{directory}", "--yes"])[0])
        figures = check_hot(read_topic(directory, OUTPUT))
        assert figures == first, f"results differ: {figures} after the replay, {first} before"
    shutil.rmtree(directory)
    print_sides(
        f"replay of {data.BID_COUNT:,} bids, {asked.runs} runs each in turn, result {figures}",
        replays,
        runs,
        against_name="the first run",
        target=0.9,
        speed=millions_a_second(data.BID_COUNT, "records"),
    )


if __name__ == "__main__":
    main()
