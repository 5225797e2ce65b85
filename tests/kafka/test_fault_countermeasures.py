"""Rules D1 to D4: what each of them prevents does happen when it is left out, in the same test.

Each test drives one schedule twice, which the proxy makes certain: with the code as it is nothing may be wrong; with
the counter-measure left out the judge must find what it is there for, else the test proves nothing.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ledger_job
import oracle
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from fault_site import FaultSite
from kafka_proxy import END_TXN, HEARTBEAT, Rule
from torture import PARTITIONS, SEED, WAIT_SECONDS, Feeder, WorkerThread, make_topics, settled, wait_until

from streamkit.broker import LATEST, Broker
from streamkit.broker.kafka.producer import KafkaProducer
from streamkit.broker.kafka.transactions import TransactionCoordinator
from streamkit.errors import BrokerUnavailableError, CommitFailedError, StreamkitError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import opening
from streamkit.runtime.reading import read_to
from streamkit.seams import SystemClock

pytestmark = [pytest.mark.fault, pytest.mark.kafka, pytest.mark.slow, pytest.mark.process]

DAY_MS = 86_400_000

both_ways = pytest.mark.parametrize("left_out", [False, True], ids=["as it is", "left out"])


class Takeover:
    """A worker whose commit is under way, for ever as it seems, and a second one that takes its tasks over."""

    def __init__(self, site: FaultSite, direct: Broker, job_name: str) -> None:
        self.site, self.direct, self.job_name = site, direct, job_name
        make_topics(direct, job_name)
        self.job = ledger_job.copy(job_name)
        self.first = WorkerThread(open_broker=site.patient, job=self.job, name="first")
        self.feeder = Feeder(direct, job_name, SEED)
        self.first.wait_for_commits(10)
        self.held = site.harm(Rule(fate="hold", api=END_TXN, containing=job_name.encode()))
        wait_until(self.held.landed.is_set, "a commit is under way")
        first_up_to = site.proxy.connection_count
        self.heartbeats = site.harm(Rule(fate="hold", api=HEARTBEAT, count=None, connections_up_to=first_up_to))

    def second(self, told: Callable[[str], None] = lambda step: None) -> WorkerThread:
        """Start the worker that takes over, once the group takes the first one for dead."""
        return WorkerThread(open_broker=self.site.broker, job=self.job, told=told, name="second")

    def let_commit(self) -> None:
        """Let the commit arrive that the first worker sent."""
        self.site.proxy.release(self.held)
        assert self.held.answered.wait(WAIT_SECONDS)

    def outcome(self, second: WorkerThread) -> set[str]:
        """Let the first worker be one of the group again; return the kinds of violation when all is over."""
        self.site.spare(self.heartbeats)
        self.first.wait_for_commits(1)
        self.first.stop()
        self.feeder.stop()
        history = settled(self.direct, self.job_name)
        second.stop()
        assert self.first.errors == second.errors == []
        return oracle.kinds(oracle.violations(history, self.feeder.sent))


@both_ways
def test_d1_an_id_for_each_task_keeps_a_zombie_from_committing(
    site: FaultSite, job_name: str, monkeypatch: pytest.MonkeyPatch, left_out: bool
) -> None:
    """Kafka's group coordinator takes the offsets of anybody: only the epoch of a shared id keeps a zombie out."""
    if left_out:
        shared, owners = opening.transactional_id, itertools.count()

        def own(job: str, task_id: str) -> str:
            return f"{shared(job, task_id)}-of-{next(owners)}"

        monkeypatch.setattr(opening, "transactional_id", own)
    with site.direct() as direct:
        takeover = Takeover(site, direct, job_name)
        second = takeover.second()
        second.wait_for_commits(10)
        takeover.let_commit()
        kinds = takeover.outcome(second)
    assert "DUP" in kinds if left_out else kinds == set()


@both_ways
def test_d2_offsets_are_read_after_fencing(
    site: FaultSite, job_name: str, monkeypatch: pytest.MonkeyPatch, left_out: bool
) -> None:
    """The predecessor's commit arrives between the two steps: either it is refused, or it was seen."""
    if left_out:
        monkeypatch.setattr(opening, "_OWNING_STEPS", (opening.Opening.read_offsets, opening.Opening.fence))
        # There is no producer yet to read them through.
        monkeypatch.setattr(opening.Opening, "_read_committed", lambda task: task._broker.group(job_name).committed())
    with site.direct() as direct:
        takeover = Takeover(site, direct, job_name)
        between = "fence" if left_out else "read_offsets"
        # All tasks are opened at once, and the commit may be that of any.
        there, met = threading.Barrier(PARTITIONS, action=takeover.let_commit), list[str]()

        def told(step: str) -> None:
            if step == between and len(met) < PARTITIONS:
                met.append(step)
                there.wait(WAIT_SECONDS)

        second = takeover.second(told)
        second.wait_for_commits(10)
        assert len(met) == PARTITIONS
        kinds = takeover.outcome(second)
    assert "DUP" in kinds if left_out else kinds == set()


class Unlooked(KafkaProducer):
    """Commits whatever became of the sends, as aiokafka's own producer does."""

    async def _commit(self) -> None:
        await self._appends.settle()
        self._sequences |= await self._appends.take_back()
        await super()._commit()


@both_ways
def test_d3_a_refused_record_keeps_its_input_from_being_committed(
    site: FaultSite, job_name: str, monkeypatch: pytest.MonkeyPatch, left_out: bool
) -> None:
    """From one moment on the topic refuses timestamps of two days ago, as those of all outputs are; then no more.

    A limit of a moment would refuse markers too, when the broker is slow: then Kafka leaves transactions open.
    """
    if left_out:
        monkeypatch.setattr("streamkit.broker.kafka.broker.KafkaProducer", Unlooked)
    with site.direct() as direct:
        make_topics(direct, job_name)
        worker = WorkerThread(open_broker=site.broker, job=ledger_job.copy(job_name))
        feeder = Feeder(direct, job_name, SEED, age_ms=2 * DAY_MS)
        worker.wait_for_commits(10)
        limit_age(site, f"{job_name}-echo", DAY_MS)
        if left_out:
            worker.wait_for_commits(10)
        else:
            opened = worker.steps["fence"]
            wait_until(lambda: worker.steps["fence"] >= opened + 2, "a task is opened again")
        limit_age(site, f"{job_name}-echo", 2**63 - 1)
        feeder.stop()
        history = settled(direct, job_name, 15 if left_out else WAIT_SECONDS)
        worker.stop()
    found = oracle.violations(history, feeder.sent)
    kinds = oracle.kinds(found)
    assert "LOSS" in kinds if left_out else kinds == set(), f"{found[:5]}; {dict(worker.steps)}; {worker.errors}"


def limit_age(site: FaultSite, topic: str, age_max_ms: int) -> None:
    """Change how far in the past the topic takes timestamps."""

    async def change() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=site.cluster.direct)
        await admin.start()
        try:
            configs = {"message.timestamp.before.max.ms": str(age_max_ms)}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
        finally:
            await admin.close()

    asyncio.run(change())


class Insisting(TransactionCoordinator):
    """Sends an end that was not answered again, with the same epoch, as aiokafka's own producer does."""

    async def end(self, *, commit: bool) -> None:
        while True:
            try:
                return await super().end(commit=commit)
            except CommitFailedError as error:
                # A refusal is an answer: to the abort of what has been committed meanwhile.
                if not isinstance(error.__cause__, BrokerUnavailableError):
                    raise


@both_ways
def test_d4_a_late_commit_does_not_end_the_next_transaction(
    site: FaultSite, job_name: str, monkeypatch: pytest.MonkeyPatch, left_out: bool
) -> None:
    """F15: the first copy of a commit arrives while the next transaction is open, which is then aborted."""
    if left_out:
        monkeypatch.setattr("streamkit.broker.kafka.producer.TransactionCoordinator", Insisting)
    place, transactional_id = TopicPartition(f"{job_name}-echo", 0), f"{job_name}-late"
    with site.direct() as direct, closing(site.broker()) as broker:
        make_topics(direct, job_name)
        producer = broker.producer(transactional_id)
        late = site.harm(Rule(fate="hold", api=END_TXN, containing=transactional_id.encode()))
        producer.begin()
        producer.send(place, one_record(b"first"))
        try:
            producer.commit()
        except CommitFailedError:
            producer.close()
            producer = broker.producer(transactional_id)
        wait_until(lambda: not oracle.open_partitions(direct, job_name), "no transaction is open")
        end_offset = direct.admin.list_offsets({place: LATEST})[place]
        producer.begin()
        producer.send(place, one_record(b"aborted"))
        wait_until(lambda: direct.admin.list_offsets({place: LATEST})[place] > end_offset, "the record is there")
        site.proxy.release(late)
        assert late.answered.wait(WAIT_SECONDS)
        with contextlib.suppress(StreamkitError):
            producer.abort()
        producer.close()
        wait_until(lambda: not oracle.open_partitions(direct, job_name), "no transaction is open")
        assert visible(direct, place) == ([b"first", b"aborted"] if left_out else [])


def one_record(value: bytes) -> EncodedRecords:
    return EncodedRecords.to_append(timestamps_ms=[SystemClock().now_ms()], keys=[None], values=[value])


def visible(broker: Broker, place: TopicPartition) -> list[Any]:
    return [
        value for records in read_to(broker, broker.fetcher("read_committed"), place, None) for value in records.values
    ]


@contextlib.contextmanager
def closing(broker: Broker) -> Iterator[Broker]:
    try:
        yield broker
    finally:
        broker.close()
