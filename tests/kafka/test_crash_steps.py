"""A crash before each step of setting up, opening and committing changes nothing on a real Kafka.

`tests/property/test_crashes.py` does so over brokers in memory, at many moments. Here is one moment of each step, with
what only a real broker has: a transaction that the dead worker left open, and that its successor has to end.
"""

import contextlib
import functools
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from outcomes import digests, settle
from workers import read, send, worker

from streamkit import Job
from streamkit.broker import Broker, Producer, open_broker
from streamkit.records import TopicPartition
from streamkit.runtime import COMMIT_STEPS, OPENING_STEPS, SETUP_STEPS
from streamkit.topology import compile_graph

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

STEPS = [
    *(step.__name__ for step in (*SETUP_STEPS, *OPENING_STEPS)),
    "opened",
    *(step.__name__ for step in COMMIT_STEPS),
    "done",
]
HALVES = [[b"to", b"be", b"or"], [b"not", b"to", b"be"]]
COUNTS = {b"to": b"2", b"be": b"2", b"or": b"1", b"not": b"1"}


class Crashed(Exception):
    """The worker died."""


class Dying:
    """A broker whose producers are not closed by a dead worker: what they have begun stays open."""

    def __init__(self, broker: Broker) -> None:
        self._broker, self.dead = broker, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def producer(self, transactional_id: str | None = None) -> "DyingProducer":
        return DyingProducer(self._broker.producer(transactional_id), self)


class DyingProducer:
    def __init__(self, inner: Producer, broker: Dying) -> None:
        self._inner, self._broker = inner, broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def close(self) -> None:
        if not self._broker.dead:
            self._inner.close()


def counted(prefix: str) -> Job:
    job = Job(f"{prefix}words")
    words = job.stream(f"{prefix}lines", value=str).group_by(str, name="by_word", shards=1)
    words.count(name="counts").to(f"{prefix}counts")
    return job


def fill(broker: Broker, prefix: str, half: int) -> None:
    broker.admin.create_topic(f"{prefix}lines", 1, {"retention.ms": "-1"})
    producer = broker.producer()
    for line in HALVES[half]:
        send(producer, TopicPartition(f"{prefix}lines", 0), None, line)
    producer.flush()
    producer.close()


def finish(broker: Broker, prefix: str, **options: Any) -> None:
    """Run to the end of what is there now, or of the run that was fixed."""
    ended = worker(counted(prefix), broker, bounded=True, go_on=True, **options).run(threading.Event())
    assert ended.finished


def left(broker: Broker, prefix: str) -> tuple[list[Any], list[dict[str, str]]]:
    """Return what stands in the sink, in any order, and the digests of the store."""
    settle(broker, prefix)
    records = [(key, value) for key, value, _ in read(broker, f"{prefix}counts")]
    said = digests(broker, compile_graph(counted(prefix).build()))
    return sorted(records), [said[place] for place in sorted(said)]


@functools.cache
def calm() -> tuple[list[Any], list[dict[str, str]]]:
    with contextlib.closing(open_broker("memory://")) as broker:
        for half in (0, 1):
            fill(broker, "calm_", half)
            finish(broker, "calm_")
        return left(broker, "calm_")


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_before_a_step_changes_nothing(step: str, kafka: str, tmp_path: Path) -> None:
    """In the second of two runs: the first time, but of a commit the second, which is that of the task with the store.

    The successor finds the state of the first run, or the crashed worker's.
    """
    prefix, state = f"crash{uuid.uuid4().hex[:8]}_", str(tmp_path / "state")
    due = 2 if step in {*(one.__name__ for one in COMMIT_STEPS), "done"} else 1
    with contextlib.closing(open_broker(f"kafka://{kafka}")) as broker, contextlib.ExitStack() as dead:
        fill(broker, prefix, 0)
        finish(broker, prefix, state_dir=state)
        fill(broker, prefix, 1)
        dying = Dying(dead.enter_context(contextlib.closing(open_broker(f"kafka://{kafka}"))))
        reached: list[str] = []

        def crash_at(name: str) -> None:
            reached.append(name)
            if dying.dead or reached.count(step) >= due:  # tasks open side by side, so the count may skip one
                dying.dead = True
                raise Crashed

        with pytest.raises(Crashed):
            finish(dying, prefix, state_dir=state, observe=crash_at)
        # A run that was fixed is finished; one that was not is begun.
        finish(broker, prefix, state_dir=state)
        assert left(broker, prefix) == calm()
    assert dict(calm()[0]) == COUNTS
