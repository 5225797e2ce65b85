"""`make bench-kafka`: our jobs and other systems on the same topics of one Kafka; `make bench-peers`: the others alone.

Broker and systems share the machine. A time is that of a whole process, start-up included, the median of `--runs`, the
systems in turn; `steady` leaves start-up out: the second half of the records. Each result is checked before its time is
printed. Ratios are ours over theirs, of records a second. Nothing here gates anything.
"""

import argparse
import compileall
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).parent))
import data  # the benchmarks are scripts beside each other, not a package
from kafka_cluster import USER_JVM, KafkaCluster
from kafka_latency import measure_latency
from kafka_restart import measure_restart
from kafka_systems import FLINK, HERE, PYTHON_PEERS, RUNS, STREAMS, Ran, Systems, Work, check_last_hot, fetch_peers
from kafka_tools import JARS
from kafka_topics import KEPT, Topics
from measuring import CACHE, ROOT
from run import check_counts

TABLES = ("hot", "keyed", "words", "replay", "latency", "restart")
SMALLER = {"quix": 10, "faust": 200}
"""By what part less a slow peer is given: its rate is what it is after a few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One line of a table; it may run on fewer records than the others."""

    name: str
    work: Work
    run: Callable[[Work], Ran]


class Tables:
    """Measures and prints one table after the other."""

    def __init__(self, cluster: KafkaCluster, asked: argparse.Namespace) -> None:
        """Take the options; the topics are loaded when a table needs them."""
        self._topics, self._asked = Topics(cluster.bootstrap), asked
        self._loaded: set[str] = set()
        self.systems = Systems(cluster.bootstrap)

    def throughput(self, table: str) -> None:
        """Measure one table of whole runs."""
        systems = list(getattr(self, f"_{table}")())
        ran: dict[str, list[Ran]] = {system.name: [] for system in systems}
        for _ in range(self._asked.runs):
            for system in systems:
                ran[system.name].append(system.run(system.work))
        print_table(table, systems, ran)

    def _ours(self, work: Work) -> Iterator[System]:
        if self._asked.ours:
            for workers in self._asked.workers:
                for guarantee in self._asked.guarantees:
                    run = partial(self.systems.streamkit, workers=workers, guarantee=guarantee)
                    yield System(name=f"streamkit, {workers} workers, {guarantee}", work=work, run=run)

    def _streams(self, work: Work, guarantee: str, grace_s: int = 300, more: str = "") -> System:
        run = partial(self.systems.kafka_streams, guarantee=guarantee, grace_s=grace_s)
        return System(name=f"Kafka Streams, {guarantee}{more}", work=work, run=run)

    def _hot(self) -> Iterator[System]:
        work = self._bids("bids", ROOT / "jobs" / "hot_auctions.py", shuffle=True)
        yield from self._ours(work)
        yield self._streams(work, "exactly-once")
        yield self._streams(work, "at-least-once")
        yield System(name="Flink SQL, at-least-once", work=work, run=self.systems.flink_sql)

    def _keyed(self) -> Iterator[System]:
        work = self._bids("bids_keyed", HERE / "jobs" / "keyed_auctions.py", shuffle=False)
        yield from self._ours(work)
        yield self._streams(work, "exactly-once")
        yield self._streams(work, "at-least-once")

    def _replay(self) -> Iterator[System]:
        """Each partition is in perfect order, and no window accepts anything after its end."""
        work = self._bids("bids", ROOT / "jobs" / "hot_auctions.py", shuffle=True)
        yield from self._ours(work)
        yield self._streams(work, "exactly-once", 0, ", grace 0")
        yield self._streams(work, "at-least-once", 0, ", grace 0")

    def _words(self) -> Iterator[System]:
        work = self._lines("lines", self._asked.lines)
        yield from self._ours(work)
        yield self._streams(work, "exactly-once")
        for peer in PYTHON_PEERS:
            fewer = self._lines(f"lines_{peer}", max(self._asked.lines // SMALLER[peer], 100))
            yield System(name=PYTHON_PEERS[peer], work=fewer, run=partial(self.systems.python_peer, peer=peer))

    def _bids(self, topic: str, job_file: Path, *, shuffle: bool) -> Work:
        count = self._asked.bids
        path = CACHE / f"bids-{count}.txt"
        data.write_file(data.bid_lines(count), path)
        self._load(topic, path, keyed=not shuffle)
        return Work(
            job="hot",
            topic=topic,
            output=job_file.stem,
            records=count,
            rows_each=1,
            job_file=job_file,
            check=check_last_hot,
            wanted=_wanted("polars_hot_auctions.py", path),
            shuffle=shuffle,
        )

    def _lines(self, topic: str, count: int) -> Work:
        path = CACHE / f"lines-{count}.txt"
        data.write_file(data.text_lines(count), path)
        self._load(topic, path)
        return Work(
            job="words",
            topic=topic,
            output="word_counts",
            records=count,
            rows_each=data.WORDS_PER_LINE,
            job_file=ROOT / "jobs" / "word_count.py",
            check=check_counts,
            wanted=_wanted("counter_word_count.py", path),
        )

    def _load(self, topic: str, path: Path, *, keyed: bool = False) -> None:
        if topic not in self._loaded:
            self._topics.load(topic, path, keyed=keyed)
            self._loaded.add(topic)


def _wanted(program: str, path: Path) -> str:
    """Return the figures of the right result, computed without any of the systems."""
    command = [sys.executable, str(HERE / "against" / program), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def print_table(title: str, systems: list[System], ran: dict[str, list[Ran]]) -> None:
    """Print the medians of each system, and the rate of our fastest line over each system's."""
    print(f"\n{title}: whole runs, {len(next(iter(ran.values())))} each in turn")
    print(f"  {'':<40} {'records':>9} {'median s (spread)':>22} {'records/s':>10} {'steady':>10} {'ratio':>7}  dropped")
    rates = {one.name: one.work.records / statistics.median(run.seconds for run in ran[one.name]) for one in systems}
    # The weaker guarantee is not what theirs are held against.
    ours = {name: rate for name, rate in rates.items() if name.startswith("streamkit")}
    exact = [rate for name, rate in ours.items() if name.endswith("exactly-once")]
    best = max(exact or ours.values(), default=None)
    for one in systems:
        seconds = [run.seconds for run in ran[one.name]]
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        steady = statistics.median(run.steady for run in ran[one.name])
        dropped = statistics.median(run.dropped for run in ran[one.name]) / one.work.records
        ratio = f"{best / rates[one.name]:.2f} x" if best else "-"
        print(
            f"  {one.name:<40} {one.work.records:>9,} {spread:>22} {rates[one.name]:>10,.0f} {steady:>10,.0f}"
            f" {ratio:>7}  {dropped:.1%}",
            flush=True,
        )


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=TABLES, nargs="+", default=TABLES)
    parser.add_argument("--peers", action="store_false", dest="ours", help="leave streamkit out")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of streamkit; each is measured")
    parser.add_argument("--guarantees", nargs="+", default=["exactly-once"], help="of streamkit; each is measured")
    parser.add_argument("--bids", type=int, default=data.BID_COUNT)
    parser.add_argument("--lines", type=int, default=data.LINE_COUNT)
    parser.add_argument("--seconds", type=int, default=30, help="of load, for latency")
    return parser.parse_args()


def main() -> None:
    """Start a broker, and measure what the command line asks for."""
    asked = options()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # As an installer leaves it: a working tree may be forbidden to keep its bytecode.
    compileall.compile_dir(ROOT / "streamkit", quiet=1)
    fetch_peers(STREAMS, *([FLINK] if "hot" in asked.only else []), *(PYTHON_PEERS if "words" in asked.only else ()))
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kafka-", dir=CACHE) as directory:
        settings = {f"log.{name}": value for name, value in KEPT.items()}
        cluster = KafkaCluster(Path(directory), settings=settings, jvm=USER_JVM)
        try:
            tables = Tables(cluster, asked)
            for table in asked.only:
                if table == "latency":
                    measure_latency(cluster.bootstrap, seconds=asked.seconds, runs=asked.runs, ours=asked.ours)
                elif table == "restart":
                    measure_restart(cluster.bootstrap, runs=asked.runs, ours=asked.ours)
                else:
                    tables.throughput(table)
            (broker,) = JARS.glob("kafka-clients-*.jar")
            others = [f"{name} {version}" for name, version in tables.systems.versions.items()]
            print("\nversions:", ", ".join([f"broker {broker.stem.removeprefix('kafka-clients-')}", *others]))
        finally:
            cluster.close()
            shutil.rmtree(RUNS, ignore_errors=True)


if __name__ == "__main__":
    main()
