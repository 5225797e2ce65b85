"""F14: the broker does what it was asked, and its answer is lost; for each kind of request of a transaction."""

import random

import ledger_job
import pytest
from fault_site import FaultSite
from kafka_proxy import (
    ADD_OFFSETS,
    ADD_PARTITIONS,
    END_TXN,
    INIT_PRODUCER_ID,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    Rule,
)
from torture import SEED, Feeder, WorkerThread, judged, make_topics, times, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.kafka, pytest.mark.slow, pytest.mark.process]

APIS = {
    "produce": PRODUCE,
    "add-partitions": ADD_PARTITIONS,
    "add-offsets": ADD_OFFSETS,
    "txn-offset-commit": TXN_OFFSET_COMMIT,
    "end-txn": END_TXN,
    "init-producer-id": INIT_PRODUCER_ID,
}


@pytest.mark.parametrize("api", APIS)
def test_a_lost_answer_loses_and_repeats_nothing(site: FaultSite, job_name: str, api: str) -> None:
    rng = random.Random(f"{SEED} {api}")
    with site.direct() as direct:
        make_topics(direct, job_name)
        worker = WorkerThread(open_broker=site.broker, job=ledger_job.ledger(job_name))
        feeder = Feeder(direct, job_name, SEED)
        worker.wait_for_commits(10)
        worker.errors.clear()
        for _ in range(times(2, 50)):
            if APIS[api] == INIT_PRODUCER_ID:
                # A producer is opened when the outcome of a commit is unknown.
                site.harm(Rule(fate="drop_reply", api=END_TXN, containing=job_name.encode()))
            rule = site.harm(
                Rule(
                    fate="drop_reply",
                    api=APIS[api],
                    containing=job_name.encode(),
                    skip=rng.randrange(5) if APIS[api] != INIT_PRODUCER_ID else 0,
                    then=rng.choice(["reset", "silence"]),
                )
            )
            wait_until(rule.landed.is_set, f"the answer to {api} is lost")
            worker.wait_for_commits(10)
        judged(direct, job_name, feeder)
        worker.stop()
    assert worker.errors == [], "the worker answers it itself"
