"""F10 to F12: brokers that are stopped and killed, coordinators that are lost, and an outage of all of them."""

import random

import ledger_job
import pytest
from aiokafka.client import CoordinationType
from fault_site import FaultSite
from torture import SEED, TORTURE, Feeder, WorkerThread, catch_up, judged, make_topics, pause, times

pytestmark = [pytest.mark.fault, pytest.mark.kafka, pytest.mark.slow, pytest.mark.process]

PROGRESS_SECONDS = 30.0


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
    with sites.direct() as direct:
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
