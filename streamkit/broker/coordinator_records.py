"""What the transaction log says: its records (JSON, tagged by `type`), and the state that they add up to.

`CoordinatorState.apply` is the only place where a record takes effect, when it becomes durable and again at every
open, so that what a process knows is always what the next one will read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import msgspec

from streamkit.broker.protocols import CommittedOffset
from streamkit.errors import CorruptBatchError
from streamkit.records import TopicPartition

__all__ = [
    "CoordinatorRecord",
    "CoordinatorState",
    "GroupOffset",
    "LogFormat",
    "LogStartMoved",
    "OffsetsCommitted",
    "ProducerIdsReserved",
    "ProducerOpened",
    "TopicForgotten",
    "TouchedPartition",
    "TransactionCommitted",
    "TransactionKey",
    "decode_record",
    "encode_record",
    "group_offsets",
]

FORMAT_VERSION: Final = 1


class LogFormat(msgspec.Struct, frozen=True, kw_only=True, tag="format"):
    """The first record: which version of this format the file has."""

    version: int


class ProducerIdsReserved(msgspec.Struct, frozen=True, kw_only=True, tag="producer_ids"):
    """Producer ids below `next_producer_id` may be in use."""

    next_producer_id: int


class ProducerOpened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """A transactional id was opened: every lower epoch of its producer id is fenced."""

    transactional_id: str
    producer_id: int
    producer_epoch: int


class TouchedPartition(msgspec.Struct, frozen=True, array_like=True):
    """A partition that a transaction wrote to, and the first offset that it got there."""

    topic: str
    partition: int
    topic_id: str
    first_offset: int


class GroupOffset(msgspec.Struct, frozen=True, array_like=True):
    """One committed offset of a group."""

    topic: str
    partition: int
    offset: int
    metadata: str


class TransactionCommitted(msgspec.Struct, frozen=True, kw_only=True, tag="committed"):
    """The commit point of one transaction; its data was durable before this was written."""

    producer_id: int
    producer_epoch: int
    transaction_number: int
    partitions: list[TouchedPartition]
    offsets: dict[str, list[GroupOffset]]


class OffsetsCommitted(msgspec.Struct, frozen=True, kw_only=True, tag="offsets"):
    """A group committed offsets outside a transaction."""

    group: str
    offsets: list[GroupOffset]


class LogStartMoved(msgspec.Struct, frozen=True, kw_only=True, tag="log_start"):
    """The records of a partition below `offset` were deleted."""

    topic_id: str
    partition: int
    offset: int


class TopicForgotten(msgspec.Struct, frozen=True, kw_only=True, tag="forgotten"):
    """A topic was deleted, and every group's offsets in it."""

    topic: str
    topic_id: str


CoordinatorRecord: TypeAlias = (
    LogFormat
    | ProducerIdsReserved
    | ProducerOpened
    | TransactionCommitted
    | OffsetsCommitted
    | LogStartMoved
    | TopicForgotten
)

_DECODER: Final = msgspec.json.Decoder(CoordinatorRecord)


def encode_record(record: CoordinatorRecord) -> bytes:
    """Return the body of the record's frame."""
    return msgspec.json.encode(record)


def decode_record(body: bytes, file: str) -> CoordinatorRecord:
    """Return the record in a frame's body; `file` is for the error message.

    Raises:
        CorruptBatchError: It is none, or of a later version of the format.
    """
    try:
        record: CoordinatorRecord = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptBatchError(f"a record of the transaction log does not decode: {error}", file=file) from error
    if isinstance(record, LogFormat) and record.version != FORMAT_VERSION:
        raise CorruptBatchError(
            f"the transaction log has format version {record.version}, this release reads {FORMAT_VERSION}",
            file=file,
            hint="use the release that wrote it, or a later one",
        )
    return record


def group_offsets(offsets: Mapping[TopicPartition, CommittedOffset]) -> list[GroupOffset]:
    """Return a group's offsets in the form that records hold them."""
    return [GroupOffset(tp.topic, tp.partition, at.offset, at.metadata) for tp, at in offsets.items()]


class TransactionKey(NamedTuple):
    """What no two transactions of a log ever share."""

    producer_id: int
    producer_epoch: int
    transaction_number: int


@dataclass(slots=True)
class CoordinatorState:
    """The sum of the durable records.

    `unmarked` holds the committed transactions whose markers may be missing from a partition after a crash
    (without their group offsets, which are in `groups`).
    """

    next_producer_id: int = 0
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    groups: dict[str, dict[TopicPartition, CommittedOffset]] = field(default_factory=dict)
    log_starts: dict[tuple[str, int], int] = field(default_factory=dict)
    unmarked: dict[TransactionKey, TransactionCommitted] = field(default_factory=dict)

    def apply(self, record: CoordinatorRecord) -> None:
        """Let one record take effect."""
        match record:
            case LogFormat():
                pass
            case ProducerIdsReserved():
                self.next_producer_id = record.next_producer_id
            case ProducerOpened():
                self.producers[record.transactional_id] = (record.producer_id, record.producer_epoch)
            case TransactionCommitted():
                key = TransactionKey(record.producer_id, record.producer_epoch, record.transaction_number)
                if record.partitions:
                    self.unmarked[key] = msgspec.structs.replace(record, offsets={})
                for group, offsets in record.offsets.items():
                    self._commit(group, offsets)
            case OffsetsCommitted():
                self._commit(record.group, record.offsets)
            case LogStartMoved():
                self.log_starts[record.topic_id, record.partition] = record.offset
            case TopicForgotten():
                self._forget(record)

    def snapshot(self) -> list[CoordinatorRecord]:
        """Return the fewest records that add up to this state."""
        records: list[CoordinatorRecord] = [
            LogFormat(version=FORMAT_VERSION),
            ProducerIdsReserved(next_producer_id=self.next_producer_id),
        ]
        records += [
            ProducerOpened(transactional_id=name, producer_id=producer_id, producer_epoch=producer_epoch)
            for name, (producer_id, producer_epoch) in self.producers.items()
        ]
        records += [
            LogStartMoved(topic_id=topic_id, partition=partition, offset=offset)
            for (topic_id, partition), offset in self.log_starts.items()
        ]
        records += self.unmarked.values()
        records += [
            OffsetsCommitted(group=group, offsets=group_offsets(offsets))
            for group, offsets in self.groups.items()
            if offsets
        ]
        return records

    def _commit(self, group: str, offsets: Sequence[GroupOffset]) -> None:
        committed = self.groups.setdefault(group, {})
        for at in offsets:
            committed[TopicPartition(at.topic, at.partition)] = CommittedOffset(offset=at.offset, metadata=at.metadata)

    def _forget(self, record: TopicForgotten) -> None:
        for offsets in self.groups.values():
            for tp in [tp for tp in offsets if tp.topic == record.topic]:
                del offsets[tp]
        self.log_starts = {at: offset for at, offset in self.log_starts.items() if at[0] != record.topic_id}
