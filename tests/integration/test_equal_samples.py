"""Stream = batch = files = replay, for each job of `jobs/`, in a real log directory.

`popular_words` is a Faust program around `word_count` and has no job of its own.
"""

import importlib
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from command_line import ROOT, environment
from outcomes import digests
from sample_records import FROM_MS, JOBS, UPDATES
from workers import running, until, worker

from streamkit import Job
from streamkit.broker import LAST_STABLE, Broker, open_broker
from streamkit.files import FileRun, FileRunRequest, input_bindings, output_bindings
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions, Worker
from streamkit.runtime.comparing import check_equal, unread_places
from streamkit.runtime.keys_check import topics_read_by_key
from streamkit.runtime.reading import read_to
from streamkit.runtime.replay import Replay, ReplayEnvironment
from streamkit.runtime.verify import Verification
from streamkit.seams import SeededRng, SystemClock, SystemFileSystem
from streamkit.topology import Topology, compile_graph

pytestmark = [pytest.mark.slow, pytest.mark.process]

ROWS_COUNT = 400
HOSTED = {"popular_words"}
SMALL = {"fetch_bytes_max": 3000, "commit_bytes_max": 5000}
"""Commits fall elsewhere than in a run of other numbers."""

Lines = list[tuple[bytes | None, bytes]]
"""Keys and values of one partition."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A job, what it reads, by topic and partition, and a directory for one way to run it."""

    job: Job
    topology: Topology
    lines: Mapping[str, Sequence[Lines]]
    directory: Path

    @property
    def state(self) -> str:
        return str(self.directory / "state")

    def open(self) -> Broker:
        return open_broker(f"log://{self.directory}/log")

    def fill(self, broker: Broker, part: slice = slice(None)) -> None:
        producer = broker.producer()
        for topic, partitions in self.lines.items():
            broker.admin.create_topic(topic, len(partitions))
            for partition, lines in enumerate(partitions):
                for key, value in lines[part]:
                    records = EncodedRecords.to_append(timestamps_ms=[FROM_MS], keys=[key], values=[value])
                    producer.send(TopicPartition(topic, partition), records)
        producer.flush()
        producer.close()

    def run(self, broker: Broker, state: str, **options: Any) -> None:
        made = RunOptions(bounded=True, state_dir=state, **options)
        ended = Worker(self.topology, broker, options=made, fs=SystemFileSystem(), clock=SystemClock()).run(
            threading.Event()
        )
        assert ended.finished

    def verify(self, broker: Broker) -> None:
        """The state, the changelogs and a replay agree, and can all be compared."""
        compared = Verification(
            self.topology,
            broker,
            state_dir=self.state,
            options=RunOptions(**SMALL),
            fs=SystemFileSystem(),
            clock=SystemClock(),
        ).run(lambda progress: None)
        check_equal(compared)
        assert all(one.equal for one in compared), [one.reason for one in compared if not one.equal]


def sample(name: str, directory: Path) -> Sample:
    job = importlib.import_module(f"jobs.{name}").job
    topology = compile_graph(job.build())
    # Files that are read by their own key are one partition.
    count = 1 if topics_read_by_key(topology) else 3
    rng = random.Random(6)
    lines = {topic: [Lines() for _ in range(count)] for topic in JOBS[name]}
    for topic, rows in JOBS[name].items():
        for number in range(ROWS_COUNT):
            key, value = rows(rng, number)
            if key is not None:
                value = orjson.dumps({"key": key.decode(), **orjson.loads(value)})
            lines[topic][number % count].append((key, value))
    return Sample(job=job, topology=topology, lines=lines, directory=directory)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What each sink partition has (of updates the last value a key), and each store's digest by its shard."""

    outputs: dict[TopicPartition, Any]
    digests: dict[TopicPartition, dict[str, str]]


def outcome(broker: Broker, topology: Topology) -> Outcome:
    outputs: dict[TopicPartition, Any] = {}
    for topic in {topic for sub in topology.sub_topologies for topic in sub.sink_topics}:
        for partition in range(broker.admin.describe_topics()[topic].partition_count):
            place = TopicPartition(topic, partition)
            rows = [
                row
                for records in read_to(broker, broker.fetcher(), place, None)
                for row in zip(records.keys, records.values, records.timestamps_ms.tolist(), strict=True)
            ]
            updated = topic in UPDATES
            outputs[place] = {key: value for key, value, _ in rows} if updated else sorted(rows, key=repr)
    return Outcome(outputs=outputs, digests=digests(broker, topology))


def bounded(one: Sample) -> Outcome:
    broker = one.open()
    one.fill(broker)
    one.run(broker, one.state)
    one.verify(broker)
    found = outcome(broker, one.topology)
    broker.close()
    return found


def live(one: Sample) -> Outcome:
    """Records come while a worker runs; what it leaves open is what a replay leaves open."""
    broker = one.open()
    for topic, partitions in one.lines.items():
        broker.admin.create_topic(topic, len(partitions))
    places = [TopicPartition(topic, at) for topic, some in one.lines.items() for at in range(len(some))]

    def caught_up() -> bool:
        """Of several inputs the last rows of all but one wait for it, so of each partition number one is at its end."""
        committed = broker.group(one.topology.job).committed()
        ends = broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE))
        read = {place for place, end in ends.items() if place in committed and committed[place].offset >= end}
        return {place.partition for place in read} == {place.partition for place in places} and not unread_places(
            one.topology, broker
        )

    with running(worker(one.job, broker, state_dir=one.state, **SMALL)):
        for begin in range(0, ROWS_COUNT, 50):
            one.fill(broker, slice(begin, begin + 50))
            until(caught_up)
    one.verify(broker)
    one.run(broker, one.state)
    found = outcome(broker, one.topology)
    broker.close()
    return found


def from_files(one: Sample) -> Outcome:
    """What stands in the outputs is what the sinks have."""
    one.directory.mkdir()
    paths: dict[Path, str] = {}
    for topic, partitions in one.lines.items():
        end = "jsonl" if partitions[0][0][1].startswith(b"{") else "txt"
        for partition, lines in enumerate(partitions):
            path = one.directory / f"{topic}-{partition}.{end}"
            path.write_bytes(b"".join(value + b"\n" for _, value in lines))
            paths[path] = topic
    sinks = sorted({topic for sub in one.topology.sub_topologies for topic in sub.sink_topics})
    request = FileRunRequest(
        topology=one.topology,
        inputs=input_bindings([f"{topic}={path}" for path, topic in paths.items()], list(one.lines)),
        outputs=output_bindings([f"{topic}={one.directory}/{topic}.jsonl" for topic in sinks], sinks),
        whole=tuple(topics_read_by_key(one.topology)),
        overwrite=False,
        root=str(one.directory / "runs"),
    )
    with pytest.MonkeyPatch.context() as patch:
        # Each file is a partition.
        patch.setattr("streamkit.files.plan.PARTS_MAX", 1000)
        patch.setattr("streamkit.files.plan.PART_BYTES", max(path.stat().st_size for path in paths))
        run = FileRun(request, SystemFileSystem(), SeededRng(1))
    assert {topic: len(some) for topic, some in run.plan.inputs.items()} == {
        topic: len(some) for topic, some in one.lines.items()
    }
    log = open_broker(f"log://{run.log_directory}")
    one.run(run.broker(log), run.state_directory, **SMALL)
    found = outcome(log, one.topology)
    run.write_outputs()
    log.close()
    run.publish()
    run.close()
    for topic in sinks:
        written = [orjson.loads(line) for line in (one.directory / f"{topic}.jsonl").read_bytes().splitlines()]
        assert len(written) == sum(len(rows) for place, rows in found.outputs.items() if place.topic == topic)
    return found


def replayed(one: Sample) -> Outcome:
    """A process dies in a commit; all is computed anew; then the run goes on."""
    broker = one.open()
    one.fill(broker)
    broker.close()
    arguments = [str(one.directory), one.job.name, "17"]
    program = Path(__file__).parents[1] / "support" / "killed_sample.py"
    ended = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    broker = one.open()
    replay_environment = ReplayEnvironment(
        broker=broker,
        state_dir=one.state,
        options=RunOptions(**SMALL),
        fs=SystemFileSystem(),
        clock=SystemClock(),
    )
    check_equal(Replay(one.topology, replay_environment).run())
    one.run(broker, one.state)
    check_equal(Replay(one.topology, replay_environment).run())
    one.verify(broker)
    found = outcome(broker, one.topology)
    broker.close()
    return found


WAYS: list[Callable[[Sample], Outcome]] = [live, from_files, replayed]


def test_every_job_has_records() -> None:
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} - HOSTED - {"__init__"} == JOBS.keys()


@pytest.mark.parametrize("name", JOBS)
def test_a_sample_job_gives_the_same_live_bounded_from_files_and_replayed(name: str, tmp_path: Path) -> None:
    expected = bounded(sample(name, tmp_path / "bounded"))
    topics = {place.topic for place in expected.outputs}
    assert topics == {place.topic for place, rows in expected.outputs.items() if rows}, "nothing would be compared"
    for way in WAYS:
        assert way(sample(name, tmp_path / way.__name__)) == expected, way.__name__
