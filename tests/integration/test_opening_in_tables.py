"""A task whose state is lost or far behind is opened by sorted tables, and right after any crash on the way."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import orjson
import pytest

from streamkit import Job
from streamkit.broker import Broker, CommittedOffset, open_broker
from streamkit.errors import DigestMismatchError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions
from streamkit.runtime.opening import OPENING_STEPS, TABLES_FROM, Opened, open_task
from streamkit.runtime.position import InputPosition, Note, Position
from streamkit.runtime.setup import prepare
from streamkit.runtime.stores import DirectoryStores
from streamkit.runtime.task_plan import unchecked
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.state import POSITION_KEY, Digest, EntriesDigest, store_key
from streamkit.topology import compile_graph

job = Job("numbers")
job.stream("source", key=str, value=bytes).group_by_key().count(name="counts").to("sink")
TOPOLOGY = compile_graph(job.build())
(SPEC,) = TOPOLOGY.sub_topologies[0].stores
SOURCE, CHANGELOG = TopicPartition("source", 0), TopicPartition(SPEC.changelog_topic, 0)
ROWS = 5_000
MANY = TABLES_FROM // ROWS + 1
Pairs = dict[bytes, bytes]

pytestmark = pytest.mark.slow


class Killed(BaseException):
    pass


class Committed:
    """A task as its commits have left it in the log."""

    def __init__(self, broker: Broker, state_dir: Path) -> None:
        self.broker, self.contents, self._digest, self._transaction = broker, Pairs(), Digest(), 0
        self.stores = DirectoryStores(SystemFileSystem(), str(state_dir), TOPOLOGY.job, broker.admin.log_id())
        broker.admin.create_topic("source", 1)
        broker.admin.create_topic(CHANGELOG.topic, 1, {"cleanup.policy": "compact", "delete.retention.ms": "604800000"})

    def commit(self, values: Mapping[bytes, bytes | None], *, harmed: bool = False) -> None:
        """Commit one transaction; a harmed one writes another last value than it says."""
        keys, new = list(values), list(values.values())
        self._digest.replace(keys, [self.contents.get(key) for key in keys], new)
        entries = EntriesDigest()
        entries.add(keys, new)
        for key, value in values.items():
            if value is None:
                self.contents.pop(key, None)
            else:
                self.contents[key] = value
        self._transaction += 1
        position = Position(
            transaction=self._transaction,
            inputs={SOURCE: InputPosition(next_offset=0)},
            digests={SPEC.name: self._digest.to_text()},
            entries={SPEC.name: entries.to_text()},
        )
        if harmed:
            new[-1] = b"another"
        records = EncodedRecords.to_append(
            timestamps_ms=[0] * (len(keys) + 1),
            keys=[*keys, POSITION_KEY],
            values=[*new, orjson.dumps(position.to_json())],
        )
        producer = self.broker.producer("writer")
        producer.begin()
        producer.send(CHANGELOG, records)
        producer.commit()
        producer.close()
        note = Note(transaction=self._transaction).to_text()
        self.broker.group(TOPOLOGY.job).commit({SOURCE: CommittedOffset(offset=0, metadata=note)})

    def commit_many(self, value: bytes) -> None:
        for number in range(MANY):
            self.commit({key_of(ROWS * number + row): b"%s %d" % (value, row) for row in range(ROWS)})

    def open(self, observe: Callable[[str], None] = lambda step: None) -> Opened:
        (plan,) = prepare(TOPOLOGY, self.broker, RunOptions(), unchecked).tasks
        return open_task(plan, self.broker, self.stores, SystemClock(), observe)

    def opened(self) -> tuple[Pairs, int]:
        """Open the task and close it; return what its store holds, and how many records were applied."""
        made = self.open()
        pairs = dict(made.store.scan(b"", POSITION_KEY))
        made.store.close()
        made.producer.close()
        self.stores.close("0_0")
        return pairs, made.restored_count

    def die_before(self, dying: str) -> None:
        def observe(step: str) -> None:
            if step == dying:
                raise Killed

        with pytest.raises(Killed):
            self.open(observe)


def key_of(number: int) -> bytes:
    return store_key(SPEC.index, b"%08d" % number)


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Committed]:
    with contextlib.closing(open_broker(f"log://{tmp_path}/log?durability=os")) as broker:
        yield Committed(broker, tmp_path / "state")


def test_a_store_that_is_lost_is_made_once(task: Committed) -> None:
    task.commit_many(b"first")
    pairs, count = task.opened()
    assert pairs == task.contents
    assert count == MANY * (ROWS + 1)
    assert task.opened() == (task.contents, 0), "it bears its stamp"


def test_a_store_that_is_far_behind_is_brought_forward_and_deletes_what_was_deleted(task: Committed) -> None:
    old = [10**6 + number for number in range(10)]
    task.commit({key_of(number): b"old" for number in old})
    assert task.opened()[1] == 11
    task.commit({key_of(old[3]): None, key_of(old[4]): None})
    task.commit_many(b"second")
    task.commit({key_of(ROWS + 1): None, key_of(ROWS * MANY + 1): b"new"})
    pairs, count = task.opened()
    assert pairs == task.contents
    assert count == MANY * (ROWS + 1) + 6
    assert task.opened()[1] == 0


@pytest.mark.parametrize("step", [*[step.__name__ for step in OPENING_STEPS][3:], "opened"])
def test_a_crash_on_the_way_leaves_nothing_that_was_deleted_since(task: Committed, step: str) -> None:
    task.commit_many(b"first")
    task.die_before(step)
    task.commit({key_of(number): None for number in range(100)})
    pairs, _ = task.opened()
    assert pairs == task.contents


def test_a_crash_before_the_stamp_leaves_nothing_if_what_follows_is_short_either(task: Committed) -> None:
    """What is left then has no stamp, and a store without one is empty."""
    task.commit({key_of(number): b"old" for number in range(10)})
    task.die_before("write_stamp")
    store = task.stores.open("0_0")
    assert len(list(store.scan(b"", POSITION_KEY))) == 10
    store.close()
    task.stores.close("0_0")
    # As if key and tombstone had been compacted away.
    task.broker.admin.delete_records({CHANGELOG: 11})
    task.commit({key_of(20): b"new"})
    assert task.opened()[0] == {key_of(20): b"new"}


def test_a_changelog_that_was_harmed_is_found_at_a_cold_start(task: Committed) -> None:
    task.commit_many(b"first")
    task.commit({key_of(0): b"x", key_of(7): b"y"}, harmed=True)
    for _ in range(2):
        with pytest.raises(DigestMismatchError) as caught:
            task.open()
        assert f"transaction {MANY + 1}" in str(caught.value)
        assert "'00000000'" in str(caught.value)
