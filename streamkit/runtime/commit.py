"""The commit of one task: one log transaction, then the store.

The steps stand in one tuple, in their order; tests crash a task before and after each of them. Whatever the step,
a crash leaves either the whole transaction or nothing of it in the log, and a store that is an exact, older state of
itself: opening brings it forward from the changelog.

Exactly-once sends the outputs inside the transaction; at-least-once has sent them before it with a plain producer, as
soon as they existed, so they may repeat, never shrink. State, blocks and offsets are in the transaction in both.

Source: reliability rules D1, D3, D4, D6; KIP-98, KIP-892.
"""

import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Final

import orjson

from streamkit.broker import Appended, Producer
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime.task import Sealed
from streamkit.state import POSITION_KEY, Changes, StateStore

__all__ = ["COMMIT_STEPS", "Commit", "Observe", "Publisher", "stamp_of", "unobserved"]

Observe = Callable[[str], None]


def unobserved(step: str) -> None:
    """Watch nothing."""


def stamp_of(log_id: str, places: Mapping[str, tuple[int, int]], position: bytes, *, now_ms: int) -> bytes:
    """Return the stamp that a store bears.

    Args:
        log_id: Identity of the log that the state came from.
        places: For each changelog topic, the offset of its last position record and that record's CRC-32.
        position: The position as JSON.
        now_ms: Wall-clock time: a store that is too old may have missed tombstones.
    """
    return orjson.dumps({"log": log_id, "at": places, "ms": now_ms, "position": orjson.loads(position)})


class Publisher:
    """Sends outputs outside of transactions, for at-least-once.

    The thread that computes sends, so that outputs keep their order; the one that commits waits for them. A producer
    belongs to one thread at a time, hence the lock.
    """

    def __init__(self, producer: Producer) -> None:
        """Send with a producer that has no transactional id."""
        self._producer, self._lock = producer, threading.Lock()

    def send(self, outputs: Mapping[TopicPartition, EncodedRecords]) -> None:
        """Send outputs; they are durable after `flush`."""
        with self._lock:
            _send(self._producer, outputs)

    def flush(self) -> None:
        """Return once everything sent is durable."""
        with self._lock:
            self._producer.flush()

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()


class Commit:
    """One commit under way.

    Args:
        sealed: What it writes.
        producer: The task's transactional producer.
        publisher: Has sent the outputs outside the transaction (at-least-once); None sends them inside.
        group: Consumer group of the job.
        store: Takes the changes at the end; None for a task without stores.
        stamp: The log's identity, and the stamp's places so far, by changelog topic; updated when the store has them.
    """

    def __init__(
        self,
        sealed: Sealed,
        producer: Producer,
        publisher: Publisher | None,
        group: str,
        store: StateStore | None,
        stamp: tuple[str, dict[str, tuple[int, int]], int],
    ) -> None:
        """Prepare; nothing happens before `run`."""
        self._sealed, self._producer, self._publisher, self._group = sealed, producer, publisher, group
        self._store, (self._log_id, self._places, self._now_ms) = store, stamp
        self._appended: Mapping[TopicPartition, Appended] = {}

    def run(self, observe: Observe) -> None:
        """Take all steps; `observe` is told each step's name before it, and `done` after the last.

        Raises:
            ProducerFencedError: Another worker owns the task; nothing was committed.
            CommitFailedError: Unknown outcome; the task must be reopened.
            RecordTooLargeError: An output is over the limit; nothing was committed.
        """
        for step in COMMIT_STEPS:
            observe(step.__name__)
            step(self)
        observe("done")

    def publish(self) -> None:
        """At-least-once: wait for the outputs."""
        if self._publisher is not None:
            self._publisher.flush()

    def begin(self) -> None:
        """Open the transaction."""
        self._producer.begin()

    def send_outputs(self) -> None:
        """Exactly-once: send the outputs."""
        if self._publisher is None:
            _send(self._producer, self._sealed.outputs)

    def send_blocks(self) -> None:
        """Send the blocks of repartition topics."""
        _send(self._producer, self._sealed.internal)

    def send_changelogs(self) -> None:
        """Send the changelog entries, each partition's position last."""
        _send(self._producer, self._sealed.changelogs)

    def send_offsets(self) -> None:
        """Make the input offsets a part of the transaction."""
        self._producer.send_offsets(self._group, self._sealed.offsets)

    def commit(self) -> None:
        """The point of no return: the log says committed."""
        self._appended = self._producer.commit()

    def apply(self) -> None:
        """Hand the changes to the store, with the stamp in the same write."""
        generation = self._sealed.generation
        if self._store is None or generation is None:
            return
        position = b""
        for place, records in self._sealed.changelogs.items():
            position = records.values[-1] or b""
            self._places[place.topic] = (self._appended[place].last_offset, zlib.crc32(position))
        changes = generation.changes()
        stamp = stamp_of(self._log_id, self._places, position, now_ms=self._now_ms)
        self._store.write(Changes(values={**changes.values, POSITION_KEY: stamp}, delete_ranges=changes.delete_ranges))


def _send(producer: Producer, records: Mapping[TopicPartition, EncodedRecords]) -> None:
    for place in sorted(records):
        producer.send(place, records[place])


COMMIT_STEPS: Final[tuple[Callable[[Commit], None], ...]] = (
    Commit.publish,
    Commit.begin,
    Commit.send_outputs,
    Commit.send_blocks,
    Commit.send_changelogs,
    Commit.send_offsets,
    Commit.commit,
    Commit.apply,
)
