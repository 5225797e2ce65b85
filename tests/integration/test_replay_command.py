"""A replay gives the state and the outputs that were there, whatever step it died before."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from changelogs import HARMS, ROWS, Entry, Ran, entries, rewrite
from scenarios import Reading

from streamkit import Job
from streamkit.broker import EARLIEST, LATEST, OffsetSpec
from streamkit.broker.protocols import Member
from streamkit.errors import ConfigError, DigestMismatchError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions
from streamkit.runtime.comparing import Comparison, check_equal, unread_places
from streamkit.runtime.replay import REPLAY_STEPS, Replay, ReplayEnvironment, emptied_topics
from streamkit.runtime.replaying import _Watch
from streamkit.runtime.restore import Restorer
from streamkit.runtime.verify import Verification
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.state import POSITION_KEY, Changes, RocksDBResources, RocksDBStore
from streamkit.topology import compile_graph

pytestmark = pytest.mark.slow

STEPS = [step.__name__ for step in REPLAY_STEPS]
AFTER_PLAN = STEPS[STEPS.index("write_plan") + 1 :]


class Killed(BaseException):
    pass


def ran(directory: Path, name: str, *, bounded: bool = True) -> Ran:
    job = Ran(directory / "log", name)
    for source in job.scenario.sources:
        job.fill(source, ROWS)
    job.run(bounded=bounded)
    return job


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Ran]:
    job = ran(tmp_path, "table")
    yield job
    job.broker.close()


def unobserved(step: str) -> None:
    pass


def replay(job: Ran, *, observe: Callable[[str], None] = unobserved, begin: OffsetSpec = EARLIEST) -> list[Comparison]:
    environment = ReplayEnvironment(
        broker=job.broker,
        state_dir=job.state_dir,
        options=RunOptions(commit_bytes_max=300, fetch_bytes_max=200),
        fs=SystemFileSystem(),
        clock=SystemClock(),
        observe=observe,
    )
    return Replay(job.topology, environment, begin).run()


def killed_before(job: Ran, step: str, *, begin: OffsetSpec = EARLIEST) -> None:
    def observe(seen: str) -> None:
        if seen == step:
            raise Killed

    with pytest.raises(Killed):
        replay(job, observe=observe, begin=begin)
    job.reopen()


def places(job: Ran, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, part) for part in range(job.broker.admin.describe_topics()[topic].partition_count)]


def outputs(job: Ran) -> dict[str, list[Entry]]:
    topics = {topic for sub in job.topology.sub_topologies for topic in sub.sink_topics}
    return {
        topic: sorted(entry for place in places(job, topic) for entry in entries(job.broker, place)) for topic in topics
    }


def state(job: Ran) -> dict[str, dict[bytes, bytes]]:
    found = {}
    for path in sorted(Path(job.state_dir, job.topology.job).iterdir()):
        if (path / "rocksdb").exists():
            store = RocksDBStore(str(path / "rocksdb"), resources=RocksDBResources())
            pairs = dict(store.scan(b"", b"\xff" * 16))
            store.close()
            found[path.name] = {key: value for key, value in pairs.items() if key != POSITION_KEY}
    return found


def read_to(job: Ran) -> dict[TopicPartition, int]:
    committed = job.broker.group(job.topology.job).committed()
    return {place: at.offset for place, at in committed.items() if place.topic in job.scenario.sources}


def nothing_is_left(job: Ran) -> bool:
    left = [name for name in SystemFileSystem().list(job.state_dir) if "@" in name]
    return not left and f"{job.topology.job}-replay" not in job.broker.admin.describe_topics()


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("name", ["table", "columns", "levels", "twice", "ordered", "uneven"])
def test_a_replay_gives_what_was_there(tmp_path: Path, name: str, *, bounded: bool) -> None:
    job = ran(tmp_path, name, bounded=bounded)
    before = state(job), read_to(job)
    written = outputs(job)
    ends = {topic: job.broker.admin.list_offsets(dict.fromkeys(places(job, topic), LATEST)) for topic in written}
    comparisons = replay(job)
    assert comparisons
    assert {one.equal for one in comparisons} == {True}
    assert (state(job), read_to(job)) == before
    if bounded:
        assert outputs(job) == written
    for end in ends.values():
        assert job.broker.admin.list_offsets(dict.fromkeys(end, EARLIEST)) == end, "earlier outputs are still there"
    assert nothing_is_left(job)
    job.broker.close()


@pytest.mark.parametrize("name", ["table", "columns"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_before_any_step_the_same_replay_goes_on(tmp_path: Path, name: str, step: str) -> None:
    job = ran(tmp_path, name)
    before = state(job), read_to(job), outputs(job)
    killed_before(job, step)
    comparisons = replay(job)
    assert {one.equal for one in comparisons} == {True}
    assert (state(job), read_to(job), outputs(job)) == before
    assert nothing_is_left(job)
    job.fill("readings", ROWS)
    assert job.run(go_on=True).records_in == sum(map(len, ROWS)), "the job does not go on after the replay"
    job.broker.close()


def test_killed_before_every_step_in_turn_it_comes_to_its_end(table: Ran) -> None:
    before = state(table), read_to(table), outputs(table)
    for step in STEPS:
        killed_before(table, step)
    assert {one.equal for one in replay(table)} == {True}
    assert (state(table), read_to(table), outputs(table)) == before


@pytest.mark.parametrize("step", AFTER_PLAN)
def test_until_a_replay_has_ended_no_worker_starts(table: Ran, step: str) -> None:
    killed_before(table, step)
    with pytest.raises(ConfigError, match="a replay of job table was begun"):
        table.run()
    with pytest.raises(ConfigError, match="began elsewhere"):
        replay(table, begin=5)
    replay(table)
    assert table.run().already_finished


def test_a_replay_that_was_killed_after_its_run_with_its_state_is_compared_all_the_same(table: Ran) -> None:
    before = state(table)
    killed_before(table, "compare")
    SystemFileSystem().remove(table.state_dir)
    assert {one.equal for one in replay(table)} == {True}
    assert state(table) == before


def test_while_workers_run_it_is_refused(table: Ran) -> None:
    before = outputs(table)
    membership = table.broker.join("table", ["readings"], Member(id="host-0"), lambda members: {"host-0": []})
    with pytest.raises(ConfigError, match="workers of job table are running: host-0"):
        replay(table)
    assert outputs(table) == before
    membership.leave()
    replay(table)


def test_a_job_that_has_not_run_has_nothing_to_replay(tmp_path: Path) -> None:
    job = Ran(tmp_path / "log", "table")
    job.fill("readings", ROWS)
    with pytest.raises(ConfigError, match="has not run"):
        replay(job)
    assert nothing_is_left(job)
    job.broker.close()


def test_a_compacted_output_is_refused_before_anything_is_removed(tmp_path: Path) -> None:
    job = Ran(tmp_path / "log", "table")
    job.fill("readings", ROWS)
    job.broker.admin.create_topic("out", 3, {"cleanup.policy": "compact"})
    job.run()
    before = outputs(job)
    with pytest.raises(ConfigError, match="cannot be removed: its cleanup"):
        replay(job)
    assert outputs(job) == before
    assert job.run().already_finished
    job.broker.close()


def test_what_came_since_is_left_to_the_next_run(table: Ran) -> None:
    table.fill("readings", ROWS)
    at = read_to(table)
    replay(table)
    assert read_to(table) == at
    assert table.run(go_on=True).records_in == sum(map(len, ROWS))


def test_from_a_time_only_later_records_count_and_the_state_is_not_comparable(table: Ran) -> None:
    comparisons = replay(table, begin=250)
    assert {one.equal for one in comparisons} == {None}
    assert {one.reason for one in comparisons} == {
        "the state was made from readings-0 from offset 0 on, the replay begins at 36"
    }
    assert all(one.digest for one in comparisons)
    expected: dict[bytes, int] = {}
    for rows in ROWS:
        first = next((number for number, (_, _, ts) in enumerate(rows) if ts >= 250), len(rows))
        for sensor, _, _ in rows[first:]:
            expected[sensor.encode()] = expected.get(sensor.encode(), 0) + 1
    assert {key: int(value or b"0") for key, value, _ in outputs(table)["out"]} == expected


def verified(job: Ran) -> dict[str, set[bool | None]]:
    verification = Verification(
        job.topology,
        job.broker,
        state_dir=job.state_dir,
        options=RunOptions(),
        fs=SystemFileSystem(),
        clock=SystemClock(),
    )
    found: dict[str, set[bool | None]] = {}
    for one in verification.run(lambda _: None):
        found.setdefault(one.side, set()).add(one.equal)
    return found


ALL_EQUAL: dict[str, set[bool | None]] = {"changelog": {True}, "state": {True}, "replay": {True}}


@pytest.mark.parametrize("step", [None, "run_inputs"])
def test_a_state_made_from_a_time_on_agrees_with_what_begins_there_too(table: Ran, step: str | None) -> None:
    if step is not None:
        killed_before(table, step, begin=250)
    replay(table, begin=250)
    assert verified(table) == ALL_EQUAL
    assert {one.equal for one in replay(table, begin=250)} == {True}
    table.fill("readings", ROWS)
    table.run(go_on=True)
    assert verified(table) == ALL_EQUAL


def test_a_replay_from_the_start_is_not_comparable_with_a_state_made_from_a_time_on(table: Ran) -> None:
    replay(table, begin=250)
    comparisons = replay(table)
    assert {(one.equal, one.reason) for one in comparisons} == {
        (None, "the state was made from readings-0 from offset 36 on, the replay begins at 0")
    }
    assert verified(table) == ALL_EQUAL
    assert {one.equal for one in replay(table)} == {True}


@pytest.mark.parametrize("state", ["here", "lost"])
def test_after_several_runs_the_state_is_compared_and_right(table: Ran, state: str) -> None:
    table.fill("readings", ROWS)
    table.run(go_on=True)
    latest = {key: value for key, value, _ in sorted(outputs(table)["out"], key=lambda entry: int(entry[1] or b"0"))}
    if state == "lost":
        SystemFileSystem().remove(table.state_dir)
    comparisons = replay(table)
    assert {one.equal for one in comparisons} == {True}
    assert {one.reason for one in comparisons} == {"but for which of the job's 2 runs changed a key last"}
    assert {key: value for key, value, _ in outputs(table)["out"]} == latest


def test_a_job_that_gives_something_else_is_named_with_its_keys(table: Ran) -> None:
    changed = Job("table")

    def kept(reading: Reading) -> bool:
        return reading.value > 0

    readings = changed.stream("readings", value=Reading, timestamp="ts").filter(kept)
    readings.group_by("sensor", type=str, name="by_sensor", shards=3).count(name="counts").to("out")
    table.topology = compile_graph(changed.build())
    comparisons = replay(table)
    with pytest.raises(DigestMismatchError, match=r"store counts, task 1_0: the replay has .*; (all keys|keys from)"):
        check_equal(comparisons)
    assert nothing_is_left(table)


@pytest.mark.parametrize("harm", HARMS[:3])
@pytest.mark.parametrize("state_is_here", [True, False])
def test_a_damaged_changelog_is_mended(
    table: Ran, harm: Callable[[list[Entry]], list[Entry]], *, state_is_here: bool
) -> None:
    before = state(table)
    rewrite(table.broker, TopicPartition("table-counts-changelog", 1), harm)
    if not state_is_here:
        SystemFileSystem().remove(table.state_dir)
    comparisons = replay(table)
    assert {one.task: one.equal for one in comparisons} == {
        "1_0": True,
        "1_1": True if state_is_here else None,
        "1_2": True,
    }
    assert all("the changelog was damaged" in one.reason for one in comparisons if one.equal is None)
    assert state(table) == before
    restorer = Restorer(table.topology, table.broker, fs=SystemFileSystem(), clock=SystemClock())
    assert all(store.right for store in restorer.restore(table.state_dir))


def test_a_changelog_whose_files_are_damaged_is_mended(table: Ran) -> None:
    before = state(table)
    (segment,) = (table.directory / "table-counts-changelog-1").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)
    SystemFileSystem().remove(table.state_dir)
    comparisons = {one.task: one for one in replay(table)}
    assert comparisons["1_1"].equal is None
    assert "is damaged" in comparisons["1_1"].reason
    assert state(table) == before


def test_a_state_that_was_changed_is_not_taken_for_what_was_there(table: Ran) -> None:
    before = state(table)
    store = RocksDBStore(f"{table.state_dir}/table/1_1/rocksdb", resources=RocksDBResources())
    store.write(Changes(values={next(iter(before["1_1"])): b"other"}))
    store.close()
    assert {one.equal for one in replay(table)} == {True}
    assert state(table) == before


def test_what_is_emptied_is_said_beforehand(table: Ran) -> None:
    table.broker.admin.create_topic("table.dead_letter", 1)
    assert emptied_topics(table.topology, table.broker) == [
        "out",
        "table.dead_letter",
        "table-by_sensor-repartition",
        "table-counts-changelog",
    ]


def test_rows_that_are_not_committed_yet_keep_a_replay_going(tmp_path: Path) -> None:
    job = ran(tmp_path, "table", bounded=False)
    (shuffle,) = [repartition.topic for repartition in job.topology.repartitions]
    watch = _Watch(job.topology, job.broker, read_to(job), threading.Event(), SystemClock())
    assert watch._drained()
    producer = job.broker.producer("writer")
    producer.begin()
    row = EncodedRecords.to_append(timestamps_ms=[0], keys=[b"row"], values=[b"row"])
    producer.send(TopicPartition(shuffle, 0), row)
    # On disk as it is when it was decided that the transaction is committed, and its markers are not written yet.
    behind = job.broker.producer()
    behind.send(TopicPartition(shuffle, 0), row)
    behind.flush()
    assert not unread_places(job.topology, job.broker)
    assert not watch._drained()
    behind.close()
    producer.close()
    job.broker.close()
