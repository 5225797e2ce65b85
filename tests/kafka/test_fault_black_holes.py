"""F13: a network that swallows one direction or both, resets, accepts and says nothing, or trickles."""

import random
import time
from collections.abc import Callable

import ledger_job
import pytest
from fault_site import FaultSite
from kafka_proxy import BOTH, END_TXN, FETCH, METADATA, PRODUCE, Rule
from torture import SEED, TORTURE, Feeder, WorkerThread, catch_up, judged, make_topics, pause, times

from streamkit.broker import LATEST, Broker
from streamkit.errors import BrokerUnavailableError, CommitFailedError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.seams import SystemClock

pytestmark = [pytest.mark.fault, pytest.mark.kafka, pytest.mark.slow, pytest.mark.process]

PROGRESS_SECONDS = 30.0
DEADLINE_MS = 2000
WAYS = {"requests": ("requests",), "replies": ("replies",), "both ways": BOTH}


def half_open(site: FaultSite) -> None:
    """Whoever is connected is cut off; whoever connects is taken, and hears nothing."""
    site.proxy.black_hole(0)
    site.proxy.reset()


def trickle(site: FaultSite) -> None:
    for api in (PRODUCE, FETCH, METADATA, END_TXN):
        site.harm(Rule(fate="trickle", api=api, count=3, seconds=0.2))


def reset(site: FaultSite) -> None:
    assert site.proxy.reset() > 0


FAULTS: dict[str, Callable[[FaultSite], None]] = {
    **{name: lambda site, ways=ways: site.proxy.black_hole(0, ways) for name, ways in WAYS.items()},
    "half open": half_open,
    "reset": reset,
    "trickle": trickle,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_goes_on_when_the_network_is_back(site: FaultSite, job_name: str, fault: str) -> None:
    rng = random.Random(f"{SEED} {fault}")
    with site.direct() as direct:
        make_topics(direct, job_name)
        worker = WorkerThread(open_broker=site.broker, job=ledger_job.ledger(job_name))
        feeder = Feeder(direct, job_name, SEED)
        worker.wait_for_commits(10)
        for _ in range(times(1, 10)):
            FAULTS[fault](site)
            pause(rng.uniform(5, 120) if TORTURE else rng.uniform(1.1, 2))
            site.proxy.heal()
            took = catch_up(direct, job_name, PROGRESS_SECONDS)
            print(f"F13 {fault}: all is committed {took:.1f} s after it")
        judged(direct, job_name, feeder)
        worker.stop()


CALLS: dict[str, Callable[[Broker, TopicPartition], object]] = {
    "offsets": lambda broker, place: broker.admin.list_offsets({place: LATEST}),
    "topics": lambda broker, place: broker.admin.describe_topics(),
    "committed": lambda broker, place: broker.group("somebody").committed(),
    "open": lambda broker, place: broker.producer(f"{place}-other"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_ends_by_its_deadline(site: FaultSite, job_name: str, call: str) -> None:
    with site.direct() as direct:
        make_topics(direct, job_name)
    place = TopicPartition(f"{job_name}-echo", 0)
    broker = site.broker(DEADLINE_MS)
    CALLS[call](broker, place)
    site.proxy.black_hole(0)
    begin = time.monotonic()
    with pytest.raises(BrokerUnavailableError):
        CALLS[call](broker, place)
    assert 0.3 <= (time.monotonic() - begin) * 1000 / DEADLINE_MS <= 1.2
    broker.close()


@pytest.mark.parametrize("ways", WAYS)
def test_a_commit_ends_by_its_deadline_and_its_outcome_is_unknown(site: FaultSite, job_name: str, ways: str) -> None:
    with site.direct() as direct:
        make_topics(direct, job_name)
    place = TopicPartition(f"{job_name}-echo", 0)
    broker = site.broker(DEADLINE_MS)
    producer = broker.producer(job_name)
    producer.begin()
    producer.send(place, EncodedRecords.to_append(timestamps_ms=[SystemClock().now_ms()], keys=[None], values=[b"x"]))
    site.proxy.black_hole(0, WAYS[ways])
    begin = time.monotonic()
    with pytest.raises(CommitFailedError):
        producer.commit()
    assert 0.3 <= (time.monotonic() - begin) * 1000 / DEADLINE_MS <= 1.2
    begin = time.monotonic()
    producer.close()
    broker.close()
    assert (time.monotonic() - begin) <= 5, "what cannot be closed is abandoned"
