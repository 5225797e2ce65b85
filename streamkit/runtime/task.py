"""A task: one sub-topology × one partition, one writer, one store.

The task does no I/O of its own: it is handed what was fetched, runs it through its operators, and gives out, when
asked, everything one transaction has to write. Its phases::

    CREATED ── opened ──▶ RUNNING ── closed ──▶ CLOSED
                             │  ▲
                     sealed  ▼  │ applied
                          (one commit under way; computing goes on)

Not here: the commit's I/O (`commit`), opening and restoring (`opening`), scheduling (`worker`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import orjson

from streamkit.broker import CommittedOffset, Fetched
from streamkit.records import NEVER_MS, EncodedRecords, TopicPartition
from streamkit.runtime.aside import Aside
from streamkit.runtime.build import build_parts
from streamkit.runtime.context import Counters, TaskContext
from streamkit.runtime.inputs import SourceInput
from streamkit.runtime.operators.aggregate import AggregateOperator
from streamkit.runtime.operators.latest import LatestOperator
from streamkit.runtime.overlay import Generation, Overlay
from streamkit.runtime.position import Note, Position
from streamkit.runtime.task_plan import TaskPlan
from streamkit.runtime.turns import release
from streamkit.state import POSITION_KEY, EntriesDigest, StateStore

__all__ = ["Sealed", "Task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """Everything that one transaction writes, and what the store takes once the log says committed.

    Args:
        outputs: Records for topics that users see.
        internal: Blocks for repartition topics.
        changelogs: Entries for changelog partitions; each ends with the position.
        offsets: Next offset of every input, with its note.
        generation: The store's changes; None for a task without stores.
        position: The position after this transaction.
    """

    outputs: Mapping[TopicPartition, EncodedRecords]
    internal: Mapping[TopicPartition, EncodedRecords]
    changelogs: Mapping[TopicPartition, EncodedRecords]
    offsets: Mapping[TopicPartition, CommittedOffset]
    generation: Generation | None
    position: Position


class Task:
    """The operators of one task, and its position."""

    def __init__(
        self, plan: TaskPlan, store: StateStore, position: Position, aside: Aside, *, careful: bool = False
    ) -> None:
        """Go on from `position`, whose state `store` holds, without the records in `aside`."""
        self.plan, self._transaction = plan, position.transaction
        self._ended_run = position.ended_run
        self._overlay = Overlay(store)
        self.context = TaskContext(
            partition=plan.partition,
            overlay=self._overlay,
            run=plan.run,
            ordered=plan.sub.ordered,
            alone=_strand_count(plan) == 1,
            aside=aside,
            careful=careful,
            counters=Counters(**position.counters),
        )
        self._parts = build_parts(plan, position, self.context)
        self._dirty = False
        self._tell()
        if left := not plan.run.bounded and self._ended_run < plan.run.left_run:
            self._emit_changed(plan.run.left_run)
        # Each commit of an unbounded run writes what it changes: nothing is left of it.
        self._ended_run = self._ended_run if plan.run.bounded else plan.run.number
        # A shuffle that leads back here is waited for: its end is written though nothing is read.
        awaited = not self.finished and any(writer.has_end_to_write for writer in self._parts.writers)
        self._dirty = left or self.ended or awaited

    @property
    def task_id(self) -> str:
        """Sub-topology and partition, `0_3`."""
        return self.plan.task_id

    @property
    def finished(self) -> bool:
        """Whether the end of this run was reached in an earlier transaction."""
        return self.plan.run.bounded and self._ended_run >= self.plan.run.number

    @property
    def ended(self) -> bool:
        """Whether the input of this run is over, but no transaction says so yet."""
        return not self.finished and all(reader.ended for reader in self._parts.inputs.values())

    @property
    def dirty(self) -> bool:
        """Whether a commit would write something."""
        return self._dirty

    @property
    def watermark_ms(self) -> int:
        """The lowest watermark of the inputs that are still read."""
        return min(reader.watermark_ms for reader in self._parts.inputs.values())

    def positions(self) -> dict[TopicPartition, int]:
        """Return where each input is read next; what is at its end, or must wait for others, is left out."""
        return {
            place: reader.read_offset
            for place, reader in self._parts.inputs.items()
            if not reader.ended and not reader.full
        }

    def source(self, place: TopicPartition) -> SourceInput:
        """Return the input that reads a source partition."""
        reader = self._parts.inputs[place]
        assert isinstance(reader, SourceInput), "a source partition"
        return reader

    def places(self) -> list[TopicPartition]:
        """Return all inputs."""
        return list(self._parts.inputs)

    def end_offset(self, place: TopicPartition) -> int | None:
        """Return where a bounded run stops reading a source; None for other inputs and runs."""
        mark = self.plan.marks.get(place.topic)
        return None if mark is None else mark.end_offset

    def input_watermark_ms(self, place: TopicPartition) -> int:
        """Return what one input promises of what it has not read."""
        return self._parts.inputs[place].read_watermark_ms

    def process(self, fetched: Fetched) -> int:
        """Run fetched record batches through the operators, in order.

        Returns:
            How many records it was (blocks, for a repartition partition).

        Raises:
            RecordError: One record is bad. The task must be closed dirty: nothing since its last commit counts.
        """
        reader = self._parts.inputs[fetched.topic_partition]
        before = reader.read_offset
        count = reader.take(fetched)
        # Behind a row that waits no position moves; that this was read is committed all the same.
        self._dirty = self._dirty or reader.read_offset != before
        release(self._parts.strands)
        self._tell()
        return count

    def _tell(self) -> None:
        for reader in self._parts.inputs.values():
            reader.tell()

    def _emit_changed(self, run_number: int) -> None:
        """Write the tables without windows as they were changed up to a bounded run, and not written since."""
        for aggregate in self._parts.aggregates:
            aggregate.emit_changed(self._ended_run, run_number)
        self._ended_run = run_number

    def merge_updates(self) -> None:
        """Merge the deltas of tables that emit updates into the overlay now, so that these are emitted at once."""
        for aggregate in self._parts.aggregates:
            if aggregate.spec.emit == "update":
                aggregate.seal()

    def seal(self) -> Sealed:
        """Return what the next transaction writes, and start a new generation.

        Computing may go on at once. The next `seal` needs `applied` first.
        """
        for aggregate in self._parts.aggregates:
            aggregate.seal()
        if self.ended:
            # Here and not when an input ends: a task that is opened again learns once more which inputs have ended.
            self._emit_changed(self.plan.run.number)
        for writer in self._parts.writers:
            writer.seal()
        self._transaction += 1
        generation = self._overlay.freeze()
        position = self._position(generation)
        self._dirty = False
        stateful = bool(self.plan.sub.stores)
        return Sealed(
            outputs=self.context.outputs.take(),
            internal=self.context.internal.take(),
            changelogs=self._changelogs(generation, position) if stateful else {},
            offsets=self._offsets(position, stateful=stateful),
            generation=generation if stateful else None,
            position=position,
        )

    def applied(self) -> None:
        """Learn that the sealed transaction was committed and the store has taken it."""
        self._overlay.applied()

    def _position(self, generation: Generation) -> Position:
        return Position(
            transaction=self._transaction,
            inputs={place: reader.position() for place, reader in self._parts.inputs.items()},
            ended_run=self._ended_run,
            counters=asdict(self.context.counters),
            digests={name: digest.to_text() for name, digest in self._parts.digests.items()},
            entries=self._entries(generation),
            stream_times_ms={
                one.node.name: one.stream_time_ms for one in self._parts.processes if one.stream_time_ms > NEVER_MS
            },
        )

    def _entries(self, generation: Generation) -> dict[str, str] | None:
        """Return the digest of what goes to each changelog, in its order."""
        if not self.plan.sub.stores:
            return None
        texts = {}
        for store in self.plan.sub.stores:
            if entries := generation.log.get(store.index):
                digest = EntriesDigest()
                digest.add(list(entries), list(entries.values()))
                texts[store.name] = digest.to_text()
        return texts

    def _changelogs(self, generation: Generation, position: Position) -> dict[TopicPartition, EncodedRecords]:
        """Return the entries of each store that changed, and of the first one always: it carries the position."""
        record = orjson.dumps(position.to_json())
        logs = {}
        for number, store in enumerate(self.plan.sub.stores):
            entries = generation.log.get(store.index, {})
            if entries or number == 0:
                count = len(entries) + 1
                logs[TopicPartition(store.changelog_topic, self.plan.partition)] = EncodedRecords.to_append(
                    timestamps_ms=[max(self.context.stream_time_ms, 0)] * count,
                    keys=[*entries, POSITION_KEY],
                    values=[*entries.values(), record],
                )
        return logs

    def _offsets(self, position: Position, *, stateful: bool) -> dict[TopicPartition, CommittedOffset]:
        offsets = {}
        # Each note says for its own input what the position says for all: together they may outgrow one note.
        carried = None if stateful else replace(position, inputs={})
        closed_run = self.plan.run.number if any(one.closed_by_end for one in self._parts.aggregates) else 0
        for place, reader in self._parts.inputs.items():
            source = isinstance(reader, SourceInput)
            assert source or stateful, "whoever reads a shuffle has a store, as a note has no room for channels"
            note = Note(
                transaction=position.transaction,
                ended_run=position.ended_run,
                closed_run=closed_run,
                ended_shuffles=self.plan.sub.repartitions_out if self.finished else None,
                max_timestamp_ms=position.inputs[place].max_timestamp_ms,
                mark=self.plan.marks[place.topic] if source else None,
                partition_count=self.plan.partition_counts[place.topic] if source else 0,
                position=carried,
                read_offset=reader.read_offset if reader.read_offset > reader.next_offset else 0,
                full=reader.full,
            )
            carried = None
            offsets[place] = CommittedOffset(offset=reader.next_offset, metadata=note.to_text())
        return offsets

    def consumed(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of each repartition partition: what lies below is not needed once committed."""
        return {
            place: reader.next_offset
            for place, reader in self._parts.inputs.items()
            if not isinstance(reader, SourceInput)
        }

    @property
    def held_count(self) -> int:
        """How many partial rows of windows the aggregations hold: what a commit now would store, about."""
        return sum(aggregate.held_count for aggregate in self._parts.aggregates)

    @property
    def latest(self) -> tuple[LatestOperator, ...]:
        """The tables of topics, for those who look at state."""
        return self._parts.latest

    @property
    def aggregates(self) -> tuple[AggregateOperator, ...]:
        """The aggregations, for those who look at state (a test driver, a query)."""
        return self._parts.aggregates


def _strand_count(plan: TaskPlan) -> int:
    """Return how many source partitions, and channels of whole rows, a task reads."""
    whole = [one for one in map(plan.topology.repartition, plan.sub.repartitions_in) if one.whole]
    sources = [topic for topic in plan.sub.source_topics if plan.partition < plan.partition_counts[topic]]
    return len(sources) + sum(len(plan.channels[one.topic]) for one in whole)
