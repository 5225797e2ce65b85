"""What opening does to a log directory that a crash left: nothing open, everything durable, atomic again.

A transaction without a marker in a partition gets a commit marker if the transaction log holds its commit point,
else an abort marker: the commit point alone decides, wherever the crash came.
"""

from collections.abc import Iterable
from typing import Final

from streamkit.broker.checkpoint import PartitionCheckpoint
from streamkit.broker.coordinator import Coordinator
from streamkit.broker.partition import Partition
from streamkit.broker.topics import Topic, TopicTable
from streamkit.broker.whole_file import read_whole, write_whole
from streamkit.errors import CorruptBatchError
from streamkit.log.codec import ControlKind
from streamkit.log.partition_log import LogConfig, PartitionLog
from streamkit.records import TopicPartition
from streamkit.seams import Clock, FileSystem, Rng

__all__ = ["end_open_transactions", "open_log_id", "open_partition"]

SEGMENT_BYTES: Final = 1024 * 1024 * 1024
INDEX_INTERVAL_BYTES: Final = 4096
MESSAGE_BYTES_MAX: Final = 1_048_588


def open_log_id(fs: FileSystem, path: str, topics: TopicTable, coordinator: Coordinator, rng: Rng) -> str:
    """Return the log's identity and read its transaction log; make both for a new log.

    Raises:
        CorruptBatchError: One of the files is damaged or missing. Nothing was changed.
    """
    log_id_path = f"{path}/log_id"
    body = read_whole(fs, log_id_path)
    if body is None and topics.all():
        raise CorruptBatchError("the log has topics but no identity", file=log_id_path, hint="restore it from a backup")
    if body is not None:
        if not topics.found:
            raise CorruptBatchError(
                "the list of topics is missing", file=f"{path}/topics", hint="restore it from a backup"
            )
        coordinator.load()
        return body.decode()
    log_id = rng.token()
    coordinator.create()
    topics.save()
    write_whole(fs, log_id_path, log_id.encode())
    return log_id


def open_partition(
    fs: FileSystem, directory: str, topic: Topic, index: int, *, known: PartitionCheckpoint | None, log_start: int
) -> Partition:
    """Open one partition and find its open and aborted transactions.

    Raises:
        CorruptBatchError: Its segments are damaged, or end before what a checkpoint knew to be durable.
    """
    config = LogConfig(
        segment_bytes=topic.config_int("segment.bytes", SEGMENT_BYTES),
        index_interval_bytes=topic.config_int("index.interval.bytes", INDEX_INTERVAL_BYTES),
    )
    message_bytes_max = topic.config_int("max.message.bytes", MESSAGE_BYTES_MAX)
    recovery_offset = known.recovery_offset if known is not None else 0
    log = PartitionLog.open(fs, directory, config, recover_from=recovery_offset)
    if log.end_offset < max(recovery_offset, log_start):
        end_offset = log.end_offset
        log.close()
        raise CorruptBatchError(
            f"the log ends at offset {end_offset}, but records up to {max(recovery_offset, log_start)} were durable",
            file=directory,
            hint="restore the directory from a backup",
        )
    if log_start > log.start_offset:
        log.delete_before(log_start)
    tp = TopicPartition(topic.name, index)
    partition = Partition(tp, topic.topic_id, log, message_bytes_max, topic.compression)
    partition.recover(max(recovery_offset, log.start_offset), known.aborted if known is not None else [])
    return partition


def end_open_transactions(partitions: Iterable[Partition], coordinator: Coordinator, clock: Clock) -> None:
    """Write the markers that a crash left out.

    Raises:
        CorruptBatchError: A committed transaction's records are not there, though they were durable.
    """
    by_name = {partition.tp: partition for partition in partitions}
    committed = set()
    for key, record in coordinator.unmarked.items():
        for touched in record.partitions:
            partition = by_name.get(TopicPartition(touched.topic, touched.partition))
            if partition is None or partition.topic_id != touched.topic_id:
                continue
            if partition.log.end_offset <= touched.first_offset:
                raise CorruptBatchError(
                    f"the log ends at offset {partition.log.end_offset}, but a transaction committed records"
                    f" from offset {touched.first_offset} on",
                    file=str(partition.tp),
                    hint="restore the directory from a backup",
                )
            committed.add((partition.tp, key.producer_id, touched.first_offset))
    for partition in by_name.values():
        for found in partition.open_transactions():
            kept = (partition.tp, found.producer_id, found.first_offset) in committed
            partition.append_marker(
                ControlKind.COMMIT if kept else ControlKind.ABORT,
                found.producer_id,
                found.producer_epoch,
                timestamp_ms=clock.now_ms(),
            )
