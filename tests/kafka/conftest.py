"""Clusters behind a proxy, for tests that harm their network; each test has a job, and so topics, of its own."""

import itertools
from collections.abc import Iterator

import pytest
from fault_site import FaultSite
from kafka_proxy import proxied_cluster
from torture import SEED, STARTED

NAMES = (f"ledger-{number}" for number in itertools.count(1))


def pytest_report_header() -> str:
    return f"fault suite: again with STREAMKIT_TORTURE_SEED={SEED}"


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    while STARTED:
        STARTED.pop().abandon()


@pytest.fixture
def job_name() -> str:
    return next(NAMES)


@pytest.fixture(scope="session")
def one_broker() -> Iterator[FaultSite]:
    with proxied_cluster() as (cluster, proxy):
        yield FaultSite(cluster=cluster, proxy=proxy)


@pytest.fixture(scope="session")
def three_brokers() -> Iterator[FaultSite]:
    # A broker that died is noticed sooner than after Kafka's 9 s.
    settings = {"broker.session.timeout.ms": "4000", "broker.heartbeat.interval.ms": "500"}
    with proxied_cluster(broker_count=3, settings=settings) as (cluster, proxy):
        yield FaultSite(cluster=cluster, proxy=proxy)


@pytest.fixture
def site(one_broker: FaultSite) -> Iterator[FaultSite]:
    """One broker behind a proxy, healthy before and after."""
    with one_broker.healthy():
        yield one_broker


@pytest.fixture
def sites(three_brokers: FaultSite) -> Iterator[FaultSite]:
    """Three brokers behind a proxy, all up and healthy before and after."""
    with three_brokers.healthy():
        yield three_brokers
