"""Rows take turns in the run that follows a bounded one which was left before its end."""

import random
from collections.abc import Iterator, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine

from streamkit import Context, Job, Record

EXAMPLES = 60 if settings().max_examples >= 500 else 15


class Note(msgspec.Struct):
    """A text that tells a record from all others."""

    text: str
    ts: int


def in_one_order() -> Job:
    """Return a job that adds up the texts of two topics, in the order in which they come."""
    job = Job("job")
    one, other = [job.stream(topic, key=str, value=Note, timestamp="ts") for topic in "ab"]
    seen = job.store("seen", key=str, value=str)

    @one.merge(other).key_by(lambda note: "all", name="by", shards=1).process(stores=[seen])
    def so_far(ctx: Context, note: Record[str, Note]) -> Iterator[Record[str, str]]:
        texts = (ctx.store(seen).get(note.key) or "") + note.value.text
        ctx.store(seen).put(note.key, texts)
        yield note.with_value(texts)

    so_far.to("out")
    return job


Records = Mapping[tuple[str, int], list[Note]]


def send(machine: Machine, records: Records) -> None:
    for (topic, partition), notes in records.items():
        machine.send(topic, partition, [(b"", msgspec.json.encode(note), 0) for note in notes])


def go_on(machine: Machine, task_ids: list[str], *, bytes_max: int = 1000, fetches: int = 9) -> None:
    """Let each task in turn read so often, and commit."""
    runners = {runner.task.task_id: runner for runner in machine.runners}
    for runner in (runners[task_id] for task_id in task_ids):
        for _ in range(fetches):
            for part in machine.fetcher.fetch(runner.task.positions(), wait_ms=0, bytes_max=bytes_max):
                runner.feed(part)
        if runner.task.dirty:
            sealed = runner.seal()
            assert sealed is not None
            runner.finish(sealed)


LATE = [Note("<late>", 100), Note("<last>", 200)]
"""Of the first partition of "b": while the second of these is not read, the bounded run goes on."""


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(
    st.integers(0, 9),
    st.fixed_dictionaries(
        dict.fromkeys([("a", 0), ("a", 1), ("b", 1)], st.lists(st.integers(10, 90), min_size=1, max_size=3))
    ),
    st.permutations(["0_0", "0_1", "1_0"]),
)
def test_what_was_said_of_a_bounded_run_does_not_order_the_rows_of_the_next(
    early: int, later: Mapping[tuple[str, int], list[int]], order: list[str]
) -> None:
    """In the bounded run both partitions of "a" had ended: they held nobody back, and then they get rows."""
    first = {("a", part): [Note(f"<{part}>", early)] for part in (0, 1)} | {("b", 0): LATE}
    second = {
        place: [Note(f"<{place[0]}{place[1]}{number}>", ts) for number, ts in enumerate(stamps)]
        for place, stamps in later.items()
    }
    made = []
    for first_to_go_on in (order, [*order[1:], order[0]], [*order[2:], *order[:2]]):
        machine = Machine(in_one_order(), {"a": 2, "b": 2})
        send(machine, first)
        machine.open(bounded=True)
        go_on(machine, ["0_0", "0_1"], bytes_max=1, fetches=1)
        go_on(machine, ["1_0"])
        assert not machine.finished
        machine.close()
        send(machine, second)
        machine.open(bounded=False)
        go_on(machine, first_to_go_on)
        go_on(machine, first_to_go_on)
        machine.drain(random.Random(0))
        machine.close()
        machine.run_bounded(random.Random(0))
        made.append(machine.read("out"))
    assert made[0] == made[1] == made[2]
