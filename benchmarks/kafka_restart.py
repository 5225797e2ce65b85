"""How soon a worker whose state is on disk answers its first record: after a clean stop, and after SIGKILL.

The record is in its topic before the process starts, and is answered when its count is in the output topic.
"""

import shutil
import signal
import statistics
import subprocess
import time

from kafka_latency import running_count
from kafka_systems import RUNS
from kafka_topics import Topics
from measuring import ROOT

KEY_COUNT = 10_000
ANSWER_SECONDS_MAX = 180
STOPS = {"clean stop": signal.SIGTERM, "SIGKILL": signal.SIGKILL}
PROBE = b"probe"


def measure_restart(bootstrap: str, *, runs: int, ours: bool) -> None:
    """Measure each system, exactly-once, after each kind of stop, and print the medians."""
    systems = ["streamkit", "Kafka Streams"][not ours :]
    print(f"\nrestart: a record waits, {KEY_COUNT:,} keys of state on disk, to its count, exactly-once, {runs} runs")
    for stop, number in STOPS.items():
        for system in systems:
            name = f"restart_{system[0].lower()}_{stop[0].lower()}"
            seconds = [_one(bootstrap, f"{name}_{run}", system, number) for run in range(runs)]
            spread = f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"
            print(f"  {f'{system}, after {stop}':<40} {spread}", flush=True)


def _one(bootstrap: str, name: str, system: str, number: signal.Signals) -> float:
    directory, topics = RUNS / name, Topics(bootstrap)
    directory.mkdir(parents=True)
    topics.create(f"{name}-in", f"{name}-out")
    keys = [b"%d" % key for key in range(KEY_COUNT)]
    topics.send(f"{name}-in", [*keys, PROBE])
    command = running_count(bootstrap, name, system, "exactly-once", directory)
    with (directory / "output.log").open("ab") as output:
        first = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            # Every key has its count: the state is there, and committed.
            topics.await_counts(f"{name}-out", dict.fromkeys([*keys, PROBE], 1), seconds_max=ANSWER_SECONDS_MAX)
        finally:
            first.send_signal(number)
            first.wait()
        topics.send(f"{name}-in", [PROBE])
        begin = time.monotonic()
        second = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            topics.await_counts(f"{name}-out", {PROBE: 2}, seconds_max=ANSWER_SECONDS_MAX)
            seconds = time.monotonic() - begin
        finally:
            second.kill()
            second.wait()
    topics.drop(name)
    shutil.rmtree(directory)
    return seconds
