"""`make demo`: words of real text counted, then windows over a stream of bids, killed halfway and resumed.

Everything is done by the commands a user would type; this script only types them, and shows what they print.
"""

import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STREAMKIT = [sys.executable, "-m", "streamkit"]
BID_COUNT = 1_000_000
PARTITIONS = 4
START_MS = 1_700_000_000_000


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def streamkit(*arguments: str, quiet: bool = False) -> str:
    """Type a command; return what it printed if `quiet`, else let it print."""
    shown = " ".join(arguments)
    print(f"$ streamkit {shown}", flush=True)
    done = subprocess.run([*STREAMKIT, *arguments], cwd=ROOT, check=True, capture_output=quiet, text=True)
    return done.stdout or ""


def rows(broker: str, topic: str) -> list[dict[str, object]]:
    """Return every committed record of a topic."""
    printed = streamkit("consume", topic, "--until-end", "--json", "--broker", broker, quiet=True)
    return [json.loads(line) for line in printed.splitlines()]


def count_words(directory: Path) -> None:
    """Count the words of Python's own language reference."""
    say("1. Words of the Python language reference, counted")
    topics = importlib.import_module("pydoc_data.topics").topics
    text = directory / "reference.txt"
    lines = [line for topic in topics.values() for line in topic.splitlines() if line.strip()]
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    broker = f"log://{directory / 'words'}"
    streamkit("produce", "lines", str(text), "--broker", broker)
    streamkit("run", "jobs/word_count.py", "--bounded", "--broker", broker)
    counts = {row["key"]: row["value"] for row in rows(broker, "word_counts")}
    top = sorted(counts.items(), key=lambda item: -int(str(item[1])))[:8]
    print(f"{len(counts):,} words; most used: " + ", ".join(f"{word} {count}" for word, count in top))


def bids() -> Iterator[str]:
    """Yield bids in event time, 10,000 a second."""
    rng = random.Random(1)
    for index in range(BID_COUNT):
        auction = 1000 + index // 2000 + rng.randrange(2000)
        yield json.dumps(
            {
                "auction": auction,
                "bidder": rng.randrange(5000),
                "price": rng.randrange(100, 100_000),
                "channel": "web",
                "url": f"https://bids.example/{auction}",
                "ts": START_MS + index // 10,
            }
        )


def hot_auctions(directory: Path) -> bool:
    """Run the windows twice, once killed halfway; return whether the answers are equal."""
    say(f"2. The hottest auctions of {BID_COUNT:,} bids, in windows of ten seconds")
    file = directory / "bids.jsonl"
    with file.open("w") as out:
        out.writelines(line + "\n" for line in bids())
    whole, killed = directory / "whole", directory / "killed"
    streamkit("produce", "bids", str(file), "--partitions", str(PARTITIONS), "--broker", f"log://{whole}")
    shutil.copytree(whole, killed)
    streamkit("run", "jobs/hot_auctions.py", "--bounded", "--broker", f"log://{whole}")

    say("3. The same again, killed halfway with SIGKILL, and resumed")
    run_and_kill(killed, published_bytes(whole) // 2)
    streamkit("run", "jobs/hot_auctions.py", "--bounded", "--broker", f"log://{killed}")

    say("4. Both answers")
    answers = [
        sorted(json.dumps([row["key"], row["value"]], sort_keys=True) for row in rows(f"log://{place}", "hot_auctions"))
        for place in (whole, killed)
    ]
    print(f"uninterrupted: {len(answers[0]):,} results; killed and resumed: {len(answers[1]):,} results")
    return answers[0] == answers[1]


def published_bytes(directory: Path) -> int:
    """Return how much the job has written to its sink."""
    return sum(segment.stat().st_size for segment in directory.glob("hot_auctions-*/*.log"))


def run_and_kill(directory: Path, half_bytes: int) -> None:
    """Start the job, and kill it when about half of its results are written."""
    command = ["run", "jobs/hot_auctions.py", "--bounded", "--broker", f"log://{directory}"]
    print(f"$ streamkit {' '.join(command)} &", flush=True)
    worker = subprocess.Popen([*STREAMKIT, *command], cwd=ROOT)
    while worker.poll() is None and published_bytes(directory) < half_bytes:
        time.sleep(0.001)
    worker.kill()
    if worker.wait() == 0:
        sys.exit("the worker ended before it could be killed: this machine is too fast for the demo")
    print(f"\n$ kill -9 {worker.pid}", flush=True)


def main() -> None:
    """Run all parts in a directory of their own, and leave nothing behind."""
    os.chdir(ROOT)
    directory = Path(tempfile.mkdtemp(prefix="streamkit-demo-"))
    try:
        count_words(directory)
        equal = hot_auctions(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if not equal:
        sys.exit("the answers differ: this is a bug of streamkit")
    print("equal, record for record")
    say("Try next:")
    print("  .venv/bin/streamkit describe jobs/hot_auctions.py")
    print("  echo 'to be or not to be' | .venv/bin/streamkit produce lines")
    print(
        "  .venv/bin/streamkit run jobs/word_count.py --bounded && .venv/bin/streamkit consume word_counts --until-end"
    )


if __name__ == "__main__":
    main()
