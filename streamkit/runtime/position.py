"""The position of a task: one value that says exactly how far it is, committed with every transaction.

It lies in the changelog under a reserved key and, for a task without a store, in the metadata of the committed
offsets, which Kafka limits to 4,096 bytes. Beside it, in the metadata of each source partition, stands the
`RunMark`: what the run that is going on was asked to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.blocks import FIRST_TURN, Turn

__all__ = ["ChannelPosition", "InputPosition", "Note", "Position", "Run", "RunMark"]

_WITHOUT_ROWS: Final = 2
_OF_EVERY_RUN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The run that is going on, the same for all tasks of a job.

    Args:
        number: From 1; end marks belong to it.
        bounded: Whether it ends.
        published_ms: Windows that begin at or before this may have been published by an earlier bounded run.
        left_run: The last bounded run that was left before its end for this one or for an unbounded one that this one
            follows (0: none). Tables without windows that it changed may not be written yet.
    """

    number: int = 1
    bounded: bool = False
    published_ms: int = NEVER_MS
    left_run: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMark:
    """What one run reads of one source partition.

    Args:
        run: The run.
        end_offset: Where a bounded run ends; None for an unbounded one.
        published_ms: Windows of its records that begin at or before this were published by an earlier bounded run.
        begin_offset: The first offset that counts in the state, the same for all runs until a replay begins elsewhere.
    """

    run: Run = field(default_factory=Run)
    end_offset: int | None = None
    published_ms: int = NEVER_MS
    begin_offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPosition:
    """What one upstream task has said: its watermark, and the run whose end it marked (0: none).

    Of a shuffle of whole rows, beside that: `reached`, where it stands in the order of the log, with the bounded run
    that it holds in (`reached_run`, 0: every run), and what of it was handed on: all blocks below `block_offset`, and
    `row_count` rows of that one.
    """

    watermark_ms: int = NEVER_MS
    ended_run: int = 0
    reached: Turn = FIRST_TURN
    reached_run: int = 0
    block_offset: int = 0
    row_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPosition:
    """How far one input partition was handed on; what lies behind may have been read, and is read again.

    A source has `max_timestamp_ms`; a repartition partition has a position for each channel, by upstream task id.
    """

    next_offset: int = 0
    max_timestamp_ms: int = NEVER_MS
    channels: Mapping[str, ChannelPosition] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a task is.

    `transaction` counts its commits. `ended_run` is the last run of which nothing is left to write (0: none): a bounded
    one that it has finished, or an unbounded one in which it committed. `counters` are totals over all runs; `digests`
    hold each store's digest as text, `entries` that of what this transaction wrote to each store's changelog, where it
    wrote anything: None where nobody digested it. `stream_times_ms` has, for each node with punctuations, the largest
    source timestamp among the rows it has received.
    """

    transaction: int = 0
    inputs: Mapping[TopicPartition, InputPosition] = field(default_factory=dict)
    ended_run: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    entries: Mapping[str, str] | None = None
    stream_times_ms: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the compact JSON form; `from_json` reads it back."""
        optional: dict[str, Any] = {} if self.entries is None else {"c": dict(self.entries)}
        if self.stream_times_ms:
            optional["t"] = dict(self.stream_times_ms)
        return {
            "txn": self.transaction,
            "run": self.ended_run,
            "in": [
                [
                    place.topic,
                    place.partition,
                    read.next_offset,
                    read.max_timestamp_ms,
                    {name: _channel_to_json(channel) for name, channel in read.channels.items()},
                ]
                for place, read in self.inputs.items()
            ],
            "n": dict(self.counters),
            "d": dict(self.digests),
        } | optional

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Position":
        """Read the JSON form."""
        inputs = {
            TopicPartition(topic, partition): InputPosition(
                next_offset=next_offset,
                max_timestamp_ms=max_timestamp_ms,
                channels={name: _channel_from_json(channel) for name, channel in channels.items()},
            )
            for topic, partition, next_offset, max_timestamp_ms, channels in data["in"]
        }
        return cls(
            transaction=data["txn"],
            inputs=inputs,
            ended_run=data["run"],
            counters=data["n"],
            digests=data["d"],
            entries=data.get("c"),
            stream_times_ms=data.get("t", {}),
        )


def _channel_to_json(channel: ChannelPosition) -> list[Any]:
    said: list[Any] = [channel.watermark_ms, channel.ended_run]
    if channel.block_offset or channel.row_count or channel.reached != FIRST_TURN or channel.reached_run:
        said += [channel.reached, channel.block_offset, channel.row_count]
        said += [channel.reached_run] if channel.reached_run else []
    return said


def _channel_from_json(said: Sequence[Any]) -> ChannelPosition:
    if len(said) == _WITHOUT_ROWS:
        return ChannelPosition(watermark_ms=said[0], ended_run=said[1])
    time_ms, topic, partition, offset = said[2]
    return ChannelPosition(
        watermark_ms=said[0],
        ended_run=said[1],
        reached=(time_ms, topic, partition, offset),
        reached_run=said[5] if len(said) > _OF_EVERY_RUN else 0,
        block_offset=said[3],
        row_count=said[4],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """The metadata of one committed offset: what a starting worker must know before it opens any task.

    Args:
        transaction: Number of the task's last commit; its position must bear the same one.
        ended_run: That of the task's position.
        closed_run: The bounded run whose end closed windows of the task (0: none).
        ended_shuffles: The shuffles that the task has told the end of `ended_run`; None: it had told none by then, or
            nobody noted which.
        max_timestamp_ms: Of a source partition: the largest timestamp so far.
        mark: Of a source partition: what the run reads of it.
        partition_count: Of a source partition: how many its topic had when the run began.
        read_offset: How far beyond the offset it was read, for rows that wait for their turn (0: no further).
        full: Whether so much waits that it was not to be read further.
        position: Of a task without a store: the position but for its inputs, with the first of them.

    No note has the positions of channels: whoever reads a shuffle has a store, and so a changelog with room for them.
    """

    transaction: int = 0
    ended_run: int = 0
    closed_run: int = 0
    ended_shuffles: tuple[str, ...] | None = None
    max_timestamp_ms: int = NEVER_MS
    mark: RunMark | None = None
    partition_count: int = 0
    read_offset: int = 0
    full: bool = False
    position: Position | None = None

    def to_text(self) -> str:
        """Return the JSON text that is committed with the offset."""
        data: dict[str, Any] = {
            "txn": self.transaction,
            "ended": self.ended_run,
            "closed": self.closed_run,
            "max": self.max_timestamp_ms,
        }
        if self.mark is not None:
            run = self.mark.run
            data["mark"] = [run.number, self.mark.end_offset, self.mark.published_ms, run.published_ms, run.left_run]
            data["count"] = self.partition_count
            if self.mark.begin_offset:
                data["begin"] = self.mark.begin_offset
        if self.ended_shuffles is not None:
            data["shuffles"] = self.ended_shuffles
        if self.read_offset:
            data["read"] = self.read_offset
        if self.full:
            data["full"] = True
        if self.position is not None:
            data["position"] = self.position.to_json()
        return orjson.dumps(data).decode()

    @classmethod
    def from_text(cls, text: str) -> "Note":
        """Read the JSON text; an empty one is the note of an offset nobody annotated."""
        if not text:
            return cls()
        data = orjson.loads(text)
        mark = None
        if "mark" in data:
            number, end_offset, own_ms, published_ms, left_run = data["mark"]
            bounded = end_offset is not None
            run = Run(number=number, bounded=bounded, published_ms=published_ms, left_run=left_run)
            mark = RunMark(run=run, end_offset=end_offset, published_ms=own_ms, begin_offset=data.get("begin", 0))
        return cls(
            transaction=data["txn"],
            ended_run=data["ended"],
            closed_run=data["closed"],
            ended_shuffles=tuple(data["shuffles"]) if "shuffles" in data else None,
            max_timestamp_ms=data["max"],
            mark=mark,
            partition_count=data.get("count", 0),
            read_offset=data.get("read", 0),
            full=data.get("full", False),
            position=Position.from_json(data["position"]) if "position" in data else None,
        )
