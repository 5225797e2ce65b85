"""The dead letters of a job: read, and sent back to where they came from.

A letter that is sent back gets a receipt in the same transaction: a record of the topic of dead letters, in the
letter's partition, with a null value and its offset in the header `retried`. So it is sent once, whenever the command
is killed, and whoever retries next knows. Opening the transactional id fences a predecessor before anything is read.

A replay removes letters and receipts. What was sent back still stands behind the record in its topic, so it writes down
where such records lie (`keep_receipts`): their letters, set aside anew, count as sent back from the first.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from streamkit.broker import Broker, Producer, TopicDescription
from streamkit.errors import ConfigError, UnknownTopicError
from streamkit.log import DecodedRecords
from streamkit.records import EncodedRecords, Header, TopicPartition
from streamkit.runtime.aside import ATTEMPT_HEADER, TABLE_HEADER
from streamkit.runtime.reading import read_to
from streamkit.runtime.task_plan import transactional_id
from streamkit.topology.names import dead_letter_topic

__all__ = ["DeadLetter", "keep_receipts", "read_letters", "retry_letters"]

_OWN: Final = ("reason", "node", "topic", "partition", "offset", "attempt")
_Place: TypeAlias = tuple[TopicPartition, int]
"""Partition and offset of a record."""
_RECEIPT: Final = "retried"
_KEPT: Final = ("retried_topic", "retried_partition", "retried_offset")
"""The headers of a receipt that outlives its letter."""
_COMMIT_BYTES: Final = 16 * 1024 * 1024
_COMMIT_LETTERS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One record that was set aside: what was wrong, where, and the record as it was read.

    Args:
        partition: Of the topic of dead letters.
        offset: There.
        reason: What was wrong.
        node: Which node found out.
        source: Where the record was read.
        source_offset: There.
        attempt: How often the record had failed by then, at least 1.
        timestamp_ms: Of the record.
        key: Of the record.
        value: Of the record.
        headers: Of the record.
        retried: Whether it was sent back, or its record was before a replay.
        table: Of a result of this table: `key` and `value` are the result's, `source` is what the task had read last,
            and there is no record to send back. None for a record.
    """

    partition: int
    offset: int
    reason: str
    node: str
    source: TopicPartition
    source_offset: int
    attempt: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    retried: bool
    table: str | None = None

    @property
    def id(self) -> str:
        """Its place among the dead letters, `partition:offset`."""
        return f"{self.partition}:{self.offset}"

    @property
    def size_bytes(self) -> int:
        """About what the record takes."""
        return len(self.key or b"") + len(self.value or b"")


def read_letters(broker: Broker, job: str) -> list[DeadLetter]:
    """Return the committed dead letters of a job, by partition and offset; none if it has no topic of them.

    Cost: all of them are held in memory.
    """
    parts = _read(broker, job)
    kept = _kept(parts)
    return [letter for place in parts for letter in _letters(place, parts[place], kept)]


def keep_receipts(broker: Broker, job: str, producer: Producer) -> None:
    """Write down which records were sent back, behind all letters of now: these can be removed then.

    Args:
        broker: Of the job.
        job: Its name.
        producer: Transactional, with no transaction open.

    Raises:
        ProducerFencedError: A newer producer has the id. Nothing was written.
    """
    parts = _read(broker, job)
    kept = _kept(parts)
    letters = (letter for place in parts for letter in _letters(place, parts[place], kept))
    sources = kept | {(letter.source, letter.source_offset) for letter in letters if letter.retried}
    if not sources:
        return
    rows = sorted((at.topic, at.partition, offset) for at, offset in sources)
    receipts = EncodedRecords.to_append(
        timestamps_ms=[0] * len(rows),
        keys=[None] * len(rows),
        values=[None] * len(rows),
        headers=[[(name, str(said).encode()) for name, said in zip(_KEPT, row, strict=True)] for row in rows],
    )
    producer.begin()
    producer.send(TopicPartition(dead_letter_topic(job), 0), receipts)
    producer.commit()


def _read(broker: Broker, job: str) -> dict[TopicPartition, list[DecodedRecords]]:
    """Return what the topic of dead letters has, by partition; nothing if there is none."""
    topic = dead_letter_topic(job)
    described = broker.admin.describe_topics().get(topic)
    places = [] if described is None else [TopicPartition(topic, index) for index in range(described.partition_count)]
    fetcher = broker.fetcher("read_committed")
    try:
        return {place: list(read_to(broker, fetcher, place, None)) for place in places}
    finally:
        fetcher.close()


def _kept(parts: Mapping[TopicPartition, Sequence[DecodedRecords]]) -> set[_Place]:
    """Return where records lie that were sent back before a replay."""
    found: set[_Place] = set()
    for of_place in parts.values():
        for *_, headers in _rows(of_place):
            if tuple(name for name, _ in headers) == _KEPT:
                topic, partition, offset = ((data or b"").decode() for _, data in headers)
                found.add((TopicPartition(topic, int(partition)), int(offset)))
    return found


def _letters(place: TopicPartition, parts: Sequence[DecodedRecords], kept: Collection[_Place]) -> Iterator[DeadLetter]:
    retried = {int(data) for row in _rows(parts) for name, data in row[4][:1] if name == _RECEIPT and data is not None}
    for offset, timestamp_ms, key, value, headers in _rows(parts):
        own = dict(headers[: len(_OWN)])
        if tuple(own) != _OWN:
            # A receipt, or what somebody else has written.
            continue
        said = {name: (data or b"").decode("utf-8", "replace") for name, data in own.items()}
        rest = tuple(headers[len(_OWN) :])
        source = TopicPartition(said["topic"], int(said["partition"])), int(said["offset"])
        table = rest[0][1] if rest and rest[0][0] == TABLE_HEADER else None
        yield DeadLetter(
            partition=place.partition,
            offset=offset,
            reason=said["reason"],
            node=said["node"],
            source=source[0],
            source_offset=source[1],
            attempt=int(said["attempt"]),
            timestamp_ms=timestamp_ms,
            key=key,
            value=value,
            headers=rest if table is None else rest[1:],
            retried=offset in retried or (table is None and source in kept),
            table=None if table is None else table.decode("utf-8", "replace"),
        )


def _rows(
    parts: Sequence[DecodedRecords],
) -> Iterator[tuple[int, int, bytes | None, bytes | None, Sequence[Header]]]:
    for records in parts:
        headers: Sequence[Sequence[Header]] = [()] * len(records) if records.headers is None else records.headers
        yield from zip(
            records.offsets.tolist(),
            records.timestamps_ms.tolist(),
            records.keys,
            records.values,
            headers,
            strict=True,
        )


def retry_letters(broker: Broker, job: str, ids: Collection[str] | None) -> tuple[int, int]:
    """Send dead letters back to the partitions that they came from, where the job reads them again; each once.

    A record bears its own key, value, timestamp and headers, and one more that says how often it has failed.

    Args:
        broker: Of the job.
        job: Its name.
        ids: Which; None: all records that were not sent back before.

    Returns:
        How many were sent back, and how many of `ids` had been before.

    Raises:
        ConfigError: There is no letter of such an id, or it is the result of a table. Nothing was sent.
        UnknownTopicError: The topic of one is gone, or has fewer partitions. Nothing was sent.
        RecordTooLargeError: A record does not fit any more. What was committed before stays, and is not sent again.
        ProducerFencedError: Somebody else does the same now.
    """
    producer = broker.producer(transactional_id(job, "dead-letters"))
    try:
        letters = {letter.id: letter for letter in read_letters(broker, job)}
        unknown = [] if ids is None else [one for one in ids if one not in letters]
        if unknown:
            raise ConfigError(
                f"the job {job!r} has no dead letter {unknown[0]!r}",
                hint="streamkit dead-letters JOB list shows them by partition:offset",
            )
        _check_records([letters[one] for one in ids or ()])
        wanted = (
            [letter for letter in letters.values() if letter.id in ids]
            if ids is not None
            else [letter for letter in letters.values() if letter.table is None]
        )
        waiting = [letter for letter in wanted if not letter.retried]
        _check_places(waiting, broker.admin.describe_topics())
        for some in _cut(waiting):
            _send_back(producer, dead_letter_topic(job), some)
    finally:
        producer.close()
    return len(waiting), 0 if ids is None else len(wanted) - len(waiting)


def _check_records(letters: Sequence[DeadLetter]) -> None:
    for letter in letters:
        if letter.table is not None:
            raise ConfigError(
                f"the dead letter {letter.id} is a result of the table {letter.table!r}, not a record to send back",
                hint="mend the job; the table has its key, and emits it when it changes again, or in a replay",
            )


def _check_places(letters: Sequence[DeadLetter], topics: Mapping[str, TopicDescription]) -> None:
    for letter in letters:
        topic = topics.get(letter.source.topic)
        if topic is None or letter.source.partition >= topic.partition_count:
            raise UnknownTopicError(
                f"the dead letter {letter.id} came from {letter.source}, which does not exist",
                hint="retry the others by their ids",
            )


def _cut(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Yield the letters in parts, one a transaction."""
    some: list[DeadLetter] = []
    size_bytes = 0
    for letter in letters:
        some.append(letter)
        size_bytes += letter.size_bytes
        if size_bytes >= _COMMIT_BYTES or len(some) >= _COMMIT_LETTERS:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some


def _send_back(producer: Producer, topic: str, letters: Sequence[DeadLetter]) -> None:
    producer.begin()
    for letter in letters:
        attempt: Header = (ATTEMPT_HEADER, b"%d" % letter.attempt)
        record = EncodedRecords.to_append(
            timestamps_ms=[letter.timestamp_ms],
            keys=[letter.key],
            values=[letter.value],
            headers=[[*letter.headers, attempt]],
        )
        receipt = EncodedRecords.to_append(
            timestamps_ms=[letter.timestamp_ms],
            keys=[letter.key],
            values=[None],
            headers=[[(_RECEIPT, b"%d" % letter.offset)]],
        )
        producer.send(letter.source, record)
        producer.send(TopicPartition(topic, letter.partition), receipt)
    producer.commit()
