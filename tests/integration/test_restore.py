"""State from the changelog: what a task would have, and nothing of a changelog that is not what was written."""

from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from changelogs import HARMS, ROWS, Entry, Ran, rewrite

from streamkit.broker import LAST_STABLE
from streamkit.errors import DigestMismatchError, StoreInUseError, UnknownTopicError
from streamkit.log import decode
from streamkit.records import TopicPartition
from streamkit.runtime.changelogs import stateful_tasks
from streamkit.runtime.folding import ChangelogFold
from streamkit.runtime.restore import Restorer
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.state import POSITION_KEY, MemoryStore, RocksDBResources, RocksDBStore, StateDirectory

pytestmark = pytest.mark.slow


@pytest.fixture(params=["table", "columns", "twice", "kept"])
def ran(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ran]:
    yield from ran_job(tmp_path, request.param)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Ran]:
    yield from ran_job(tmp_path, "table")


def ran_job(directory: Path, name: str) -> Iterator[Ran]:
    job = Ran(directory / "log", name)
    job.fill("readings", ROWS)
    job.run()
    yield job
    job.broker.close()


def restorer(job: Ran) -> Restorer:
    return Restorer(job.topology, job.broker, fs=SystemFileSystem(), clock=SystemClock())


def contents(state_dir: str, job: Ran) -> dict[str, dict[bytes, bytes]]:
    found = {}
    for task in stateful_tasks(job.topology, job.broker):
        store = RocksDBStore(f"{state_dir}/{job.topology.job}/{task.task_id}/rocksdb", resources=RocksDBResources())
        found[task.task_id] = dict(store.scan(b"", b"\xff" * 16))
        store.close()
    return found


def without_date(found: dict[str, dict[bytes, bytes]]) -> dict[str, dict[bytes, object]]:
    """Leave out of each stamp when it was written."""
    return {
        task: {key: {**orjson.loads(value), "ms": 0} if key == POSITION_KEY else value for key, value in pairs.items()}
        for task, pairs in found.items()
    }


def test_a_restored_store_is_the_one_that_was_there_with_its_stamp(ran: Ran, tmp_path: Path) -> None:
    there = without_date(contents(ran.state_dir, ran))
    assert any(len(pairs) > 1 for pairs in there.values()) or ran.topology.job == "columns"
    restored = restorer(ran).restore(str(tmp_path / "elsewhere"))
    assert without_date(contents(str(tmp_path / "elsewhere"), ran)) == there
    assert all(store.right and store.said is not None for store in restored)
    restorer(ran).restore(ran.state_dir)
    assert without_date(contents(ran.state_dir, ran)) == there


def test_the_job_goes_on_from_a_restored_store(table: Ran) -> None:
    restorer(table).restore(table.state_dir)
    table.fill("readings", ROWS)
    table.run(go_on=True)
    task_dirs = SystemFileSystem().list(f"{table.state_dir}/table")
    assert not [name for name in task_dirs if "damaged" in name], "a restored store was not trusted"
    counted = sum(pair.ranges.total.pair_count for pair in restorer(table).restore(table.state_dir))
    assert counted == len({sensor for rows in ROWS for sensor, _, _ in rows})


def test_a_fold_in_many_small_tables_is_the_same(table: Ran) -> None:
    for task in stateful_tasks(table.topology, table.broker):
        for place, spec in task.places().items():
            stores = []
            for fold_bytes_max in (1, 1 << 30):
                store = MemoryStore()
                fold = ChangelogFold(spec, place, store, begin_offset=0, complete=True, fold_bytes_max=fold_bytes_max)
                end_offset = table.broker.admin.list_offsets({place: LAST_STABLE})[place]
                position = 0
                while position < end_offset:
                    for part in table.broker.fetcher().fetch({place: position}, wait_ms=0, bytes_max=1):
                        fold.take(decode(part.record_batches, from_offset=position))
                        position = part.next_offset
                fold.end()
                assert not fold.faults
                stores.append(dict(store.scan(b"", b"\xff" * 8)))
            assert stores[0] == stores[1]


def test_a_store_in_use_is_left_alone(table: Ran) -> None:
    held = StateDirectory.open(
        SystemFileSystem(), table.state_dir, job="table", task="1_1", log_id=table.broker.admin.log_id()
    )
    with pytest.raises(StoreInUseError):
        restorer(table).restore(table.state_dir)
    held.close()


def test_a_job_that_has_not_run_has_nothing_to_restore(tmp_path: Path) -> None:
    job = Ran(tmp_path / "log", "table")
    with pytest.raises(UnknownTopicError, match="table-counts-changelog"):
        restorer(job).restore(job.state_dir)
    job.broker.close()


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_changelog_is_named_with_its_keys_and_the_state_stays(
    table: Ran, harm: Callable[[list[Entry]], list[Entry]]
) -> None:
    there = contents(table.state_dir, table)
    rewrite(table.broker, TopicPartition("table-counts-changelog", 1), harm)
    with pytest.raises(DigestMismatchError, match=r"store counts, table-counts-changelog-1: .*keys from '") as raised:
        restorer(table).restore(table.state_dir)
    assert "streamkit replay" in raised.value.hint
    assert contents(table.state_dir, table)["1_1"] == there["1_1"]
