"""F10 to F12: brokers that are stopped and killed, coordinators that are lost, and an outage of all of them."""

import contextlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import ledger_job
import pytest
from aiokafka.client import CoordinationType
from fault_site import FaultSite
from torture import SEED, TORTURE, Feeder, WorkerThread, catch_up, judged, make_topics, pause, times, wait_until

from streamkit.broker import Broker, CommittedOffset
from streamkit.errors import BrokerUnavailableError, StreamkitError
from streamkit.records import EncodedRecords, TopicPartition

pytestmark = [pytest.mark.fault, pytest.mark.kafka, pytest.mark.slow, pytest.mark.process]

PROGRESS_SECONDS = 30.0
FORGOTTEN = "these partitions are likely deleted already and hence can be skipped"
"""What a coordinator says that ends a transaction without its markers, because it knows no leader for them."""


@contextlib.contextmanager
def kafka_keeps_its_word(sites: FaultSite) -> Iterator[None]:
    """Tell Kafka's own fault from ours: KAFKA-20734, an acknowledged transaction that stays open in its partitions."""
    before_count = sites.cluster.said_count(FORGOTTEN)
    try:
        yield
    except AssertionError as error:
        if sites.cluster.said_count(FORGOTTEN) > before_count:
            pytest.xfail(f"KAFKA-20734: Kafka forgot what it had acknowledged. {error}")
        raise


def test_a_job_goes_on_while_brokers_are_stopped_and_killed(sites: FaultSite, job_name: str) -> None:
    """F10: clean and unclean in turn; the one that leads the first output is chased."""
    rng = random.Random(f"{SEED} bounce")
    with sites.direct() as direct:
        make_topics(direct, job_name)
        worker = WorkerThread(open_broker=sites.broker, job=ledger_job.ledger(job_name))
        feeder = Feeder(direct, job_name, SEED, per_second=500)
        worker.wait_for_commits(10)
        cycles = times(2, 10)
        for number in range(cycles):
            index = sites.leader(f"{job_name}-echo", 0)
            (sites.cluster.kill if number % 2 else sites.cluster.stop)(index)
            took = catch_up(direct, job_name, PROGRESS_SECONDS, worker)
            print(f"F10 broker {index} {'killed' if number % 2 else 'stopped'}: progress after {took:.1f} s")
            if number + 1 < cycles:
                pause(rng.uniform(0, 2))
                sites.cluster.start(index)
                sites.wait_for_replicas()
        judged(direct, job_name, feeder)
        worker.stop()


@pytest.mark.parametrize("kind", ["transaction", "group"])
def test_a_job_goes_on_when_a_coordinator_is_killed_and_stays_dead(sites: FaultSite, job_name: str, kind: str) -> None:
    """F11."""
    with sites.direct() as direct:
        make_topics(direct, job_name)
        worker = WorkerThread(open_broker=sites.broker, job=ledger_job.ledger(job_name))
        feeder = Feeder(direct, job_name, SEED, per_second=500)
        worker.wait_for_commits(10)
        for _ in range(times(1, 5)):
            if kind == "group":
                index = sites.coordinator(CoordinationType.GROUP, job_name)
            else:
                index = sites.coordinator(CoordinationType.TRANSACTION, f"{job_name}-0_0")
            sites.cluster.kill(index)
            took = catch_up(direct, job_name, PROGRESS_SECONDS, worker)
            print(f"F11 {kind} coordinator {index} killed: progress after {took:.1f} s")
            if TORTURE:
                sites.cluster.start(index)
                sites.wait_for_replicas()
        judged(direct, job_name, feeder)
        worker.stop()


def test_a_job_goes_on_after_all_brokers_were_gone(sites: FaultSite, job_name: str) -> None:
    """F12: killed in the middle of a run, and started again, in another order."""
    with kafka_keeps_its_word(sites), sites.direct() as direct:
        make_topics(direct, job_name)
        worker = WorkerThread(open_broker=sites.broker, job=ledger_job.ledger(job_name), restart=False)
        feeder = Feeder(direct, job_name, SEED, per_second=500)
        worker.wait_for_commits(10)
        for _ in range(times(1, 2)):
            for index in range(3):
                sites.cluster.kill(index)
            # Longer than a call, a session of the group and one of a broker.
            pause(70.0 if TORTURE else 5.0)
            assert worker.running, worker.errors
            sites.cluster.start(2, 0, 1)
            took = catch_up(direct, job_name, PROGRESS_SECONDS, worker)
            print(f"F12 all brokers gone: progress {took:.1f} s after they were back")
        judged(direct, job_name, feeder)
        worker.stop()
        assert worker.errors == []


def test_no_committed_offset_is_forgotten_after_all_brokers_were_gone(sites: FaultSite, job_name: str) -> None:
    """F12: tasks commit, the brokers are killed, and the tasks' successors read what was committed.

    What the group's coordinator tells at once is printed beside it: it was older in several of a hundred openings.
    """
    rng = random.Random(f"{SEED} offsets")
    with kafka_keeps_its_word(sites), sites.direct() as direct, ThreadPoolExecutor(6) as pool:
        direct.admin.create_topic(f"{job_name}-folds", 6)
        tasks = [Committer(direct, TopicPartition(f"{job_name}-folds", number)) for number in range(6)]
        for _ in range(times(2, 20)):
            for task in tasks:
                task.go_on(until_commit_count=20)
            until_they_fail = [pool.submit(task.go_on) for task in tasks]
            pause(rng.uniform(0, 1))
            for index in range(3):
                sites.cluster.kill(index)
            for failed in until_they_fail:
                failed.result()
            sites.cluster.start(*rng.sample(range(3), 3))
            for _ in pool.map(Committer.reopen, tasks):
                pass
        for task in tasks:
            assert task.forgotten == [], f"committed, read: {task.place}"
    print(f"F12 all brokers gone: {sum(task.old_count for task in tasks)} older answers of the coordinator alone")


class Committer:
    """Commits offset after offset of one partition, in transactions, as a task does."""

    def __init__(self, broker: Broker, place: TopicPartition) -> None:
        self.place = place
        self._broker, self._name = broker, f"{place}"
        self._committed = self._acknowledged = 0
        self.forgotten: list[tuple[int, int]] = []
        self.old_count = 0
        self._producer = broker.producer(self._name)

    def go_on(self, until_commit_count: int = 10**9) -> None:
        """Commit so many, or until the broker fails."""
        record = EncodedRecords.to_append(timestamps_ms=[1], keys=[None], values=[b"folded"])
        try:
            for _ in range(until_commit_count):
                self._producer.begin()
                self._producer.send(self.place, record)
                offset = self._committed + 1
                self._producer.send_offsets(self._name, {self.place: CommittedOffset(offset=offset)})
                self._producer.commit()
                self._committed = self._acknowledged = offset
        except StreamkitError:
            assert until_commit_count == 10**9, "no broker was harmed yet"

    def reopen(self) -> None:
        """Open a successor as soon as the brokers let it, and read."""
        told: list[int] = []

        def read() -> bool:
            try:
                self._producer = self._broker.producer(self._name)
                plain = self._broker.group(self._name).committed()
                sure = self._producer.committed(self._name, self.place)
            except BrokerUnavailableError:
                return False
            # An old answer may be from before the first commit.
            nothing = CommittedOffset(offset=0)
            told.extend(committed.get(self.place, nothing).offset for committed in (plain, sure))
            return True

        wait_until(read, "the brokers are back")
        self.old_count += told[0] < told[1]
        if told[1] < self._acknowledged:
            self.forgotten.append((self._acknowledged, told[1]))
        self._committed = told[1]
