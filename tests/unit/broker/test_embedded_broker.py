"""What is the embedded broker's own: its lock, its commit while it is in flight, failures of the disk, its files."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from streamkit.broker import LAST_STABLE, LATEST, Broker, CommittedOffset, Producer
from streamkit.broker import coordinator as coordinator_module
from streamkit.broker import log_directory as log_directory_module
from streamkit.broker.coordinator_log import CoordinatorLog
from streamkit.broker.embedded import EmbeddedBroker
from streamkit.broker.open import open_broker
from streamkit.errors import (
    CommitFailedError,
    ConfigError,
    CorruptBatchError,
    LogError,
    LogLockedError,
    ProducerFencedError,
)
from streamkit.log.codec import decode
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.seams import ManualClock, MemoryFileSystem, SeededRng

A0, A1 = TopicPartition("a", 0), TopicPartition("a", 1)


class Disk:
    """A disk that refuses chosen kinds of change, and can hold one up."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.refuse_after = 0
        self.changes: list[str] = []
        self.held: tuple[str, threading.Event, threading.Event] | None = None

    def __call__(self, change: str) -> None:
        self.changes.append(change)
        if change in self.refused:
            if self.refuse_after == 0:
                raise OSError(28, "No space left on device")
            self.refuse_after -= 1
        if self.held is not None and change == self.held[0]:
            _, arrived, go_on = self.held
            self.held = None
            arrived.set()
            assert go_on.wait(60)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def fs(disk: Disk) -> MemoryFileSystem:
    return MemoryFileSystem(disk)


def opened(fs: MemoryFileSystem) -> EmbeddedBroker:
    return EmbeddedBroker(fs, "log", clock=ManualClock(5_000), rng=SeededRng(7), sync_threads_count=0)


@pytest.fixture
def broker(fs: MemoryFileSystem) -> EmbeddedBroker:
    broker = opened(fs)
    broker.admin.create_topic("a", 2)
    return broker


def records(*values: bytes) -> EncodedRecords:
    return EncodedRecords.to_append(timestamps_ms=[1] * len(values), keys=[None] * len(values), values=list(values))


def read(broker: Broker, tp: TopicPartition, at: int = 0) -> list[bytes]:
    values: list[bytes] = []
    while fetched := broker.fetcher().fetch({tp: at}, wait_ms=0, bytes_max=1 << 20):
        at = fetched[0].next_offset
        if fetched[0].record_batches:
            values += [value for value in decode(fetched[0].record_batches).values if value is not None]
    return values


def begun(broker: Broker, value: bytes, transactional_id: str = "t") -> Producer:
    producer = broker.producer(transactional_id)
    producer.begin()
    producer.send(A0, records(value))
    producer.send(A1, records(value))
    producer.send_offsets("g", {A0: CommittedOffset(offset=1, metadata=value.decode())})
    return producer


# Opening


def test_a_directory_in_use_is_refused_by_name(fs: MemoryFileSystem, broker: EmbeddedBroker) -> None:
    with pytest.raises(LogLockedError, match="directory log is in use") as caught:
        opened(fs)
    assert caught.value.hint
    broker.close()
    opened(fs).close()


def test_a_broker_that_could_not_open_gives_the_lock_back(fs: MemoryFileSystem, broker: EmbeddedBroker) -> None:
    broker.close()
    fs.rename("log/topics", "log/elsewhere")
    with pytest.raises(CorruptBatchError, match="list of topics is missing"):
        opened(fs)
    fs.rename("log/elsewhere", "log/topics")
    opened(fs).close()


@pytest.mark.parametrize("name", ["log/log_id", "log/transactions.log"])
def test_a_log_that_lost_a_file_is_not_taken_for_a_new_one(
    fs: MemoryFileSystem, broker: EmbeddedBroker, name: str
) -> None:
    broker.close()
    fs.remove(name)
    with pytest.raises(CorruptBatchError) as caught:
        opened(fs)
    assert caught.value.file == name


def test_a_lost_or_damaged_checkpoint_costs_time_only(fs: MemoryFileSystem, broker: EmbeddedBroker) -> None:
    gone = begun(broker, b"gone")
    gone.abort()
    begun(broker, b"kept", "u").commit()
    broker.close()
    for harm in (lambda: fs.remove("log/checkpoint"), lambda: fs.open("log/checkpoint").write_at(5, b"?")):
        harm()
        again = opened(fs)
        assert read(again, A0) == [b"kept"]
        again.close()


def test_a_log_that_ends_before_its_checkpoint_is_damaged(fs: MemoryFileSystem, broker: EmbeddedBroker) -> None:
    begun(broker, b"kept").commit()
    broker.close()
    fs.remove("log/a-0")
    with pytest.raises(CorruptBatchError, match="were durable"):
        opened(fs)


def test_a_committed_transaction_whose_records_are_missing_is_damage(fs: MemoryFileSystem) -> None:
    broker = opened(fs)
    broker.admin.create_topic("a", 2)
    begun(broker, b"kept").commit()
    after = fs.crashed()
    after.remove("log/a-1")
    with pytest.raises(CorruptBatchError, match="a transaction committed records"):
        opened(after)


@pytest.mark.parametrize("url", ["", "log://", "log", "memory://x", "redis://x", "/tmp/x"])
def test_a_url_that_names_no_broker_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="does not name a broker"):
        open_broker(url)


@pytest.mark.parametrize("option", ["", "durability", "durability=none", "durability=os&x=1", "sync=os"])
def test_what_a_url_asks_beside_a_durability_is_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="durability=fsync, the default, or durability=os"):
        open_broker(f"log://{tmp_path}/log?{option}")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("url", ["kafka://", "kafka://host:port", "kafka://one:9092,", "kafka://host:9092/topic"])
def test_an_address_of_kafka_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        open_broker(url)


# Waiting


def test_a_wait_ends_at_once_under_a_manual_clock(broker: EmbeddedBroker) -> None:
    assert broker.fetcher().fetch({A0: 0}, wait_ms=3_600_000, bytes_max=1) == []


# A commit in flight


def test_d4_a_commit_that_was_overtaken_while_it_synced_is_fenced(disk: Disk, broker: EmbeddedBroker) -> None:
    """The commit hangs in the sync of its data; the successor opens, begins and commits; then the commit goes on."""
    older = begun(broker, b"older")
    arrived, go_on = threading.Event(), threading.Event()
    disk.held = ("sync", arrived, go_on)
    raised: list[BaseException] = []

    def commit() -> None:
        try:
            older.commit()
        except ProducerFencedError as error:
            raised.append(error)

    late = threading.Thread(target=commit)
    late.start()
    assert arrived.wait(60)
    newer = broker.producer("t")
    newer.begin()
    newer.send(A1, records(b"newer"))
    go_on.set()
    late.join()
    assert len(raised) == 1
    assert read(broker, A1) == []
    newer.commit()
    assert (read(broker, A0), read(broker, A1)) == ([], [b"newer"])
    assert broker.group("g").committed() == {}


def test_d4_a_commit_point_that_was_written_before_the_fence_stands(disk: Disk, broker: EmbeddedBroker) -> None:
    """The commit hangs after its commit point is durable; the successor finds it and writes the markers."""
    older = begun(broker, b"won")
    arrived, go_on = threading.Event(), threading.Event()
    before = len(disk.changes)
    older.commit()
    sequence = disk.changes[before:]
    # Two data syncs, the commit point, its sync, two markers.
    assert sequence == ["sync", "sync", "write", "sync", "write", "write"]
    older.begin()
    older.send(A0, records(b"won too"))
    disk.refused, disk.refuse_after = {"write"}, 1
    with pytest.raises(CommitFailedError, match="committed, but not visible yet"):
        older.commit()
    disk.refused = set()
    assert read(broker, A0) == [b"won"]
    with pytest.raises(CommitFailedError, match="unknown"):
        older.begin()
    broker.producer("t")
    assert read(broker, A0) == [b"won", b"won too"]
    assert not arrived.is_set()
    go_on.set()


def test_epochs_that_run_out_move_the_id_to_a_new_producer_id(
    monkeypatch: pytest.MonkeyPatch, fs: MemoryFileSystem, broker: EmbeddedBroker
) -> None:
    monkeypatch.setattr(coordinator_module, "PRODUCER_EPOCH_MAX", 2)
    for index in range(8):
        begun(broker, b"%d" % index).commit()
    expected = [b"%d" % index for index in range(8)]
    assert read(broker, A0) == expected
    broker.close()
    again = opened(fs)
    begun(again, b"8").commit()
    assert read(again, A0) == [*expected, b"8"]


# Failures of the disk


def test_d7_after_a_failed_fsync_nothing_is_acknowledged_and_a_restart_has_what_was(
    disk: Disk, fs: MemoryFileSystem, broker: EmbeddedBroker
) -> None:
    begun(broker, b"kept").commit()
    producer, plain = begun(broker, b"lost"), broker.producer()
    plain.send(A0, records(b"plain"))
    disk.refused = {"sync"}
    with pytest.raises(LogError):
        producer.commit()
    disk.refused = set()
    attempts: list[Callable[[], object]] = [
        producer.commit,
        plain.flush,
        lambda: broker.producer("other"),
        lambda: broker.group("g").commit({A0: CommittedOffset(offset=9)}),
        lambda: broker.admin.create_topic("b", 1),
    ]
    for attempt in attempts:
        with pytest.raises(LogError, match="has stopped"):
            attempt()
    broker.close()
    again = opened(fs.crashed())
    assert (read(again, A0), read(again, A1)) == ([b"kept"], [b"kept"])
    assert again.group("g").committed()[A0].metadata == "kept"


def test_a_failed_fsync_of_the_commit_point_leaves_the_outcome_unknown(
    disk: Disk, fs: MemoryFileSystem, broker: EmbeddedBroker
) -> None:
    producer = begun(broker, b"either")
    disk.refused, disk.refuse_after = {"sync"}, 2
    with pytest.raises(CommitFailedError, match="unknown"):
        producer.commit()
    disk.refused = set()
    assert read(broker, A0) == []
    assert broker.group("g").committed() == {}, "offsets were seen before they were durable"
    for keep, expected in ((0, []), (1, [b"either"])):
        again = opened(fs.crashed(lambda path, extra_bytes, keep=keep: keep * extra_bytes))
        assert read(again, A0) == read(again, A1) == expected
        assert bool(again.group("g").committed()) is bool(expected)


def test_a_full_disk_refuses_a_send_and_leaves_the_head_where_it_was(disk: Disk, broker: EmbeddedBroker) -> None:
    producer = broker.producer()
    producer.send(A0, records(b"1"))
    disk.refused = {"write"}
    with pytest.raises(LogError, match=r"No space left|could not be written"):
        producer.send(A0, records(b"2"))
    disk.refused = set()
    producer.send(A0, records(b"2 again"))
    assert producer.flush()[A0].last_offset == 1
    assert read(broker, A0) == [b"1", b"2 again"]


def test_a_full_disk_at_the_commit_point_leaves_a_transaction_that_can_be_aborted(
    disk: Disk, broker: EmbeddedBroker
) -> None:
    producer = begun(broker, b"gone")
    disk.refused = {"write"}
    with pytest.raises(LogError, match="transaction log could not be written"):
        producer.commit()
    disk.refused = set()
    producer.abort()
    producer.begin()
    producer.send(A0, records(b"kept"))
    producer.commit()
    assert read(broker, A0) == [b"kept"]


def test_an_abort_that_a_full_disk_cut_short_is_finished_by_whoever_meets_it(
    disk: Disk, broker: EmbeddedBroker
) -> None:
    producer = begun(broker, b"gone")
    disk.refused, disk.refuse_after = {"write"}, 1
    producer.close()
    disk.refused = set()
    assert broker.admin.list_offsets({A1: LATEST})[A1] == 0
    begun(broker, b"kept", "other").commit()
    assert (read(broker, A0), read(broker, A1)) == ([b"kept"], [b"kept"])


def test_a_topic_that_a_full_disk_refused_is_not_there(disk: Disk, fs: MemoryFileSystem) -> None:
    broker = opened(fs)
    disk.refused = {"write"}
    with pytest.raises(LogError):
        broker.admin.create_topic("a", 2)
    disk.refused = set()
    assert broker.admin.describe_topics() == {}
    broker.admin.create_topic("a", 2)


def test_files_of_no_topic_are_not_taken_over(fs: MemoryFileSystem, broker: EmbeddedBroker) -> None:
    fs.open("log/b-0/precious", create=True)
    with pytest.raises(LogError, match="log/b-0 holds files of no topic"):
        broker.admin.create_topic("b", 1)


def test_a_topic_deletion_cut_short_is_finished_at_open(
    disk: Disk, fs: MemoryFileSystem, broker: EmbeddedBroker
) -> None:
    begun(broker, b"old").commit()
    for refuse_after in range(20):
        attempt_disk = Disk()
        attempt_fs = fs.crashed(lambda path, extra_bytes: extra_bytes, observe=attempt_disk)
        attempt = opened(attempt_fs)
        attempt_disk.refused, attempt_disk.refuse_after = {"write", "remove", "rename"}, refuse_after
        finished = True
        try:
            attempt.admin.delete_topic("a")
        except (LogError, OSError):
            finished = False
        after = opened(attempt_fs.crashed())
        if "a" in after.admin.describe_topics():
            assert read(after, A0) == [b"old"]
            assert not finished
        else:
            after.admin.create_topic("a", 2)
            assert read(after, A0) == []
            assert after.group("g").committed() == {}
        if finished:
            return
    pytest.fail("the deletion never succeeded")


# The files


def test_the_transaction_log_is_rewritten_when_it_is_long(
    monkeypatch: pytest.MonkeyPatch, fs: MemoryFileSystem
) -> None:
    monkeypatch.setattr(coordinator_module, "REWRITE_BYTES", 20_000)
    broker = opened(fs)
    broker.admin.create_topic("a", 2)
    producer, note = broker.producer("t"), "n" * 4000
    for index in range(40):
        producer.begin()
        producer.send(A0, records(b"%d" % index))
        producer.send_offsets("g", {A0: CommittedOffset(offset=index, metadata=note)})
        producer.commit()
        assert fs.open("log/transactions.log").size_bytes() < 25_000
    after = opened(fs.crashed())
    assert read(after, A0) == [b"%d" % index for index in range(40)]
    assert after.group("g").committed() == {A0: CommittedOffset(offset=39, metadata=note)}
    assert after.admin.list_offsets({A0: LAST_STABLE}) == after.admin.list_offsets({A0: LATEST})


def test_a_rewrite_keeps_commit_points_whose_markers_are_not_durable(
    monkeypatch: pytest.MonkeyPatch, fs: MemoryFileSystem
) -> None:
    monkeypatch.setattr(coordinator_module, "REWRITE_BYTES", 3_000)
    broker = opened(fs)
    broker.admin.create_topic("a", 2)
    begun(broker, b"kept").commit()
    for index in range(60):
        broker.group("h").commit({A0: CommittedOffset(offset=index)})
    after = opened(fs.crashed())
    assert (read(after, A0), read(after, A1)) == ([b"kept"], [b"kept"])


def test_a_checkpoint_is_written_now_and_then_and_shortens_the_next_open(
    monkeypatch: pytest.MonkeyPatch, fs: MemoryFileSystem
) -> None:
    monkeypatch.setattr(log_directory_module, "CHECKPOINT_BYTES", 1_000)
    broker = opened(fs)
    broker.admin.create_topic("a", 2)
    held = begun(broker, b"held", "held")
    gone = begun(broker, b"gone", "gone")
    gone.abort()
    for index in range(30):
        begun(broker, b"%d" % index, "t").commit()
    after = opened(fs.crashed(lambda path, extra_bytes: extra_bytes))
    assert read(after, A0) == [b"%d" % index for index in range(30)]
    assert fs.list("log").count("checkpoint") == 1
    held.close()


def test_a_checkpoint_counts_on_no_marker_that_a_power_cut_can_take_back(
    monkeypatch: pytest.MonkeyPatch, fs: MemoryFileSystem
) -> None:
    broker = opened(fs)
    broker.admin.create_topic("a", 2)
    begun(broker, b"kept", "kept").commit()
    begun(broker, b"gone").abort()
    monkeypatch.setattr(log_directory_module, "CHECKPOINT_BYTES", 1)
    broker.admin.create_topic("b", 1)
    plain = broker.producer()
    plain.send(TopicPartition("b", 0), records(b"1"))
    plain.flush()
    after = opened(fs.crashed())
    assert "checkpoint" in fs.list("log")
    begun(after, b"next").commit()
    assert read(after, A0) == [b"kept", b"next"]


def test_deleting_records_of_a_transaction_does_not_undo_the_rest_of_it(fs: MemoryFileSystem) -> None:
    """Its first segment goes; were its marker not durable, a power cut would make its end look like another's."""
    broker = opened(fs)
    broker.admin.create_topic("a", 2, {"segment.bytes": "1000"})
    producer = broker.producer("t")
    producer.begin()
    for index in range(4):
        producer.send(A0, records(b"%d" % index * 900))
    producer.commit()
    broker.admin.delete_records({A0: 2})
    after = opened(fs.crashed())
    assert [value[:1] for value in read(after, A0, at=2)] == [b"2", b"3"]


def test_the_format_of_the_transaction_log_is_checked(fs: MemoryFileSystem, broker: EmbeddedBroker) -> None:
    broker.close()
    CoordinatorLog(fs, "log/transactions.log").rewrite([b'{"type":"format","version":2}'])
    with pytest.raises(CorruptBatchError, match="format version 2") as caught:
        opened(fs)
    assert caught.value.file == "log/transactions.log"


def test_lock_files_of_producers_come_and_go(fs: MemoryFileSystem, broker: EmbeddedBroker) -> None:
    producer = broker.producer("t")
    assert len(fs.list("log/producers")) == 1
    producer.close()
    assert fs.list("log/producers") == []
    broker.producer("u")
    broker.close()
    opened(fs)
    assert fs.list("log/producers") == []
