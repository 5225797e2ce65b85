"""State, changelog and replay agree, or it is said which store differs and from which key on."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from changelogs import HARMS, ROWS, Entry, Ran, entries, rewrite
from scenarios import Reading

from streamkit import Job
from streamkit.broker import EARLIEST, LATEST, Broker, open_broker
from streamkit.errors import DigestMismatchError, StoreInUseError
from streamkit.graph.nodes import Process
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions, Worker
from streamkit.runtime.comparing import Comparison, check_equal
from streamkit.runtime.verify import Verification
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.state import POSITION_KEY, Changes, RocksDBResources, RocksDBStore, StateDirectory, store_key
from streamkit.topology import Topology, compile_graph
from streamkit.topology.names import store_index

pytestmark = pytest.mark.slow

CHANGELOG = TopicPartition("table-counts-changelog", 1)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Ran]:
    job = Ran(tmp_path / "log", "table")
    job.fill("readings", ROWS)
    yield job
    job.broker.close()


@contextlib.contextmanager
def columns(directory: Path) -> Iterator[Ran]:
    """Give a job with windows, and records for it."""
    job = Ran(directory / "log", "columns")
    job.fill("readings", ROWS)
    yield job
    job.broker.close()


def verified(job: Ran, *, shadow: bool = True) -> list[Comparison]:
    return verified_at(job.topology, job.broker, job.state_dir, shadow=shadow)


def verified_at(topology: Topology, broker: Broker, state_dir: str, *, shadow: bool = True) -> list[Comparison]:
    verification = Verification(
        topology,
        broker,
        state_dir=state_dir,
        options=RunOptions(),
        fs=SystemFileSystem(),
        clock=SystemClock(),
    )
    return verification.run(lambda progress: None, shadow=shadow)


def answers(comparisons: list[Comparison]) -> dict[str, set[bool | None]]:
    sides: dict[str, set[bool | None]] = {}
    for one in comparisons:
        sides.setdefault(one.side, set()).add(one.equal)
    return sides


def first_value(job: Ran, partition: int) -> tuple[bytes, bytes]:
    """Return the lowest key of a changelog, with its last value."""
    latest = {key: value for key, value, _ in entries(job.broker, TopicPartition(CHANGELOG.topic, partition))}
    key = min(key for key, value in latest.items() if key is not None and value is not None)
    return key, latest[key] or b""


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("name", ["table", "columns", "levels", "twice", "ordered", "updated", "kept", "processed"])
def test_what_a_job_has_done_agrees_with_its_replay(tmp_path: Path, name: str, *, bounded: bool) -> None:
    job = Ran(tmp_path / "log", name)
    job.fill("readings", ROWS)
    job.run(bounded=bounded)
    comparisons = verified(job)
    assert answers(comparisons) == {"changelog": {True}, "state": {True}, "replay": {True}}, comparisons
    check_equal(comparisons)
    job.broker.close()


def test_a_store_that_nothing_was_written_to_agrees_with_the_other_store_of_its_task(tmp_path: Path) -> None:
    job = Ran(tmp_path / "log", "joined")
    job.fill("readings", ROWS)
    job.fill("more", [[], []])
    job.run()
    comparisons = verified(job)
    assert {one.equal for one in comparisons if one.side != "changelog"} == {True}, comparisons
    check_equal(comparisons)
    job.broker.close()


def test_nothing_of_the_job_is_touched(table: Ran) -> None:
    table.run()

    def seen() -> object:
        topics = table.broker.admin.describe_topics()
        places = [TopicPartition(name, part) for name, one in topics.items() for part in range(one.partition_count)]
        offsets = [table.broker.admin.list_offsets(dict.fromkeys(places, at)) for at in (EARLIEST, LATEST)]
        state = {
            str(path): path.read_bytes()
            for path in Path(table.state_dir).rglob("*")
            if path.is_file() and path.suffix != ".lock" and not path.name.startswith("LOG")
        }
        return topics, offsets, dict(table.broker.group("table").committed()), state

    before = seen()
    verified(table)
    assert seen() == before


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_changelog_is_found_and_the_state_and_the_replay_name_what_it_changed(
    table: Ran, harm: Callable[[list[Entry]], list[Entry]]
) -> None:
    table.run()
    rewrite(table.broker, CHANGELOG, harm)
    comparisons = verified(table)
    assert {one.task for one in comparisons if one.side == "changelog" and one.equal is False} == {"1_1"}
    with pytest.raises(DigestMismatchError, match=r"store counts, .*keys from '"):
        check_equal(comparisons)
    assert {one.task for one in comparisons if one.side != "changelog" and one.equal is False} <= {"1_1"}


def test_a_last_value_that_was_flipped_is_named_by_its_key_from_every_side(table: Ran) -> None:
    table.run()
    key, value = first_value(table, 1)

    def flipped(some: list[Entry]) -> list[Entry]:
        at = max(index for index, entry in enumerate(some) if entry[0] == key)
        return [*some[:at], (key, value + b"0", some[at][2]), *some[at + 1 :]]

    rewrite(table.broker, CHANGELOG, flipped)
    comparisons = [one for one in verified(table) if one.equal is False]
    assert {(one.task, one.side) for one in comparisons} == {("1_1", side) for side in ("changelog", "state", "replay")}
    for one in comparisons:
        if one.side != "changelog":
            assert one.faults[0].keys is not None
            assert one.faults[0].keys.begin == key


def test_an_entry_that_was_alone_in_its_transaction_is_named_by_the_state(table: Ran) -> None:
    table.run(commit_bytes_max=10**9)
    sensor = next(iter({sensor for rows in ROWS for sensor, _, _ in rows}))
    table.fill("readings", [[(sensor, 1, 9_000)], []])
    table.run(go_on=True)
    (place,) = [
        place
        for place in (TopicPartition(CHANGELOG.topic, partition) for partition in range(3))
        if store_key(store_index("counts"), sensor.encode()) in [key for key, _, _ in entries(table.broker, place)]
    ]

    def last_entry_lost(some: list[Entry]) -> list[Entry]:
        at = max(index for index, entry in enumerate(some) if entry[0] != POSITION_KEY)
        return some[:at] + some[at + 1 :]

    rewrite(table.broker, place, last_entry_lost)
    with pytest.raises(DigestMismatchError, match=f"the state has .*keys from '{sensor}'"):
        check_equal(verified(table, shadow=False))


def test_a_state_that_was_changed_is_named_by_its_first_key(table: Ran) -> None:
    table.run()
    key, _ = first_value(table, 2)
    store = RocksDBStore(f"{table.state_dir}/table/1_2/rocksdb", resources=RocksDBResources())
    store.write(Changes(values={key: None}))
    store.close()
    different = [one for one in verified(table) if one.equal is False]
    assert [(one.task, one.side) for one in different] == [("1_2", "state")]
    assert different[0].faults[0].keys is not None
    assert different[0].faults[0].keys.begin == key
    with pytest.raises(DigestMismatchError, match=f"keys from '{key[2:].decode()}'"):
        check_equal(different)


def test_a_job_that_computes_something_else_now_is_found_by_the_replay(table: Ran) -> None:
    table.run()
    changed = Job("table")

    def kept(reading: Reading) -> bool:
        return reading.value > 0

    readings = changed.stream("readings", value=Reading, timestamp="ts").filter(kept)
    readings.group_by("sensor", type=str, name="by_sensor", shards=3).count(name="counts").to("out")
    table.topology = compile_graph(changed.build())
    different = [one for one in verified(table) if one.equal is False]
    assert {one.side for one in different} == {"replay"}
    assert len(different) == 3
    assert all(one.faults[0].keys is not None for one in different)


def test_what_takes_its_rows_in_the_order_of_arrival_is_not_comparable_with_a_replay(tmp_path: Path) -> None:
    job = Ran(tmp_path / "log", "processed")
    job.fill("readings", ROWS)
    graph = job.topology.graph
    nodes = [replace(node, order="arrival") if isinstance(node, Process) else node for node in graph.nodes]
    job.topology = compile_graph(replace(graph, nodes=tuple(nodes)))
    job.run()
    comparisons = verified(job)
    assert answers(comparisons) == {"changelog": {True}, "state": {True}, "replay": {None}}
    (reason,) = reasons(comparisons, "replay")
    assert reason == 'running says order="arrival": in which order it took its rows, no replay repeats'
    job.broker.close()


def reasons(comparisons: list[Comparison], side: str) -> set[str]:
    assert {one.equal for one in comparisons if one.side == side} == {None}
    return {one.reason for one in comparisons if one.side == side}


@pytest.mark.parametrize("bounded", [True, False])
def test_after_several_runs_a_table_without_windows_is_compared(table: Ran, *, bounded: bool) -> None:
    table.run()
    # One key of the first run alone, and others that the second changes.
    table.fill("readings", [[row for row in ROWS[0] if row[0] != "a"], ROWS[1]])
    table.run(go_on=bounded, bounded=bounded)
    comparisons = verified(table)
    assert answers(comparisons) == {"changelog": {True}, "state": {True}, "replay": {True}}, comparisons
    found = {one.reason for one in comparisons if one.side == "replay"}
    assert found == {"but for which of the job's 2 runs changed a key last"}


def test_after_several_runs_a_table_that_differs_is_named_with_its_first_key(table: Ran) -> None:
    table.run()
    table.fill("readings", ROWS)
    table.run(go_on=True)

    def kept(reading: Reading) -> bool:
        return reading.sensor != "c"

    changed = Job("table")
    readings = changed.stream("readings", value=Reading, timestamp="ts")
    kept_readings = readings.filter(kept)
    kept_readings.group_by("sensor", type=str, name="by_sensor", shards=3).count(name="counts").to("out")
    table.topology = compile_graph(changed.build())
    comparisons = [one for one in verified(table) if one.side == "replay"]
    assert {one.equal for one in comparisons} == {True, False}
    (fault,) = [fault for one in comparisons for fault in one.faults]
    assert "keys from 'c'" in str(fault)


def test_after_an_end_that_closed_windows_a_replay_is_not_comparable(tmp_path: Path) -> None:
    with columns(tmp_path) as job:
        job.run()
        job.fill("readings", ROWS)
        job.run(go_on=True)
        comparisons = verified(job)
        (reason,) = reasons(comparisons, "replay")
        assert reason.startswith("the job has made 2 runs, and the end of one before the last closed windows")
        assert answers(comparisons)["state"] == {True}


def test_windows_that_no_end_closed_are_compared_after_several_runs(tmp_path: Path) -> None:
    with columns(tmp_path) as job:
        job.run(bounded=False)
        job.run()
        found = {(one.equal, one.reason) for one in verified(job) if one.side == "replay"}
        assert found == {(True, "")}


def test_without_the_start_of_the_inputs_a_replay_is_not_comparable(table: Ran) -> None:
    table.run()
    table.broker.admin.delete_records({TopicPartition("readings", 1): 3})
    assert reasons(verified(table), "replay") == {
        "records were removed from the start of readings-1: it begins at offset 3, the state was made from 0 on"
    }


def test_a_job_that_began_after_records_were_removed_agrees_with_its_replay(table: Ran) -> None:
    table.broker.admin.delete_records({TopicPartition("readings", 1): 3})
    table.run()
    assert answers(verified(table))["replay"] == {True}


def test_what_came_since_does_not_matter(table: Ran) -> None:
    table.run()
    table.fill("readings", ROWS)
    assert answers(verified(table))["replay"] == {True}


def test_a_state_that_is_used_or_missing_is_not_comparable(table: Ran) -> None:
    table.run()
    held = StateDirectory.open(
        SystemFileSystem(), table.state_dir, job="table", task="1_0", log_id=table.broker.admin.log_id()
    )
    SystemFileSystem().remove(f"{table.state_dir}/table/1_1")
    found = {one.task: one.reason for one in verified(table, shadow=False) if one.side == "state"}
    assert found == {"1_0": "a worker uses it", "1_1": "there is none on this machine", "1_2": ""}
    held.close()


def test_an_older_state_is_compared_at_its_own_position(table: Ran) -> None:
    table.run()
    fs = SystemFileSystem()
    kept = Path(table.state_dir).with_name("kept")
    Path(table.state_dir).rename(kept)
    table.fill("readings", ROWS)
    table.run(go_on=True)
    fs.remove(table.state_dir)
    kept.rename(table.state_dir)
    states = [one for one in verified(table, shadow=False) if one.side == "state"]
    assert {one.equal for one in states} == {True}
    assert all("at its own transaction" in one.reason for one in states)


def test_one_verification_at_a_time(table: Ran) -> None:
    table.run()
    lock = SystemFileSystem().lock(f"{table.state_dir}/table@verify.lock")
    assert lock is not None
    with pytest.raises(StoreInUseError):
        verified(table)
    lock.close()


def test_the_scratch_directory_is_gone_and_what_a_killed_one_left_is_no_obstacle(table: Ran) -> None:
    table.run()
    left = Path(table.state_dir) / "table@verify" / "1_0"
    left.mkdir(parents=True)
    (left / "CURRENT").write_text("half")
    assert answers(verified(table, shadow=False))["changelog"] == {True}
    assert not left.parent.exists()


def test_a_replay_finds_too_large_what_the_sinks_of_the_job_find_too_large(tmp_path: Path) -> None:
    job = Job("copying", on_error="skip")
    texts = job.stream("texts", value=str)
    texts.to("copies")
    texts.group_by(len, type=int, name="by_length").count(name="counts")
    topology, broker, state_dir = compile_graph(job.build()), open_broker("memory://"), str(tmp_path)
    for topic in ("texts", "copies"):
        broker.admin.create_topic(topic, 1, {"max.message.bytes": "3000000"})
    producer = broker.producer()
    for size in (1, 2_000_000):
        records = EncodedRecords.to_append(timestamps_ms=[0], keys=[None], values=[b"x" * size])
        producer.send(TopicPartition("texts", 0), records)
    producer.flush()
    producer.close()
    options = RunOptions(bounded=True, state_dir=state_dir)
    worker = Worker(topology, broker, options=options, fs=SystemFileSystem(), clock=SystemClock())
    assert worker.run(threading.Event()).skipped == 0
    assert answers(verified_at(topology, broker, state_dir)) == {"changelog": {True}, "state": {True}, "replay": {True}}
    broker.close()


def test_a_job_that_has_read_nothing_yet_agrees_with_its_replay(tmp_path: Path) -> None:
    job = Ran(tmp_path / "log", "table")
    job.fill("readings", [[], []])
    job.run(bounded=False)
    assert answers(verified(job)) == {"changelog": {None}, "state": {None}, "replay": {True}}
    job.broker.close()
