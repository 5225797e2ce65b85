"""Peak memory at 10 M bids against that at 2 M, topic to topic and file to file: what is read must not add to it.

The bids are jumbled by up to 3 s. Each process is asked by the kernel's own count for the most memory it ever had; the
results are checked against Polars' before anything is printed.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import data  # the benchmarks are scripts beside each other, not a package
from files import figures_of_auctions
from measuring import CACHE, timed
from run import check_hot, read_topic

HERE = Path(__file__).resolve().parent
JOB, TOPIC, OUTPUT = "benchmarks/jobs/jumbled_auctions.py", "bids", "hot_auctions"
COUNTS = (data.BID_COUNT, 5 * data.BID_COUNT)
TARGET = 1.15


# A process between this one and the measured one: what its parent had when it was started counts as its own.
LAUNCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_mib(command: list[str]) -> float:
    """Run a whole process; return the most memory that it had at once."""
    return int(timed([sys.executable, "-c", LAUNCHER, *command])[1]) / 1024


def from_topic(path: Path, count: int) -> tuple[float, str]:
    """Run topic to topic on a fresh copy of the log; return MiB and the figures of the result."""
    source, directory = CACHE / f"jumbled-{count}-log", CACHE / "memory"
    data.write_topic(path, source, TOPIC)
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(source, directory)
    command = [sys.executable, "-m", "streamkit", "run", JOB, "--broker", f"log://{directory}", "--bounded"]
    mib = peak_mib(command)
    figures = check_hot(read_topic(directory, OUTPUT))
    shutil.rmtree(directory)
    return mib, figures


def from_file(path: Path, count: int) -> tuple[float, str]:
    """Run file to file; return MiB and the figures of the result."""
    output = CACHE / f"jumbled-{count}.parquet"
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "streamkit", "run", JOB, "--broker", f"log://{CACHE / 'files-log'}"]
    mib = peak_mib([*command, "--input", f"{TOPIC}={path}", "--output", f"{OUTPUT}={output}"])
    figures = figures_of_auctions(output)
    output.unlink()
    return mib, figures


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    expected = {}
    for count in COUNTS:
        path = CACHE / f"jumbled-{count}.jsonl"
        data.write_file(data.jumbled(data.bid_lines(count)), path)
        against = HERE / "against" / "polars_hot_auctions.py"
        expected[count] = timed([sys.executable, str(against), str(path)])[1].strip()
    for name, measure in (("topic to topic", from_topic), ("file to file", from_file)):
        peaks: dict[int, list[float]] = {count: [] for count in COUNTS}
        for _ in range(asked.runs):
            for count in COUNTS:
                mib, figures = measure(CACHE / f"jumbled-{count}.jsonl", count)
                assert figures == expected[count], f"results differ: {figures}, {expected[count]} by Polars"
                peaks[count].append(mib)
        print(f"peak memory of hot auctions jumbled by up to 3 s, {name}, {asked.runs} runs each in turn")
        for count, mib_of_runs in peaks.items():
            print(f"  {count:>12,} bids  {max(mib_of_runs):7.0f} MiB ({min(mib_of_runs):.0f}-{max(mib_of_runs):.0f})")
        few, many = (max(peaks[count]) for count in COUNTS)
        print(f"  ratio {many / few:.2f} x (at most {TARGET} x)")


if __name__ == "__main__":
    main()
