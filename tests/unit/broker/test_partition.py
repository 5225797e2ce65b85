"""A partition's head: idempotence, visibility, and the index of aborted transactions."""

from collections.abc import Sequence

import pytest

from streamkit.broker.partition import Partition
from streamkit.errors import LogError, ProducerFencedError
from streamkit.log.codec import ControlKind, ProducerStamp, decode, encode
from streamkit.log.partition_log import LogConfig, PartitionLog
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.seams import MemoryFileSystem

LIMIT_BYTES = 1_048_588
COMMIT, ABORT = ControlKind.COMMIT, ControlKind.ABORT


@pytest.fixture
def partition() -> Partition:
    return opened(MemoryFileSystem())


def opened(fs: MemoryFileSystem) -> Partition:
    config = LogConfig(segment_bytes=1 << 20, index_interval_bytes=4096)
    log = PartitionLog.open(fs, "log/a-0", config)
    partition = Partition(TopicPartition("a", 0), "id", log, LIMIT_BYTES)
    partition.recover(0, [])
    return partition


def test_a_sync_that_meets_the_deletion_of_the_topic_fails_nothing() -> None:
    """The files are closed under it: that is no failed fsync, and must not stop the log."""
    deleted: list[Partition] = []

    def observe(change: str) -> None:
        if change == "sync" and deleted:
            deleted[0].close(deleted=True)
            raise OSError(9, "Bad file descriptor")

    partition = opened(MemoryFileSystem(observe))
    partition.append(batches(b"x", sequence=0))
    deleted.append(partition)
    partition.sync()
    assert partition.synced


def batches(
    *values: bytes, sequence: int, producer_id: int = 1, epoch: int = 0, transactional: bool = False
) -> list[bytearray]:
    stamp = ProducerStamp(producer_id, epoch, sequence, transactional)
    records = EncodedRecords.to_append(timestamps_ms=[0] * len(values), keys=[None] * len(values), values=list(values))
    return encode(records, stamp=stamp)


def seen(partition: Partition) -> list[bytes | None]:
    partition.sync()
    fetched = partition.fetch(partition.start_offset, "read_committed", 1 << 20)
    return list(decode(fetched.record_batches).values) if fetched.record_batches else []


def test_a_batch_sent_again_is_acknowledged_and_not_appended(partition: Partition) -> None:
    first = partition.append(batches(b"1", b"2", sequence=0))
    partition.append(batches(b"3", sequence=2))
    assert partition.append(batches(b"1", b"2", sequence=0)) == first == (0, 1)
    assert partition.append(batches(b"3", sequence=2)) == (2, 2)
    assert seen(partition) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("sequence", [1, 5])
def test_a_gap_in_the_sequence_is_an_error_and_appends_nothing(partition: Partition, sequence: int) -> None:
    partition.append(batches(b"1", b"2", b"3", sequence=0))
    with pytest.raises(LogError, match="out of sequence"):
        partition.append(batches(b"4", sequence=sequence))
    partition.append(batches(b"4", sequence=3))
    assert seen(partition) == [b"1", b"2", b"3", b"4"]


def test_a_batch_too_old_to_be_remembered_is_an_error(partition: Partition) -> None:
    for sequence in range(10):
        partition.append(batches(b"x", sequence=sequence))
    with pytest.raises(LogError, match="out of sequence"):
        partition.append(batches(b"x", sequence=0))


def test_sequence_numbers_wrap_as_kafkas_do(partition: Partition) -> None:
    partition.append(batches(b"x", sequence=0))
    top = 2**31 - 1
    sequences = next(iter(partition._sequences.values()))
    sequences.next_sequence = top
    partition.append(batches(b"y", b"z", sequence=top))
    partition.append(batches(b"!", sequence=1))
    assert seen(partition) == [b"x", b"y", b"z", b"!"]


def test_each_producer_has_its_own_sequence(partition: Partition) -> None:
    partition.append(batches(b"1", sequence=0, producer_id=1))
    partition.append(batches(b"2", sequence=0, producer_id=2))
    assert seen(partition) == [b"1", b"2"]


def test_d9_a_batch_of_an_older_epoch_is_fenced_by_the_partition_too(partition: Partition) -> None:
    partition.append(batches(b"new", sequence=0, epoch=1))
    with pytest.raises(ProducerFencedError):
        partition.append(batches(b"old", sequence=0, epoch=0))
    assert seen(partition) == [b"new"]


def test_a_session_that_ended_leaves_no_sequence_behind(partition: Partition) -> None:
    partition.append(batches(b"1", sequence=0, epoch=0))
    partition.append(batches(b"2", sequence=0, epoch=1))
    partition.forget(1, 0)
    partition.append(batches(b"3", sequence=1, epoch=1))
    partition.forget(1, 1)
    partition.append(batches(b"4", sequence=0, epoch=2))
    assert seen(partition) == [b"1", b"2", b"3", b"4"]


def outcomes(partition: Partition, ends: Sequence[ControlKind]) -> None:
    """Append one transaction after the other."""
    for index, end in enumerate(ends):
        partition.append(batches(b"%d" % index, sequence=index, transactional=True))
        partition.append_marker(end, 1, 0, timestamp_ms=9)


def test_aborted_transactions_of_one_producer_are_told_apart_again_after_recovery() -> None:
    fs = MemoryFileSystem()
    partition = opened(fs)
    ends = [COMMIT, ABORT, ABORT, COMMIT, ABORT, COMMIT]
    outcomes(partition, ends)
    expected = [b"%d" % index for index, end in enumerate(ends) if end is COMMIT]
    assert seen(partition) == expected
    _, aborted = partition.head()
    assert [(entry.first_offset, entry.marker_offset) for entry in aborted] == [(2, 3), (4, 5), (8, 9)]
    partition.close()
    again = opened(fs)
    assert seen(again) == expected
    assert again.head()[1] == aborted


def test_recovery_from_a_checkpoint_inside_a_transaction_finds_each_abort_once() -> None:
    fs = MemoryFileSystem()
    partition = opened(fs)
    partition.append(batches(b"gone", sequence=0, transactional=True))
    partition.append(batches(b"open", sequence=0, producer_id=2, transactional=True))
    partition.append(batches(b"gone", sequence=1, transactional=True))
    partition.append_marker(ABORT, 1, 0, timestamp_ms=9)
    stable_offset, aborted = partition.head()
    assert stable_offset == 1
    partition.sync()
    partition.close()
    config = LogConfig(segment_bytes=1 << 20, index_interval_bytes=4096)
    log = PartitionLog.open(fs, "log/a-0", config, recover_from=stable_offset)
    again = Partition(TopicPartition("a", 0), "id", log, LIMIT_BYTES)
    again.recover(stable_offset, aborted)
    assert again.head() == (stable_offset, aborted)
    again.append_marker(COMMIT, 2, 0, timestamp_ms=9)
    assert seen(again) == [b"open"]


def test_a_closed_partition_refuses_appends_and_fetches(partition: Partition) -> None:
    partition.close()
    partition.close()
    with pytest.raises(LogError, match="closed"):
        partition.append(batches(b"1", sequence=0))
    with pytest.raises(LogError, match="closed"):
        partition.fetch(0, "read_committed", 1)
