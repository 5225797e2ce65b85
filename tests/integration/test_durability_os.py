"""A power cut between any two writes of a log that acknowledges without fsync: it goes back to one moment.

All partitions, transactions and group offsets are then as of the last barrier, or of the one that was being written.
The death of the process alone loses nothing.
"""

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from crashes import (
    BusyClock,
    Keep,
    Power,
    PowerCut,
    Told,
    commit,
    goes_on,
    judge,
    keepers,
    opened,
    set_up,
    visible,
    workload,
)

import streamkit.broker.barriers as barriers_module
import streamkit.broker.coordinator as coordinator_module
import streamkit.broker.log_directory as log_directory_module
from streamkit.broker import EARLIEST, Broker, CommittedOffset
from streamkit.broker.embedded import EmbeddedBroker
from streamkit.broker.open import open_broker
from streamkit.broker.whole_file import read_whole
from streamkit.errors import CorruptBatchError, LogError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.seams import ManualClock, MemoryFileSystem, SeededRng, SystemClock, SystemFileSystem

URL = "memory://?durability=os"
PLAIN, COPY, BRIEF = TopicPartition("plain", 0), TopicPartition("copy", 0), TopicPartition("brief", 0)


def barrier(fs: MemoryFileSystem) -> int:
    """Return the number of the barrier that is on the disk, 0 if there is none."""
    body = read_whole(fs, "log/barrier")
    return 0 if body is None else int(msgspec.json.decode(body)["number"])


def copied(broker: Broker, name: str, told: Told) -> None:
    """Write to one topic without a transaction, and what was read there to another, as a job at least once does."""
    producer = broker.producer()
    for tp in (PLAIN, COPY):
        value = name.encode() if tp is PLAIN else visible(broker, PLAIN)[-1].encode()
        producer.send(tp, EncodedRecords.to_append(timestamps_ms=[1], keys=[None], values=[value]))
        producer.flush()
    producer.close()
    told.committed[name] = told.barrier()


def whole_workload(broker: Broker, told: Told) -> None:
    """Transactions, records without one, a topic that comes and goes, and deleted records."""
    for tp in (PLAIN, COPY):
        broker.admin.create_topic(tp.topic, 1, {"segment.bytes": "300"})
    copied(broker, "plain 0", told)
    workload(broker, told)
    broker.admin.create_topic("brief", 1)
    for number in range(1, 9):
        copied(broker, f"plain {number}", told)
    producer = broker.producer()
    producer.send(BRIEF, EncodedRecords.to_append(timestamps_ms=[1], keys=[None], values=[b"brief"]))
    producer.flush()
    broker.group("brief").commit({BRIEF: CommittedOffset(offset=1)})
    broker.admin.delete_records({COPY: 5})
    task = broker.producer("task")
    for number in range(20, 26):
        commit(task, f"task {number}", told)
    broker.admin.delete_topic("brief")
    commit(task, "task 26", told)


def crashed_at(crash_index: int) -> tuple[MemoryFileSystem, Told]:
    power = Power()
    fs, broker = set_up(power, URL, BusyClock(1_000_000))
    told = Told(barrier=lambda: barrier(fs))
    power.cut_at = power.changes + crash_index + 1
    with pytest.raises(PowerCut):
        whole_workload(broker, told)
    return fs, told


def change_count() -> int:
    power = Power()
    fs, broker = set_up(power, URL, BusyClock(1_000_000))
    before = power.changes
    whole_workload(broker, Told())
    assert barrier(fs) > 8, "too few barriers to prove anything"
    return power.changes - before


def plain(broker: Broker, told: Told, last_barrier: int) -> int:
    """Check the records without transactions; return how many there are."""
    topics = broker.admin.describe_topics()
    assert "brief" in topics or not broker.group("brief").committed(), "a topic is gone, but not what groups know of it"
    values = {tp: visible(broker, tp) if tp.topic in topics else [] for tp in (PLAIN, COPY)}
    names = [f"plain {number}" for number in range(9)]
    start = broker.admin.list_offsets({COPY: EARLIEST})[COPY] if COPY.topic in topics else 0
    assert values[PLAIN] == names[: len(values[PLAIN])]
    assert values[COPY] == names[start : start + len(values[COPY])]
    assert start + len(values[COPY]) <= len(values[PLAIN]), "a copy is there whose original is lost"
    for name, number in told.committed.items():
        assert number >= last_barrier or not name.startswith("plain") or name in names[: start + len(values[COPY])]
    return len(values[PLAIN]) + start + len(values[COPY])


def judge_moment(broker: Broker, told: Told, last_barrier: int) -> set[str]:
    """Check that the log is as it once was, no earlier than at the last barrier; return what there is."""
    kept = {name: at for name, at in told.committed.items() if at < last_barrier and not name.startswith("plain")}
    names = judge(broker, Told(kept, told.never_committed, told.attempted))
    assert names == set(told.attempted[: len(names)]), "a transaction is there, but an earlier one is lost"
    plain(broker, told, last_barrier)
    return names


def without_plain(told: Told) -> Told:
    return Told(
        {name: 0 for name in told.committed if not name.startswith("plain")}, told.never_committed, told.attempted
    )


@pytest.fixture(autouse=True, params=[16 * 1024 * 1024, 2_000], ids=["", "rewrites"])
def often_rewritten(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let the transaction log be rewritten, and checkpoints be written, now and then during the workload, too."""
    monkeypatch.setattr(coordinator_module, "REWRITE_BYTES", request.param)
    monkeypatch.setattr(log_directory_module, "CHECKPOINT_BYTES", 5 * request.param)
    return int(request.param)


@pytest.mark.slow
def test_a_power_cut_between_any_two_writes_leads_back_to_one_moment() -> None:
    lost: set[int] = set()
    for crash_index in range(0, change_count(), 3):
        fs, told = crashed_at(crash_index)
        at = barrier(fs)
        moments = set()
        for label, keep in keepers(crash_index):
            after_fs = fs.crashed(keep)
            after = opened(after_fs, URL)
            names = judge_moment(after, told, at)
            moments.add((len(names), plain(after, told, at)))
            again = opened(after_fs.crashed(), URL)
            assert judge_moment(again, told, at) == names, f"a second power cut took something back ({label})"
            goes_on(after, without_plain(told).after(names))
            after.close()
        assert len(moments) == 1, "what the machine happened to keep beyond the barrier made a difference"
        lost.add(len(without_plain(told).committed) - len(names))
    assert {0, 1, 2} <= lost, "some crashes must lose what no barrier has"


@pytest.mark.slow
def test_the_death_of_the_process_loses_nothing_that_was_acknowledged() -> None:
    for crash_index in range(0, change_count(), 4):
        fs, told = crashed_at(crash_index)
        killed_fs = fs.killed()
        killed = opened(killed_fs, URL)
        names = judge(killed, without_plain(told))
        there = plain(killed, told, 1_000_000)
        after = opened(killed_fs.crashed(), URL)
        assert judge(after, without_plain(told)) == names, "what was opened is not durable"
        assert plain(after, told, 1_000_000) == there


@pytest.mark.slow
def test_a_crash_while_the_log_is_cut_back_changes_nothing() -> None:
    count = change_count()
    for crash_index in range(3, count, 61):
        fs, told = crashed_at(crash_index)
        at = barrier(fs)
        everything = list(keepers(crash_index))[1][1]
        names = judge_moment(opened(fs.crashed(everything), URL), told, at)
        power = Power()
        opened(fs.crashed(everything, observe=power), URL)
        for cut_at in range(1, power.changes + 1):
            for ends in half_recovered(fs, everything, cut_at):
                assert judge_moment(opened(ends, URL), told, at) == names


def half_recovered(fs: MemoryFileSystem, keep: Keep | None, cut_at: int) -> Iterator[MemoryFileSystem]:
    """Give what a recovery leaves that dies before a change: with the machine, or alone."""
    power = Power()
    power.cut_at = cut_at
    after = fs.crashed(keep, observe=power)
    with pytest.raises(PowerCut):
        opened(after, URL)
    yield after.killed()
    yield after.crashed(next(keep for label, keep in keepers(cut_at) if label == "a part"))


@pytest.mark.slow
def test_a_power_cut_while_a_killed_log_is_opened_leads_to_one_moment_too() -> None:
    for crash_index in range(5, change_count(), 61):
        fs, told = crashed_at(crash_index)
        power = Power()
        opened(fs.killed(observe=power), URL)
        for cut_at in range(1, power.changes + 1):
            again = Power()
            again.cut_at = cut_at
            half_opened = fs.killed(observe=again)
            with pytest.raises(PowerCut):
                opened(half_opened, URL)
            for _, keep in keepers(cut_at):
                judge_moment(opened(half_opened.crashed(keep), URL), told, barrier(fs))


@pytest.mark.slow
def test_a_log_cut_back_can_be_opened_with_fsync_from_then_on() -> None:
    for crash_index in range(0, change_count(), 5):
        fs, told = crashed_at(crash_index)
        after_fs = fs.crashed(list(keepers(crash_index))[2][1])
        after = opened(after_fs)
        names = judge_moment(after, told, barrier(fs))
        assert barrier(after_fs) == 0
        later = without_plain(told).after(names)
        commit(after.producer("task"), "task 90", later)
        judge(opened(after_fs.crashed()), later)


@pytest.mark.parametrize("whole", [True, False], ids=["topic", "records"])
def test_records_are_gone_only_when_what_was_made_of_them_is_durable(whole: bool) -> None:
    """A job has copied a record, and it is deleted: at no moment of that does a power cut lose both."""
    outcomes = set()
    for cut_at in range(1, 60):
        power = Power()
        fs = MemoryFileSystem(power)
        broker = opened(fs, URL)
        for tp in (PLAIN, COPY):
            broker.admin.create_topic(tp.topic, 1)
        copied(broker, "plain 0", Told())
        power.cut_at = power.changes + cut_at
        with contextlib.suppress(PowerCut):
            if whole:
                broker.admin.delete_topic("plain")
            else:
                broker.admin.delete_records({PLAIN: 1})
        after = opened(fs.crashed(), URL)
        there = "plain" in after.admin.describe_topics()
        deleted = not there or after.admin.list_offsets({PLAIN: EARLIEST})[PLAIN] > 0
        assert visible(after, COPY) or not deleted
        outcomes.add(deleted)
    assert outcomes == {True, False}


class OtherBoot(SystemFileSystem):
    """The machine's files after it was started again."""

    def boot_id(self) -> str:
        return "another"


def test_real_files_are_cut_back_after_a_reboot_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barriers_module, "INTERVAL_MS", 3_600_000)
    broker = open_broker(f"log://{tmp_path}/log?durability=os")
    broker.admin.create_topic("plain", 1, {"segment.bytes": "100"})
    broker.admin.create_topic("copy", 1)
    copied(broker, "plain 0", Told())
    broker.admin.create_topic("brief", 1)
    broker.admin.delete_topic("brief")  # with a barrier before it
    for number in range(1, 4):
        copied(broker, f"plain {number}", Told())
    for name in ("killed", "rebooted"):
        shutil.copytree(tmp_path / "log", tmp_path / name)
    broker.close()
    for name, fs, count in (("killed", SystemFileSystem(), 4), ("rebooted", OtherBoot(), 1), ("log", OtherBoot(), 4)):
        for _ in range(2):
            after = open_broker(f"log://{tmp_path}/{name}", fs=fs)
            expected = [f"plain {number}" for number in range(count)]
            assert [visible(after, tp) for tp in (PLAIN, COPY)] == [expected, expected], name
            after.close()


def test_a_clean_close_leaves_nothing_to_lose() -> None:
    fs, broker = set_up(Power(), URL)
    told = Told()
    whole_workload(broker, told)
    broker.close()
    assert "barrier" not in fs.list("log")
    after = opened(fs.crashed(), URL)
    judge(after, without_plain(told))
    assert plain(after, told, 1_000_000) == 18


def test_who_comes_while_the_log_is_closed_is_refused_and_costs_nobody_anything() -> None:
    refusals: list[LogError] = []

    def observe(change: str) -> None:
        if change == "sync" and closing and not refusals:
            with pytest.raises(LogError, match="the log is closed") as refused:
                late.flush()
            refusals.append(refused.value)

    closing = False
    fs = MemoryFileSystem(observe)
    broker = opened(fs, URL)
    for tp in (PLAIN, COPY):
        broker.admin.create_topic(tp.topic, 1)
    copied(broker, "plain 0", Told())
    late = broker.producer()
    late.send(COPY, EncodedRecords.to_append(timestamps_ms=[1], keys=[None], values=[b"late"]))
    closing = True
    broker.close()
    assert refusals
    assert visible(opened(fs.crashed(), URL), PLAIN) == ["plain 0"]


def test_nothing_is_acknowledged_after_a_barrier_that_failed() -> None:
    refused: set[str] = set()

    def observe(change: str) -> None:
        if change in refused:
            raise OSError(5, "Input/output error")

    clock = ManualClock(1_000_000)
    fs = MemoryFileSystem(observe)
    broker = open_broker(URL, fs=fs, clock=clock)
    broker.admin.create_topic("plain", 1)
    broker.admin.create_topic("copy", 1)
    told = Told()
    copied(broker, "plain 0", told)
    refused.add("sync")
    copied(broker, "plain 1", told)
    clock.advance(1000)
    with pytest.raises(LogError, match="a barrier could not be written"):
        copied(broker, "plain 2", told)
    refused.clear()
    with pytest.raises(LogError, match="the log has stopped"):
        copied(broker, "plain 3", told)
    broker.close()
    assert "barrier" in fs.list("log"), "what is on the disk is unknown, so it must be cut after a power cut"


def test_a_barrier_without_its_records_is_damage_and_nothing_is_changed() -> None:
    fs, broker = set_up(Power(), URL, BusyClock(1_000_000))
    whole_workload(broker, Told())
    after = fs.crashed()
    segment = after.open("log/a-0/" + next(name for name in reversed(after.list("log/a-0")) if name.endswith(".log")))
    segment.truncate(segment.size_bytes() - 1)
    sizes = [after.open(f"log/{name}").size_bytes() for name in ("transactions.log", "barrier")]
    with pytest.raises(CorruptBatchError, match="bytes of the segment were durable"):
        opened(after, URL)
    assert sizes == [after.open(f"log/{name}").size_bytes() for name in ("transactions.log", "barrier")]


@pytest.mark.slow
def test_barriers_beside_threads_that_commit_are_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread copies, in transactions of its own, what it reads of a topic that another one writes."""
    monkeypatch.setattr(barriers_module, "INTERVAL_MS", 0)
    snapshots: list[MemoryFileSystem] = []
    fs = MemoryFileSystem(lambda change: snapshots.append(fs.crashed()) if change == "rename" else None)
    broker = EmbeddedBroker(fs, "log", clock=SystemClock(), rng=SeededRng(1), sync_threads_count=2, durability="os")
    chain = [TopicPartition("chain", index) for index in range(4)]
    broker.admin.create_topic("chain", 4)
    snapshots.clear()

    def copy(index: int) -> None:
        producer, fetcher = broker.producer(f"copy {index}" if index % 2 else None), broker.fetcher()
        position = count = 0
        while count < 300:
            if index:
                fetched = fetcher.fetch({chain[index - 1]: position}, wait_ms=120_000, bytes_max=1)
                position = fetched[0].next_offset
                if not fetched[0].record_batches:
                    continue
            count += 1
            if index % 2:
                producer.begin()
            records = EncodedRecords.to_append(timestamps_ms=[1], keys=[None], values=[b"%d" % count])
            producer.send(chain[index], records)
            if index % 2:
                producer.send_offsets(f"copy {index}", {chain[index - 1]: CommittedOffset(offset=position)})
                producer.commit()
            else:
                producer.flush()
        producer.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(copy, index) for index in range(4)]:
            done.result(300)
    broker.close()
    assert len(snapshots) > 10
    for snapshot in snapshots[:: max(1, len(snapshots) // 40)]:
        after = opened(snapshot, URL)
        counts = [len(visible(after, tp)) for tp in chain]
        assert counts == sorted(counts, reverse=True), "a copy is there whose original is lost"
        for index in (1, 3):
            committed = after.group(f"copy {index}").committed()
            assert bool(committed) == bool(counts[index])
