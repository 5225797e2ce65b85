"""The systems that the Kafka benchmarks run: each a whole process over the same topics, its result checked."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from kafka_topics import Rows, Topics
from measuring import CACHE, ROOT

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
FETCHED = ROOT / ".cache" / "peers"
PYTHON_PEERS = {"quix": "quixstreams==3.28.1", "faust": "faust-streaming==0.15.3"}
RUNS = CACHE / f"kafka-run-{os.getpid()}"
"""State and renamed jobs of this process's runs: two benchmarks at once keep out of each other's way."""

SECONDS_MAX = 900
COMMIT_MS = 1000
GUARANTEES = {"exactly-once": "exactly_once_v2", "at-least-once": "at_least_once"}
THROUGHPUT_JVM = ("-Xmx2g", "-XX:+UseParallelGC")


@dataclass(frozen=True, slots=True, kw_only=True)
class JavaPeer:
    """A Java program: the directory of its sources and its pom, its main class, and where jars and classes are kept."""

    sources: Path
    main: str
    fetched: Path

    @property
    def jars(self) -> Path:
        """Where the jars of its pom are kept."""
        return self.fetched / "jars"

    @property
    def classes(self) -> Path:
        """Where it is compiled to."""
        return self.fetched / "classes"


STREAMS = JavaPeer(sources=PEERS, main="Peer", fetched=FETCHED)
FLINK = JavaPeer(sources=PEERS / "flink", main="FlinkHotAuctions", fetched=FETCHED / "flink")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What all systems of one table do.

    `rows_each` is how many rows the aggregation sees of an input record; `job_file` is ours.
    """

    job: str
    topic: str
    output: str
    records: int
    rows_each: int
    job_file: Path
    check: Callable[[Rows], str]
    wanted: str
    shuffle: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run: seconds with start-up, input records a second without, and what its result was."""

    seconds: float
    steady: float
    dropped: int
    figures: str


class Systems:
    """Runs systems on one broker, each run with names, topics and state of its own."""

    def __init__(self, bootstrap: str) -> None:
        """Remember the broker."""
        self._bootstrap, self._topics = bootstrap, Topics(bootstrap)
        self._numbers = itertools.count(1)
        self.versions: dict[str, str] = {}

    def streamkit(self, work: Work, *, guarantee: str = "exactly-once", workers: int = 1) -> Ran:
        """Run our job, renamed so that it begins anew."""
        name, output, directory = self._fresh(work)
        job_file = renamed_job(work.job_file, {work.job_file.stem: name, work.output: output}, directory)
        command = [sys.executable, "-m", "streamkit", "run", str(job_file), "--bounded", "--json"]
        command += ["--broker", f"kafka://{self._bootstrap}", "--guarantee", guarantee]
        command += ["--state-dir", str(directory / "state"), *(["--workers", str(workers)] if workers > 1 else [])]
        seconds, printed = timed(command)
        reports = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        steady = second_half(reports, work.records) if workers == 1 else work.records / reports[-1]["seconds"]
        return self._ran(work, output, seconds=seconds, steady=steady, dropped=reports[-1]["late"])

    def kafka_streams(self, work: Work, *, guarantee: str, grace_s: int = 300) -> Ran:
        """Run Kafka Streams with two threads."""
        name, output, directory = self._fresh(work)
        arguments = {
            "job": work.job,
            "guarantee": GUARANTEES[guarantee],
            "commit_ms": COMMIT_MS,
            "grace_s": grace_s,
            "shuffle": str(work.shuffle).lower(),
        }
        command = java_command(STREAMS, THROUGHPUT_JVM, **arguments, **self._common(work, name, output, directory))
        return self._peer(work, output, "Kafka Streams", command)

    def flink_sql(self, work: Work) -> Ran:
        """Run Flink SQL with parallelism 2 and without checkpoints; it knows the hot auctions only."""
        name, output, directory = self._fresh(work)
        # It unpacks jars of its own there.
        jvm = (*THROUGHPUT_JVM, f"-Djava.io.tmpdir={directory}")
        command = java_command(FLINK, jvm, **self._common(work, name, output, directory))
        return self._peer(work, output, "Flink SQL", command)

    def python_peer(self, work: Work, peer: str) -> Ran:
        """Run a peer that is written in Python, in its own virtual environment."""
        name, output, directory = self._fresh(work)
        arguments = self._common(work, name, output, directory)
        program = [str(FETCHED / peer / "bin" / "python"), str(PEERS / f"{peer}_words.py")]
        return self._peer(work, output, peer, [*program, *(f"{key}={value}" for key, value in arguments.items())])

    def _peer(self, work: Work, output: str, system: str, command: list[str]) -> Ran:
        seconds, printed = timed(command)
        said = json.loads(printed.splitlines()[-1])
        self.versions[system] = said["version"]
        steady = said["steady_rows_per_second"] / work.rows_each
        return self._ran(work, output, seconds=seconds, steady=steady, dropped=int(said["dropped"]))

    def _ran(self, work: Work, output: str, *, seconds: float, steady: float, dropped: int) -> Ran:
        figures = work.check(self._topics.read(output))
        if not dropped and figures != work.wanted:
            sys.exit(f"{output}: results differ: {figures} instead of {work.wanted}")
        self._topics.drop(output.rpartition("-")[0])
        shutil.rmtree(RUNS)
        return Ran(seconds=seconds, steady=steady, dropped=dropped, figures=figures)

    def _fresh(self, work: Work) -> tuple[str, str, Path]:
        """Return a name for the run, its output topic, which exists, and a directory."""
        name = f"{work.job}_run{next(self._numbers)}"
        output = f"{name}-output"
        self._topics.create(output)
        directory = RUNS / name
        directory.mkdir(parents=True)
        return name, output, directory

    def _common(self, work: Work, name: str, output: str, directory: Path) -> dict[str, object]:
        return {
            "bootstrap": self._bootstrap,
            "id": name,
            "input": work.topic,
            "output": output,
            "state": directory / "state",
            "rows": work.records * work.rows_each,
        }


def fetch_peers(*peers: JavaPeer | str) -> None:
    """Get the jars and the virtual environments that are not there yet, and compile the Java programs."""
    for peer in peers:
        if isinstance(peer, JavaPeer):
            _fetch_java(peer)
        else:
            _fetch_python(peer)


def _fetch_java(peer: JavaPeer) -> None:
    pom, jars = peer.sources / "pom.xml", peer.jars
    if not (jars / pom.name).is_file() or (jars / pom.name).read_bytes() != pom.read_bytes():
        shutil.rmtree(jars, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        subprocess.run(command, check=True)
        shutil.copy(pom, jars)
    sources = [str(path) for path in sorted(peer.sources.glob("*.java"))]
    subprocess.run(["javac", "-Xlint:all", "-cp", f"{jars}/*", "-d", str(peer.classes), *sources], check=True)


def _fetch_python(peer: str) -> None:
    python, mark = FETCHED / peer / "bin" / "python", FETCHED / peer / PYTHON_PEERS[peer]
    if not mark.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FETCHED / peer)], check=True)
        subprocess.run([str(python), "-m", "pip", "-q", "install", PYTHON_PEERS[peer]], check=True)
        mark.touch()


def java_command(peer: JavaPeer, jvm: tuple[str, ...], **arguments: object) -> list[str]:
    """Return the command that runs a Java program of the peers; a directory `META-INF` of its sources is seen."""
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    given = [f"{name}={value}" for name, value in arguments.items()]
    return ["java", *jvm, quiet, "-cp", f"{peer.classes}:{peer.sources}:{peer.jars}/*", peer.main, *given]


def renamed_job(path: Path, names: dict[str, str], directory: Path) -> Path:
    """Write a copy of a job whose job and topics bear other names; return its path."""
    text = path.read_text(encoding="utf-8")
    for old, new in names.items():
        assert f'"{old}"' in text, f"{path} names {old}"
        text = text.replace(f'"{old}"', f'"{new}"')
    copied = directory / f"{names[path.stem]}.py"
    copied.write_text(text, encoding="utf-8")
    return copied


def timed(command: list[str]) -> tuple[float, str]:
    """Run a whole process; return seconds and what it printed."""
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX)
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stdout


def second_half(reports: list[dict[str, Any]], records: int) -> float:
    """Return records a second from the first report past the half to the end; of all where there is none."""
    end = reports[-1]
    past = [report for report in reports[:-1] if records / 2 <= report["records_in"] < records]
    begin = past[0] if past else {"records_in": 0, "seconds": 0.0}
    return float((records - begin["records_in"]) / max(end["seconds"] - begin["seconds"], 0.001))


def check_last_hot(rows: Rows) -> str:
    """Return the three figures of the hot auctions, from the last value of each auction and window."""
    last = {}
    for key, value in rows:
        found = orjson.loads(value or b"null")
        last[key, found["window_start"]] = found
    return f"{len(last)} {sum(one['bids'] for one in last.values())} {sum(one['best'] for one in last.values())}"
