"""F01, F03, F04, F15, F37: workers that are killed, stopped, robbed of their ids, late, and that come and go.

Those of F01, F03 and F37 are processes.
"""

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import ledger_job
import pytest
from fault_site import SESSION_TIMEOUT_MS, FaultSite
from kafka_proxy import END_TXN, HEARTBEAT, Rule
from torture import SEED, WAIT_SECONDS, Feeder, WorkerThread, catch_up, judged, make_topics, pause, times, wait_until
from worker_process import WorkerProcess

from streamkit.broker import Broker

pytestmark = [pytest.mark.fault, pytest.mark.kafka, pytest.mark.slow, pytest.mark.process]

RESUME_SECONDS = SESSION_TIMEOUT_MS / 1000 + 5
STORM_SECONDS = 10.0
WORKERS = 3
FILES_EXTRA = 12
"""Connections and files of tasks that are just coming or going."""


@contextlib.contextmanager
def workers(site: FaultSite, job_name: str, directory: Path, count: int) -> Iterator[list[WorkerProcess]]:
    """Some workers, which end well; a test may replace them."""
    started = [WorkerProcess(site, job_name, directory / f"worker-{number}") for number in range(count)]
    try:
        yield started
        for worker in started:
            worker.finish()
    finally:
        for worker in started:
            worker.resume()
            worker.kill()


def test_workers_that_are_killed_lose_and_repeat_nothing(site: FaultSite, job_name: str, tmp_path: Path) -> None:
    """F01: SIGKILL of one of three, whatever it is at; another is started in its place."""
    rng = random.Random(f"{SEED} kill")
    with site.direct() as direct, workers(site, job_name, tmp_path, WORKERS) as running:
        make_topics(direct, job_name)
        feeder = Feeder(direct, job_name, SEED, per_second=1000)
        catch_up(direct, job_name)
        took = []
        for _ in range(times(3, 100)):
            pause(rng.uniform(0.2, 5) if rng.random() < 0.5 else rng.uniform(0, 0.5))
            victim = rng.randrange(WORKERS)
            running[victim].kill()
            running[victim] = WorkerProcess(site, job_name, tmp_path / f"worker-{victim}")
            took.append(catch_up(direct, job_name))
        print(f"F01: {len(took)} kills; all was committed after at most {max(took):.1f} s")
        assert max(took) <= RESUME_SECONDS
        judged(direct, job_name, feeder)


def test_a_worker_that_was_stopped_past_its_session_commits_nothing_more(
    site: FaultSite, job_name: str, tmp_path: Path
) -> None:
    """F03: SIGSTOP, until the others have committed 1,000 records more; then SIGCONT."""
    rng = random.Random(f"{SEED} zombie")
    with site.direct() as direct, workers(site, job_name, tmp_path, 2) as running:
        make_topics(direct, job_name)
        feeder = Feeder(direct, job_name, SEED, per_second=1000)
        for _ in range(times(1, 100)):
            wait_until(lambda: min(worker.opened_count for worker in running) > 0, "both have tasks")
            catch_up(direct, job_name)
            pause(rng.uniform(0, 1))
            zombie = rng.choice(running)
            zombie.pause()
            before = read_count(direct, job_name)
            catch_up(direct, job_name)
            wait_until(
                lambda before=before: read_count(direct, job_name) >= before + 1000, "1,000 records are committed"
            )
            zombie.resume()
            took = catch_up(direct, job_name)
            print(f"F03: all was committed {took:.1f} s after the zombie came back")
            assert took <= STORM_SECONDS
            assert zombie.running, zombie.complaints
        judged(direct, job_name, feeder)


def test_a_worker_that_was_stopped_while_it_opened_a_task_goes_on(site: FaultSite, job_name: str) -> None:
    """F03: it has read the committed offsets; when it comes to the changelog, others have moved both."""
    go = threading.Event()

    def told(step: str) -> None:
        if step == "open_store":
            go.wait(WAIT_SECONDS)

    with site.direct() as direct:
        make_topics(direct, job_name)
        job = ledger_job.ledger(job_name)
        first = WorkerThread(open_broker=site.patient, job=job, name="first", told=told)
        wait_until(lambda: first.steps["open_store"] > 0, "tasks are being opened")
        feeder = Feeder(direct, job_name, SEED)
        first_up_to = site.proxy.connection_count
        heartbeats = site.harm(Rule(fate="hold", api=HEARTBEAT, count=None, connections_up_to=first_up_to))
        second = WorkerThread(open_broker=site.broker, job=job, name="second")
        second.wait_for_commits(20)
        go.set()
        site.spare(heartbeats)
        first.wait_for_commits(10)
        judged(direct, job_name, feeder)
        first.stop()
        second.stop()
    assert first.errors == second.errors == []


def read_count(broker: Broker, job_name: str) -> int:
    committed = broker.group(job_name).committed()
    return sum(at.offset for place, at in committed.items() if place.topic == f"{job_name}-entries")


def test_a_task_whose_id_was_taken_is_opened_again(site: FaultSite, job_name: str) -> None:
    """F04: another producer opens with the ids of tasks that are at work."""
    rng = random.Random(f"{SEED} hijack")
    with site.direct() as direct:
        make_topics(direct, job_name)
        worker = WorkerThread(open_broker=site.broker, job=ledger_job.ledger(job_name))
        feeder = Feeder(direct, job_name, SEED)
        catch_up(direct, job_name)
        for _ in range(times(5, 100)):
            pause(rng.uniform(0, 0.3))
            direct.producer(f"{job_name}-{rng.randrange(2)}_{rng.randrange(3)}").close()
            assert catch_up(direct, job_name) <= STORM_SECONDS
        judged(direct, job_name, feeder)
        worker.stop()
    assert worker.errors == [], "the worker answers it itself"


def test_a_commit_that_arrives_late_ends_no_later_transaction(site: FaultSite, job_name: str) -> None:
    """F15 in a job: the end of a transaction is held until the task is some transactions further."""
    rng = random.Random(f"{SEED} late")
    with site.direct() as direct:
        make_topics(direct, job_name)
        worker = WorkerThread(open_broker=site.broker, job=ledger_job.ledger(job_name))
        feeder = Feeder(direct, job_name, SEED)
        catch_up(direct, job_name)
        for _ in range(times(4, 200)):
            late = site.harm(Rule(fate="hold", api=END_TXN, containing=job_name.encode(), skip=rng.randrange(4)))
            assert late.landed.wait(WAIT_SECONDS)
            # Its client gives the producer up, and another takes over before the entries of now are committed.
            catch_up(direct, job_name)
            pause(rng.uniform(0, 0.1))
            site.proxy.release(late)
            assert late.answered.wait(WAIT_SECONDS)
        judged(direct, job_name, feeder)
        worker.stop()
    assert worker.errors == [], "the worker answers it itself"


def test_workers_may_come_and_go_all_the_time(site: FaultSite, job_name: str, tmp_path: Path) -> None:
    """F37: one stays, one after the other comes, and ends well or is killed."""
    rng = random.Random(f"{SEED} storm")
    with site.direct() as direct, workers(site, job_name, tmp_path, 1) as (resident,):
        make_topics(direct, job_name)
        feeder = Feeder(direct, job_name, SEED, per_second=500)
        catch_up(direct, job_name)
        took, files, memory = [], [], []
        for number in range(times(3, 200)):
            guest = WorkerProcess(site, job_name, tmp_path / f"guest-{number % 2}")
            pause(rng.uniform(0.5, 2.5))
            took.append(catch_up(direct, job_name))
            if rng.random() < 0.5:
                guest.kill()
            else:
                guest.finish()
            took.append(catch_up(direct, job_name))
            files.append(resident.descriptor_count())
            memory.append(resident.resident_bytes())
        warm = len(files) // 4
        print(
            f"F37: {len(files)} cycles; all was committed after at most {max(took):.1f} s; files {files[warm]} to "
            f"{files[-1]}; memory {memory[warm] >> 20} to {memory[-1] >> 20} MiB"
        )
        assert max(took) <= STORM_SECONDS
        assert files[-1] <= max(files[: warm + 1]) + FILES_EXTRA
        assert memory[-1] <= 1.25 * max(memory[: warm + 1])
        judged(direct, job_name, feeder)
