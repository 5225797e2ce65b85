"""Rows of a shuffle that wait for another input: how far they were read is committed, though they stay."""

import random

import orjson
import pytest
from machine import Machine
from sales_job import sales_job

from streamkit.records import TopicPartition
from streamkit.runtime.comparing import past_of, unread_places
from streamkit.runtime.position import Note


def send(machine: Machine, topic: str, stamps_ms: list[int]) -> None:
    rows = [orjson.dumps({"shop": 1, "price": 5, "ts": ts}) for ts in stamps_ms]
    machine.send(topic, 0, [(b"1", row, 0) for row in rows])


@pytest.fixture
def machine() -> Machine:
    """Return a machine that has read prices to 2, and sales to 12 in blocks of their own."""
    machine, rng = Machine(sales_job(), {"sales": 1, "prices": 1}), random.Random(5)
    send(machine, "prices", [1, 2])
    machine.open(bounded=False)
    machine.drain(rng)
    for ts in (10, 11, 12):
        send(machine, "sales", [ts])
        machine.drain(rng)
    machine.close()
    return machine


def test_blocks_behind_a_waiting_row_are_committed_as_read(machine: Machine) -> None:
    place = TopicPartition("sales-by_shop-repartition", 0)
    committed = machine.broker.group("sales").committed()
    assert committed[place].offset < machine.ends(place.topic)[0], "no row waits"
    assert Note.from_text(committed[place].metadata).read_offset > committed[place].offset
    assert unread_places(machine.topology, machine.broker) == []
    assert past_of(machine.topology, machine.broker, committed).obstacle == (
        f"rows wait in {place} for rows of other inputs that come before them"
    )


def test_rows_that_waited_are_handed_on_once_in_the_run_after(machine: Machine) -> None:
    assert machine.read("out") == []
    send(machine, "prices", [20])
    machine.run(random.Random(6), bounded=False)
    assert [orjson.loads(value or b"")["ts"] for _, value, _ in machine.read("out")] == [10, 11, 12]
    assert past_of(machine.topology, machine.broker, machine.broker.group("sales").committed()).obstacle == ""
