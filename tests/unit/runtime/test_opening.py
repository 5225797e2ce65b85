"""Opening a task: in one order, and back from whatever is wrong with its state."""

import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from faults import FaultyBroker, WatchedStores
from machine import Machine
from scenarios import SAMPLE, SCENARIOS

from streamkit.broker import CommittedOffset, Fetched, Fetcher, Isolation
from streamkit.errors import (
    BrokerError,
    CorruptBatchError,
    StoreDamagedError,
    StoreLockedError,
    TaskCorruptedError,
)
from streamkit.records import TopicPartition
from streamkit.runtime.opening import Opened, open_task
from streamkit.runtime.options import RunOptions
from streamkit.runtime.position import Note
from streamkit.runtime.setup import prepare
from streamkit.runtime.stores import Stores
from streamkit.runtime.task_plan import TaskPlan, unchecked
from streamkit.state import POSITION_KEY, Changes, MemoryStore

CHANGELOG = "columns-stats-changelog"


def unobserved(step: str) -> None:
    """Watch nothing."""


@pytest.fixture
def machine() -> Machine:
    """A machine in the middle of an unbounded run: windows are open, state is flushed, nothing runs."""
    scenario = SCENARIOS["columns"]
    made = scenario.machine(2)
    scenario.fill(made, SAMPLE)
    made.open(bounded=False)
    made.drain(random.Random(1))
    made.close()
    return made


def plan_of(machine: Machine, task_id: str) -> TaskPlan:
    plan = prepare(machine.topology, machine.broker, RunOptions(), unchecked)
    return next(task for task in plan.tasks if task.task_id == task_id)


def stateful(machine: Machine) -> str:
    """Return a task that has something stored."""
    return max(machine.state(), key=lambda task_id: len(machine.state()[task_id]))


def opened(
    machine: Machine,
    stores: Stores,
    *,
    told: Callable[[str], None] = unobserved,
    observe: Callable[[str], None] = unobserved,
) -> Opened:
    broker = FaultyBroker(machine.broker, told)
    return open_task(plan_of(machine, stateful(machine)), broker, stores, machine.clock, observe)


def contents(made: Opened) -> dict[bytes, bytes]:
    return {key: value for key, value in made.store.scan(b"", b"\xff" * 16) if key != POSITION_KEY}


def test_the_predecessor_is_fenced_before_the_offsets_are_read(machine: Machine) -> None:
    calls: list[str] = []
    opened(machine, machine.stores, told=calls.append)
    assert calls.index("producer") < calls.index("producer.committed") < calls.index("fetcher.fetch")


def test_a_store_at_its_place_is_not_restored_and_an_empty_one_is(machine: Machine) -> None:
    expected = machine.state()[stateful(machine)]
    assert opened(machine, machine.stores).restored_count == 0
    restored = opened(machine, WatchedStores())
    assert restored.restored_count > len(expected)
    assert contents(restored) == expected


def test_a_store_whose_stamp_is_of_another_log_is_set_aside_and_restored(machine: Machine) -> None:
    expected, task_id = machine.state()[stateful(machine)], stateful(machine)
    store = machine.stores.stores[task_id].survivor()
    store.write(Changes(values={POSITION_KEY: b'{"log":"another","at":{},"position":{}}', b"\x00\x01x": b"wrong"}))
    store.flush()
    machine.stores.stores[task_id] = store
    made = opened(machine, machine.stores)
    assert made.restored_count > 0
    assert contents(made) == expected


def test_a_store_too_old_to_have_seen_every_tombstone_is_set_aside_and_restored(machine: Machine) -> None:
    expected = machine.state()[stateful(machine)]
    half_ms = int(machine.broker.admin.describe_topics()[CHANGELOG].config["delete.retention.ms"]) // 2
    machine.clock.advance(half_ms - machine.clock.now_ms())
    assert opened(machine, machine.stores).restored_count == 0
    machine.clock.advance(half_ms)
    made = opened(machine, machine.stores)
    assert made.restored_count > 0
    assert contents(made) == expected


def test_a_store_that_stands_for_what_the_log_does_not_have_is_set_aside_and_restored(machine: Machine) -> None:
    """It was ahead of a log that lost its tail, or its changelog was another one: the record there has another CRC."""
    expected, task_id = machine.state()[stateful(machine)], stateful(machine)
    for offset in (0, 10**6):
        (stamp,) = machine.stores.stores[task_id].survivor().get_many([POSITION_KEY])
        assert stamp is not None
        crc = stamp.split(b"[", 1)[1].split(b",", 1)[1].split(b"]", 1)[0]
        before = stamp.split(b'"at":')[0]
        after = stamp.split(b'"position":', 1)[1]
        moved = b'%s"at":{"%s":[%d,%s]},"ms":0,"position":%s' % (before, CHANGELOG.encode(), offset, crc, after)
        store = machine.stores.stores[task_id].survivor()
        store.write(Changes(values={POSITION_KEY: moved, b"\x00\x01x": b"wrong"}))
        store.flush()
        machine.stores.stores[task_id] = store
        made = opened(machine, machine.stores)
        assert made.restored_count > 0
        assert contents(made) == expected
        made.store.close()


def test_state_and_offsets_that_disagree_stop_the_task_after_one_restore(machine: Machine) -> None:
    """Somebody has reset the committed offsets: counting on from there would count twice."""
    task_id, stores = stateful(machine), WatchedStores()
    place = TopicPartition("columns-by_sensor-repartition", int(task_id.split("_")[1]))
    machine.broker.group("columns").commit({place: CommittedOffset(offset=0, metadata=Note(transaction=99).to_text())})
    with pytest.raises(
        TaskCorruptedError, match=r"at transaction .* by its changelog and at 99 by its committed offsets"
    ):
        opened(machine, stores)
    assert len(stores.reasons) == 1


def test_a_store_that_is_damaged_is_set_aside_and_restored(machine: Machine) -> None:
    expected = machine.state()[stateful(machine)]
    failures = [StoreDamagedError("a block does not check")]

    def told(call: str) -> None:
        if call == "get_many" and failures:
            raise failures.pop()

    stores = WatchedStores(told)
    assert contents(opened(machine, stores)) == expected
    assert stores.reasons == ["a block does not check"]


def test_a_store_that_is_damaged_even_when_it_is_closed_is_set_aside_all_the_same(machine: Machine) -> None:
    broken = [True, True]

    def told(call: str) -> None:
        if call in ("get_many", "close") and broken:
            broken.pop()
            raise StoreDamagedError("a block does not check")

    assert opened(machine, WatchedStores(told)).restored_count > 0


def test_a_changelog_batch_that_was_damaged_on_its_way_is_read_again(machine: Machine) -> None:
    expected = machine.state()[stateful(machine)]
    failures = [CorruptBatchError("the CRC is wrong", file="00000000000000000000.log", position=61)]

    def told(call: str) -> None:
        if call == "fetcher.fetch" and failures:
            raise failures.pop()

    stores = WatchedStores()
    assert contents(opened(machine, stores, told=told)) == expected
    assert "changelog of task" in stores.reasons[0]


def test_a_changelog_that_is_damaged_for_good_is_named_with_file_and_byte(machine: Machine) -> None:
    path = next(
        name
        for name in machine.fs._files
        if f"{CHANGELOG}-{stateful(machine).split('_')[1]}/" in name and name.endswith(".log")
    )
    content = machine.fs._files[path]
    content.written[80] ^= 0xFF
    with pytest.raises(TaskCorruptedError, match="is damaged") as caught:
        opened(machine, WatchedStores())
    assert "byte" in str(caught.value)
    assert caught.value.hint.startswith("streamkit replay JOB computes state and changelog anew from the inputs; ")
    assert "restore the file from a backup" in caught.value.hint
    assert isinstance(caught.value.__cause__, CorruptBatchError)


def test_state_that_somebody_else_uses_is_left_alone(machine: Machine) -> None:
    """Only what cannot be trusted is set aside; and the producer is given back."""
    calls: list[str] = []

    class Locked(WatchedStores):
        def open(self, task_id: str) -> MemoryStore:
            raise StoreLockedError("the state directory is in use")

    stores = Locked()
    with pytest.raises(StoreLockedError):
        opened(machine, stores, told=calls.append)
    assert stores.reasons == []
    assert calls[-1] == "producer.close.done"


def test_a_task_that_is_fenced_while_it_opens_commits_nothing(machine: Machine) -> None:
    made = opened(machine, WatchedStores())
    opened(machine, WatchedStores())
    with pytest.raises(BrokerError, match="a newer producer"):
        made.producer.begin()


class Silent(FaultyBroker):
    """A broker whose fetchers never find anything."""

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        return Nothing()


class Nothing:
    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        return []

    def close(self) -> None:
        """Hold nothing."""


def test_a_partition_that_gives_nothing_below_its_end_is_an_error_and_not_a_hang(machine: Machine) -> None:
    broker = Silent(machine.broker, unobserved)
    with pytest.raises(TaskCorruptedError, match="gives nothing at offset 0"):
        open_task(plan_of(machine, stateful(machine)), broker, WatchedStores(), machine.clock, unobserved)
