"""What every test of the fault suite needs: entries that keep coming, a worker that goes on, and an end to judge."""

import math
import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import oracle
import orjson

from streamkit import Job
from streamkit.broker import LATEST, Broker
from streamkit.broker.partitioner import partition_of
from streamkit.errors import BrokerUnavailableError, StreamkitError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions, Worker
from streamkit.seams import MemoryFileSystem, SystemClock
from streamkit.topology import compile_graph

PARTITIONS: Final = 3
KEYS: Final = 40
WAIT_SECONDS: Final = 60.0
TORTURE: Final = float(os.environ.get("STREAMKIT_TORTURE", "0"))
"""Which part of the counts in docs/reliability.md is run, 1 for all of them; 0 for the samples of CI."""
SEED: Final = int(os.environ.get("STREAMKIT_TORTURE_SEED", "0")) or random.SystemRandom().getrandbits(32)

STARTED: Final[list["Feeder | WorkerThread"]] = []
"""What a test has started; one that fails leaves it running, and whoever comes next ends it."""


def times(sample: int, torture: int) -> int:
    """Return how often something is done: in CI, or in `make torture-kafka`."""
    return max(sample, math.ceil(torture * TORTURE))


def wait_until(
    condition: Callable[[], bool],
    what: str,
    seconds: float = WAIT_SECONDS,
    told: Callable[[], str] = lambda: "",
) -> float:
    """Wait until something that nobody tells of is so; return how long it took. `told` says what there was instead."""
    begin, nothing = time.monotonic(), threading.Event()
    while not condition():
        assert time.monotonic() - begin < seconds, f"{what}: not within {seconds:.0f} s. {told()}"
        nothing.wait(0.02)
    return time.monotonic() - begin


def pause(seconds: float) -> None:
    """Let things go on for some time; what a schedule draws has no end to wait for."""
    threading.Event().wait(seconds)


def make_topics(broker: Broker, job: str) -> None:
    """Make the topics of a job."""
    for topic in ("entries", "echo", "folds", "totals"):
        broker.admin.create_topic(f"{job}-{topic}", PARTITIONS)


class Feeder:
    """Appends entries, some at a time, until it is stopped, whatever becomes of its producer.

    No entry is sent a second time: what had no answer may be in the input or not.

    Args:
        broker: Past all faults, but for those of the brokers themselves.
        job: Whose input it feeds.
        seed: Of what is drawn.
        per_second: How many.
        age_ms: How old they are.
    """

    def __init__(self, broker: Broker, job: str, seed: int, per_second: int = 2000, age_ms: int = 0) -> None:
        """Begin."""
        self._topic = f"{job}-entries"
        self._broker, self._rng, self._per_second, self._age_ms = broker, random.Random(seed), per_second, age_ms
        self._stop = threading.Event()
        self.sent: list[int] = []
        """Numbers of the entries that the brokers acknowledged."""
        self.unknown_count = 0
        self._number = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        STARTED.append(self)
        self._thread.start()

    def abandon(self) -> None:
        """Stop soon; nobody waits for it."""
        self._stop.set()

    def stop(self) -> None:
        """Stop, and wait for the last answer."""
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        interval = 0.05
        producer = None
        try:
            while not self._stop.wait(interval):
                numbers = range(self._number, self._number + max(1, int(self._per_second * interval)))
                self._number = numbers.stop
                try:
                    producer = producer or self._broker.producer()
                    for place, records in entries(self._topic, numbers, self._rng, self._age_ms).items():
                        producer.send(place, records)
                    producer.flush()
                    self.sent += numbers
                except StreamkitError:
                    self.unknown_count += len(numbers)
                    producer = None
        except BaseException as error:  # noqa: BLE001  # it is raised where the feeder is stopped
            self._error = error


def entries(topic: str, numbers: range, rng: random.Random, age_ms: int = 0) -> dict[TopicPartition, EncodedRecords]:
    """Return entries with these numbers where Kafka's partitioner puts their keys; a group is in one partition.

    Their timestamps are `age_ms` old: what is older than a week Kafka would delete while the test runs.
    """
    timestamp_ms = SystemClock().now_ms() - age_ms
    by_partition = defaultdict[int, list[tuple[bytes, bytes]]](list)
    for number in numbers:
        key = f"k{rng.randrange(KEYS)}".encode()
        partition = partition_of(key, PARTITIONS)
        group = f"g{partition}-{rng.randrange(5)}"
        value = orjson.dumps({"number": number, "group": group, "amount": rng.randrange(-100, 100)})
        by_partition[partition].append((key, value))
    return {
        TopicPartition(topic, partition): EncodedRecords.to_append(
            timestamps_ms=[timestamp_ms] * len(rows), keys=[key for key, _ in rows], values=[value for _, value in rows]
        )
        for partition, rows in by_partition.items()
    }


@dataclass(eq=False, kw_only=True)
class WorkerThread:
    """A worker in this process, started again when it ends with an error, as whoever supervises one would.

    Args:
        open_broker: Makes the broker of each start.
        job: What it runs.
        told: Told each step of each opening and commit; it may wait.
        restart: Whether it is started again.
        name: Of its thread.
    """

    open_broker: Callable[[], Broker]
    job: Job
    told: Callable[[str], None] = lambda step: None
    commit_interval_ms: int = 50
    commit_bytes_max: int = 4096
    restart: bool = True
    name: str = "worker"
    steps: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    errors: list[StreamkitError] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start."""
        self._topology = compile_graph(self.job.build())
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        STARTED.append(self)
        self._thread.start()

    @property
    def commit_count(self) -> int:
        """How many commits it has made."""
        return self.steps["done"]

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def wait_for_commits(self, count: int, seconds: float = WAIT_SECONDS) -> float:
        """Wait for some more commits; return how long it took."""
        goal = self.commit_count + count
        return wait_until(
            lambda: self.commit_count >= goal or not self.running,
            f"{count} commits",
            seconds,
            told=lambda: f"The worker has done {dict(self.steps)} and met {self.errors}",
        )

    def abandon(self) -> None:
        """Stop soon; nobody waits for it."""
        self._stop.set()

    def stop(self) -> None:
        """Finish what it has read, and end."""
        self._stop.set()
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive(), "the worker does not end"
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._run_once()
                except StreamkitError as error:
                    self.errors.append(error)
                    if not self.restart:
                        return
                    self._stop.wait(0.2)
        except BaseException as error:  # noqa: BLE001  # it is raised where the worker is stopped
            self._failure = error

    def _run_once(self) -> None:
        options = RunOptions(
            commit_interval_ms=self.commit_interval_ms, commit_bytes_max=self.commit_bytes_max, worker_id=self.name
        )
        broker = self.open_broker()
        try:
            worker = Worker(
                self._topology,
                broker,
                options=options,
                fs=MemoryFileSystem(),
                clock=SystemClock(),
                observe=self._observe,
            )
            worker.run(self._stop)
        finally:
            broker.close()

    def _observe(self, step: str) -> None:
        self.steps[step] += 1
        self.told(step)


def lag(broker: Broker, job: str) -> int:
    """Return how many entries a job has not committed."""
    committed = broker.group(job).committed()
    places = [TopicPartition(f"{job}-entries", partition) for partition in range(PARTITIONS)]
    ends = broker.admin.list_offsets(dict.fromkeys(places, LATEST))
    return sum(ends[place] - (committed[place].offset if place in committed else 0) for place in places)


def catch_up(broker: Broker, job: str, seconds: float = WAIT_SECONDS, worker: WorkerThread | None = None) -> float:
    """Wait until a job has committed, in every partition, all that is in its input now; return how long it took.

    Brokers that do not answer are asked again. A worker that has ended is not waited for.
    """
    places = [TopicPartition(f"{job}-entries", partition) for partition in range(PARTITIONS)]
    goals: dict[TopicPartition, int] = {}
    seen: dict[TopicPartition, int] = {}
    refused: list[BrokerUnavailableError] = []

    def reached() -> bool:
        assert worker is None or worker.running, f"the worker has ended: {worker.errors}"
        try:
            if not goals:
                goals.update(broker.admin.list_offsets(dict.fromkeys(places, LATEST)))
            seen.update({place: at.offset for place, at in broker.group(job).committed().items()})
        except BrokerUnavailableError as error:
            refused.append(error)
            return False
        return all(seen.get(place, -1) >= goal for place, goal in goals.items())

    def told() -> str:
        behind = {str(place): f"{seen.get(place)} of {goal}" for place, goal in goals.items()}
        commits = worker and f"{worker.commit_count} commits, {worker.errors}"
        return f"committed {behind or 'of an unknown end'}; no answer {len(refused)} times: {refused[-1:]}; {commits}"

    return wait_until(reached, "the job catches up", seconds, told)


def settled(broker: Broker, job: str, seconds: float = WAIT_SECONDS) -> oracle.History:
    """Wait until a job has read everything and no transaction is open; return what there is then."""
    history: list[oracle.History] = []

    def all_is_read() -> bool:
        if lag(broker, job) or oracle.open_partitions(broker, job):
            return False
        history.append(oracle.read_history(broker, job))
        return history[-1].complete

    try:
        wait_until(all_is_read, "everything is read, and no transaction is open", seconds)
    except AssertionError:
        history.append(oracle.read_history(broker, job))
        if not oracle.violations(history[-1]):
            raise
    return history[-1]


def judged(broker: Broker, job: str, feeder: Feeder, seconds: float = WAIT_SECONDS) -> oracle.History:
    """Stop feeding, wait until all was read and no transaction is open, and demand that nothing is wrong."""
    feeder.stop()
    history = settled(broker, job, seconds)
    found = oracle.violations(history, feeder.sent)
    assert not found, "\n".join([*found, f"again with STREAMKIT_TORTURE_SEED={SEED}"])
    assert history.read_count == sum(map(len, history.entries.values())) >= len(feeder.sent) > 0
    return history
