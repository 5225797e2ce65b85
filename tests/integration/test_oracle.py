"""The judge of the fault suite: it finds nothing in an honest run, and each kind of violation in one tampered with."""

import copy
from collections.abc import Callable

import ledger_job
import orjson
import pytest
from oracle import History, kinds, violations
from torture import SEED, Feeder, WorkerThread, make_topics, settled

from streamkit.broker import Broker, open_broker

pytestmark = pytest.mark.slow

SECONDS = 240.0


class KeptOpen:
    """A broker that outlives the workers that close it, since its log lies in memory."""

    def __init__(self, broker: Broker) -> None:
        self.admin, self.fetcher, self.producer = broker.admin, broker.fetcher, broker.producer
        self.group, self.join = broker.group, broker.join

    def close(self) -> None:
        """Others still use it."""


def history_of(job: str) -> tuple[History, list[int]]:
    broker = KeptOpen(open_broker("memory://"))
    make_topics(broker, job)
    worker = WorkerThread(open_broker=lambda: broker, job=getattr(ledger_job, job)(job))
    feeder = Feeder(broker, job, SEED)
    worker.wait_for_commits(20, SECONDS)
    feeder.stop()
    history = settled(broker, job, SECONDS)
    worker.stop()
    assert worker.errors == []
    return history, feeder.sent


@pytest.fixture(scope="module")
def honest() -> tuple[History, list[int]]:
    return history_of("ledger")


def test_an_honest_run_has_no_violations(honest: tuple[History, list[int]]) -> None:
    history, sent = honest
    assert violations(history, sent) == []
    assert history.read_count == len(sent) > 0
    assert min(len(positions) for positions in history.positions.values()) > 1, "several transactions a task"


def test_an_honest_copy_has_no_violations() -> None:
    history, sent = history_of("copy")
    assert violations(history, sent) == []
    assert history.read_count == len(sent) > 0


def lose_one(history: History) -> None:
    del history.echo[0][3]


def repeat_one(history: History) -> None:
    history.echo[0].insert(4, history.echo[0][3])


def swap_two(history: History) -> None:
    (one, *first), (other, *second) = history.echo[0][3], history.echo[0][4]
    history.echo[0][3:5] = [(one, *second), (other, *first)]


def lose_the_last_transaction_of_an_output(history: History) -> None:
    last = history.committed[0] - history.positions[0][-2][1]["in"][0][2]
    del history.echo[0][-last:]


def change_a_fold(history: History) -> None:
    offset, key, value = history.folds[1][-1]
    history.folds[1][-1] = (offset, key, orjson.dumps({**orjson.loads(value), "sum": 10**9}))


def repeat_a_fold(history: History) -> None:
    history.folds[1].append((history.folds[1][-1][0] + 2, *history.folds[1][-1][1:]))


def change_a_total(history: History) -> None:
    partition = next(partition for partition, rows in history.totals.items() if rows)
    offset, group, value = history.totals[partition][-1]
    history.totals[partition][-1] = (offset, group, orjson.dumps({**orjson.loads(value), "high": 10**9}))


def lose_the_totals(history: History) -> None:
    history.totals = {partition: [] for partition in history.totals}


def tear_a_transaction(history: History) -> None:
    """The first half of the last transaction's outputs is committed before the rest of it."""
    rows, before = history.echo[0], history.positions[0][-2][1]["in"][0][2]
    torn = before + (history.committed[0] - before) // 2
    history.echo[0] = rows[:torn] + [(offset + 1, key, value) for offset, key, value in rows[torn:]]


def lose_the_offsets(history: History) -> None:
    """What the last transaction wrote stays, and its offsets do not."""
    history.committed[0] = history.positions[0][-2][1]["in"][0][2]


def repeat_a_transaction(history: History) -> None:
    history.positions[0].append(history.positions[0][-1])


def leave_one_open(history: History) -> None:
    history.open_partitions.append("echo-0")


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lose_one, "LOSS"),
        (repeat_one, "DUP"),
        (swap_two, "PREFIX"),
        (lose_the_last_transaction_of_an_output, "LOSS"),
        (change_a_fold, "FOLD"),
        (repeat_a_fold, "DUP"),
        (change_a_total, "FOLD"),
        (lose_the_totals, "LOSS"),
        (tear_a_transaction, "ATOM"),
        (lose_the_offsets, "ATOM"),
        (repeat_a_transaction, "ATOM"),
        (leave_one_open, "OPEN"),
    ],
)
def test_a_violation_is_found_and_named(
    honest: tuple[History, list[int]], tamper: Callable[[History], None], kind: str
) -> None:
    history = copy.deepcopy(honest[0])
    tamper(history)
    assert kind in kinds(violations(history))


def test_an_acknowledged_entry_that_is_not_in_the_input_is_lost(honest: tuple[History, list[int]]) -> None:
    history, sent = honest
    assert kinds(violations(history, [*sent, 10**9])) == {"LOSS"}
