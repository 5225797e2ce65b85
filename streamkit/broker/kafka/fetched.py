"""From the bytes of a fetch answer to whole record batches, aborted transactions and markers left out.

Pure: no connection, no loop.

Source: KIP-98, Fetch API v4 and later.
"""

from collections.abc import Iterable

from streamkit.broker.protocols import Fetched
from streamkit.log.codec import BatchHeader, ControlKind, check, control_kind, parse_header
from streamkit.log.header import HEADER_BYTES
from streamkit.records import TopicPartition

__all__ = ["AbortedTransactions", "cut", "fetched_from"]


class AbortedTransactions:
    """Which transactional batches of one answer were aborted; asked in the order of their offsets.

    A broker lists the aborted transactions that reach into an answer, each from its first offset on; one ends with the
    abort marker of its producer. Markers of transactions that have nothing here end nothing.
    """

    def __init__(self, aborted: Iterable[tuple[int, int]]) -> None:
        """Take the list: producer id and first offset of each."""
        self._coming = sorted(((first_offset, producer_id) for producer_id, first_offset in aborted), reverse=True)
        self._open: set[int] = set()

    def hides(self, header: BatchHeader, batch: bytes) -> bool:
        """Return whether a reader of committed records must not see this batch."""
        while self._coming and self._coming[-1][0] <= header.last_offset:
            self._open.add(self._coming.pop()[1])
        if header.control:
            if control_kind(batch) is ControlKind.ABORT:
                self._open.discard(header.producer_id)
            return True
        return header.transactional and header.producer_id in self._open


def cut(data: bytes) -> list[tuple[BatchHeader, bytes]]:
    """Cut what a broker sent into whole record batches; the last may be cut off there, and is left out.

    Raises:
        CorruptBatchError: The bytes are no record batches, or a CRC is wrong.
    """
    batches = []
    position = 0
    while len(data) - position >= HEADER_BYTES:
        header = parse_header(data, position)
        end = position + header.size_bytes
        if end > len(data):
            break
        batch = data[position:end]
        check(batch)
        batches.append((header, batch))
        position = end
    return batches


def fetched_from(
    tp: TopicPartition, position: int, data: bytes, aborted: Iterable[tuple[int, int]] | None, end_offset: int
) -> Fetched:
    """Return what one partition's answer holds.

    Args:
        tp: The partition.
        position: The offset asked for.
        data: The record batches as they came.
        aborted: The aborted transactions (producer id, first offset); None for a reader of everything.
        end_offset: Where that reader's log ends now.

    Raises:
        CorruptBatchError: The bytes are no record batches, or a CRC is wrong.
    """
    hidden = AbortedTransactions(aborted or ())
    batches: list[bytes] = []
    next_offset = position
    for header, batch in cut(data):
        hide = hidden.hides(header, batch)
        next_offset = max(next_offset, header.last_offset + 1)
        if not hide and header.record_count and header.last_offset >= position:
            batches.append(batch)
    return Fetched(topic_partition=tp, record_batches=batches, next_offset=next_offset, end_offset=end_offset)
