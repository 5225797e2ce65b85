"""`streamkit produce`: lines of a file or of standard input become records."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import click
import orjson

from streamkit.broker import Broker, Producer
from streamkit.broker.partitioner import Placement
from streamkit.cli.broker import broker_option, opened
from streamkit.errors import RecordTooLargeError, SerializationError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.seams import Clock, SystemClock, SystemRng

__all__ = ["produce"]

_CHUNK_BYTES: Final = 256 * 1024
"""Lines of one chunk that have no key go to one partition together."""


@click.command()
@click.argument("topic")
@click.argument("file", default="-", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--key-field", metavar="FIELD", help="The field of each JSON object that becomes the key; null without.")
@click.option("--partitions", type=click.IntRange(min=1), help="How many partitions a new topic gets.  [default: 1]")
@broker_option
def produce(topic: str, file: str, key_field: str | None, partitions: int | None, url: str) -> None:
    """Append each line of FILE (or of standard input) to TOPIC as a record: text or JSON as it stands.

    TOPIC is made if missing. A file is appended whole or not at all; what comes on standard input is appended
    as it comes.
    """
    with opened(url, make=True) as broker, _lines_of(file) as stream:
        partition_count = _topic(broker, topic, partitions)
        writer = _Writer(topic, key_field, Placement(partition_count), SystemClock())
        count = writer.append_whole(broker, stream) if file != "-" else writer.append_as_it_comes(broker, stream)
    records, partitions_there = _counted(count, "record"), _counted(partition_count, "partition")
    click.echo(f"{records} appended to {topic} ({partitions_there})")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _lines_of(file: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb")


def _topic(broker: Broker, topic: str, partition_count: int | None) -> int:
    """Return the partition count of a topic, made if missing.

    Raises:
        ConfigError: It exists with another count.
    """
    existing = broker.admin.describe_topics().get(topic)
    if existing is None:
        broker.admin.create_topic(topic, partition_count or 1)
        return partition_count or 1
    if partition_count is not None:
        # Creating it once more says what differs.
        broker.admin.create_topic(topic, partition_count, existing.config)
    return existing.partition_count


class _Writer:
    """Turns chunks of lines into records; an error names the line."""

    def __init__(self, topic: str, key_field: str | None, placement: Placement, clock: Clock) -> None:
        self._topic, self._key_field, self._placement, self._clock = topic, key_field, placement, clock
        self._count, self._whole = 0, False

    @property
    def _hint(self) -> str:
        if self._whole:
            return "mend the line; nothing of the file was appended"
        return f"mend the line, and go on after line {self._count}: up to there all are appended"

    def append_whole(self, broker: Broker, stream: BinaryIO) -> int:
        """Append all lines in one transaction; return how many."""
        self._whole = True
        producer = broker.producer(f"produce-{SystemRng().token()}")
        try:
            producer.begin()
            for lines in _chunks(stream):
                self._send(producer, lines)
            producer.commit()
        finally:
            producer.close()
        return self._count

    def append_as_it_comes(self, broker: Broker, stream: BinaryIO) -> int:
        """Append lines as they come, each durable before the next are waited for; return how many.

        An interrupt ends the input.
        """
        producer = broker.producer()
        try:
            with contextlib.suppress(KeyboardInterrupt):
                for lines in _chunks(stream):
                    self._send(producer, lines)
                    producer.flush()
        finally:
            producer.close()
        return self._count

    def _send(self, producer: Producer, lines: Sequence[bytes]) -> None:
        keys = [None] * len(lines) if self._key_field is None else list(map(self._key, range(len(lines)), lines))
        by_partition: dict[int, list[int]] = {}
        for index, partition in enumerate(self._placement.place(keys).tolist()):
            by_partition.setdefault(partition, []).append(index)
        now_ms = self._clock.now_ms()
        for partition, indices in by_partition.items():
            records = EncodedRecords.to_append(
                timestamps_ms=[now_ms] * len(indices),
                keys=[keys[index] for index in indices],
                values=[lines[index] for index in indices],
            )
            try:
                producer.send(TopicPartition(self._topic, partition), records)
            except RecordTooLargeError as error:
                index = indices[error.index]
                raise self._bad(
                    index,
                    lines[index],
                    f"takes {error.size_bytes} bytes as a record batch, more than {self._topic}'s max.message.bytes "
                    f"of {error.limit_bytes}",
                ) from error
        self._count += len(lines)

    def _key(self, index: int, line: bytes) -> bytes:
        """Return the key of a line: text as UTF-8, an integer in decimal."""
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise self._bad(index, line, f"is not JSON, so it has no field {self._key_field!r}: {error}") from error
        if not isinstance(row, dict) or self._key_field not in row:
            raise self._bad(index, line, f"has no field {self._key_field!r}")
        key = row[self._key_field]
        if type(key) not in (str, int):
            raise self._bad(
                index, line, f"has the key {orjson.dumps(key).decode()}, which is neither text nor an integer"
            )
        return str(key).encode()

    def _bad(self, index: int, line: bytes, reason: str) -> SerializationError:
        return SerializationError(
            f"line {self._count + index + 1} {reason}",
            data=line,
            hint=self._hint,
        )


def _chunks(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the lines that are there, some at a time, without their line ends; a last line needs none."""
    rest = b""
    read = getattr(stream, "read1", stream.read)
    while data := read(_CHUNK_BYTES):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        if lines:
            yield [line.removesuffix(b"\r") for line in lines]
    if rest:
        yield [rest.removesuffix(b"\r")]
