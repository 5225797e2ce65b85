"""Opens a task, in the one order that is safe: fence, then read offsets, then bring the store forward.

Opening the transactional producer fences the predecessor and ends its open transaction; only then do the committed
offsets say the truth (rule D2). The store is an exact, older state, stamped with the changelog place it stands for;
the tail of the changelog up to the last stable offset is applied on top. A store whose stamp is not in the log is set
aside and rebuilt from the start of the changelog.

The steps stand in one tuple, in their order; tests crash a task before and after each of them. None of them changes
the log but the first, which fences; a store that is half brought forward bears its old stamp, and is brought forward
from there again.
"""

import contextlib
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import orjson

from streamkit.broker import EARLIEST, LAST_STABLE, Broker, CommittedOffset, Fetcher, Producer
from streamkit.errors import (
    Answer,
    CorruptBatchError,
    RunReplacedError,
    StoreDamagedError,
    StreamkitError,
    TaskCorruptedError,
    TaskMigratedError,
)
from streamkit.log import DecodedRecords, decode
from streamkit.records import TopicPartition
from streamkit.runtime.changelogs import StatefulTask, check_right, fold_task
from streamkit.runtime.commit import Observe, stamp_of
from streamkit.runtime.folding import ChangelogFold
from streamkit.runtime.marks import setup_id
from streamkit.runtime.position import InputPosition, Note, Position
from streamkit.runtime.reading import read_to
from streamkit.runtime.stores import Stores
from streamkit.runtime.task_plan import TaskPlan, transactional_id
from streamkit.seams import Clock
from streamkit.state import POSITION_KEY, Changes, MemoryStore, StateStore
from streamkit.topology import StoreSpec
from streamkit.topology.left_behind import LEFT_HINT, left_behind, said_of

__all__ = ["OPENING_STEPS", "Opened", "input_places", "open_task"]

TABLES_FROM: Final = 20_000
"""So many records of a changelog are applied in sorted tables; fewer take 40 ms at most, and no table is worth it."""
_TOMBSTONE_MS: Final = 86_400_000
"""Kafka's default of `delete.retention.ms`."""
_WAIT_MS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A task ready to run: its producer, its store at its position, and the store's stamp.

    `restored_count` is how many changelog records were applied.
    """

    producer: Producer
    store: StateStore
    position: Position
    places: dict[str, tuple[int, int]]
    restored_count: int


def open_task(
    plan: TaskPlan,
    broker: Broker,
    stores: Stores,
    clock: Clock,
    observe: Observe,
    stop: threading.Event | None = None,
) -> Opened:
    """Open one task; local state that cannot be trusted is set aside and restored, once.

    Args:
        plan: Of the task.
        broker: Where its log is.
        stores: Where its state is.
        clock: Says how old the store is.
        observe: Told each step's name before it, and `opened` after the last.
        stop: Set when the task is no longer wanted; looked at before each step and each fetch.

    Raises:
        TaskMigratedError: `stop` was set. What the store has by then is an older state of itself.
        StoreLockedError: Another worker uses the state, or it is of another job.
        RunReplacedError: Another run of the job has begun. The task was taken from whoever ran it.
        TaskCorruptedError: Log and committed offsets disagree, or the changelog is damaged, even after a restore.
            Nothing was written to the log; the state that was there is set aside.
        DigestMismatchError: The changelog does not have what was written to it. What was made of it has no stamp, and
            is removed at the next opening.
    """
    opening = Opening(plan, broker, stores, clock, stop or threading.Event())
    try:
        opening.take(_OWNING_STEPS, observe)
        try:
            opening.take(_STORE_STEPS, observe)
        except StreamkitError as error:
            if error.answer is not Answer.RESTORE:
                raise
            opening.set_aside(error.primary)
            opening.take(_STORE_STEPS, observe)
        observe("opened")
        return opening.opened()
    except BaseException:
        opening.abandon()
        raise


class Opening:
    """One opening under way."""

    def __init__(self, plan: TaskPlan, broker: Broker, stores: Stores, clock: Clock, stop: threading.Event) -> None:
        """Prepare; nothing happens before `take`."""
        self._stop = stop
        self._plan, self._broker, self._stores, self._clock = plan, broker, stores, clock
        self._producer: Producer | None = None
        self._committed: dict[TopicPartition, CommittedOffset] = {}
        self._notes: dict[TopicPartition, Note] = {}
        self._store: StateStore | None = None
        self._begin()

    def _begin(self) -> None:
        self._position, self._places, self._restored_count = Position(), dict[str, tuple[int, int]](), 0

    def take(self, steps: tuple[Callable[["Opening"], None], ...], observe: Observe) -> None:
        """Take some steps."""
        for step in steps:
            self._check_wanted()
            observe(step.__name__)
            step(self)

    def _check_wanted(self) -> None:
        if self._stop.is_set():
            raise TaskMigratedError(f"task {self._plan.task_id} is not wanted here any more")

    def fence(self) -> None:
        """Take the task over: its predecessor can commit nothing from now on."""
        self._producer = self._broker.producer(transactional_id(self._plan.topology.job, self._plan.task_id))

    def fence_setup(self) -> None:
        """Fail whoever is fixing another run: it has read offsets that this task is about to move."""
        self._broker.producer(setup_id(self._plan.topology.job)).close()

    def read_offsets(self) -> None:
        """Learn how far the task has committed, and that the run is still the one going on."""
        committed = self._read_committed()
        self._check_run(committed)
        self._committed = self._of_task(committed)
        self._notes = {place: Note.from_text(offset.metadata) for place, offset in self._committed.items()}

    def _read_committed(self) -> Mapping[TopicPartition, CommittedOffset]:
        assert self._producer is not None, "the first step has opened it"
        return self._producer.committed(self._plan.topology.job, input_places(self._plan)[0])

    def _of_task(self, committed: Mapping[TopicPartition, CommittedOffset]) -> dict[TopicPartition, CommittedOffset]:
        return {place: committed[place] for place in input_places(self._plan) if place in committed}

    def _check_run(self, committed: Mapping[TopicPartition, CommittedOffset]) -> None:
        marks = (Note.from_text(offset.metadata).mark for offset in committed.values())
        newest = max((mark.run.number for mark in marks if mark is not None), default=0)
        if newest > self._plan.run.number:
            raise RunReplacedError(
                f"run {self._plan.run.number} of job {self._plan.topology.job} was replaced by run {newest}",
                detail="another worker began it, with --bounded, without, or with --continue",
                hint="all workers of a job make the same run: start this one again as the others were",
            )

    def open_store(self) -> None:
        """Open the store, and read its stamp."""
        self._begin()
        self._store = self._stores.open(self._plan.task_id) if self._plan.sub.stores else MemoryStore()
        (stamp,) = self._store.get_many([POSITION_KEY])
        if stamp is None:
            self._empty(self._store)
        else:
            data = orjson.loads(stamp)
            if data["log"] != self._broker.admin.log_id():
                raise StoreDamagedError(f"the state of task {self._plan.task_id} is of another log, {data['log']}")
            self._check_age(data["ms"])
            self._places = {topic: (offset, crc) for topic, (offset, crc) in data["at"].items()}
            self._position = Position.from_json(data["position"])

    def _empty(self, store: StateStore) -> None:
        """Remove what an opening left that died before it had a stamp to give: it stands for no place of the log."""
        if next(store.scan(b"", POSITION_KEY), None) is not None:
            store.write(Changes(delete_ranges=[(b"", POSITION_KEY)]))

    def _check_age(self, stamped_ms: int) -> None:
        """Refuse a store so old that compaction may have removed tombstones which it has not seen."""
        topics = self._broker.admin.describe_topics()
        for spec in self._plan.sub.stores:
            kept_ms = int(topics[spec.changelog_topic].config.get("delete.retention.ms", _TOMBSTONE_MS))
            if self._clock.now_ms() - stamped_ms > kept_ms // 2:
                raise StoreDamagedError(
                    f"the state of task {self._plan.task_id} is older than half of the {kept_ms} ms for which "
                    f"{spec.changelog_topic} keeps tombstones"
                )

    def check_stamp(self) -> None:
        """Refuse a store that is not an older state of this log."""
        with self._changelog() as fetcher:
            for topic, (offset, crc) in self._places.items():
                place = TopicPartition(topic, self._plan.partition)
                if _position_crc(self._broker, fetcher, place, offset) != crc:
                    raise StoreDamagedError(
                        f"the state of task {self._plan.task_id} stands for {place} offset {offset}, "
                        "which the log does not have"
                    )

    def apply_changelog(self) -> None:
        """Apply the tails of the changelogs above the stamp; long ones in sorted tables, as a restore does.

        Raises:
            DigestMismatchError: A store that was made from nothing is not what its changelog says.
        """
        task = StatefulTask(sub=self._plan.sub, partition=self._plan.partition)
        begins, counts = self._tails(task)
        with self._changelog() as fetcher:
            if not self._places and sum(counts.values()) >= TABLES_FROM:
                self._rebuild(task, fetcher)
                return
            for place, spec in task.places().items():
                tail = read_to(self._broker, fetcher, place, begins[place])
                if counts[place] >= TABLES_FROM:
                    self._apply_in_tables(spec, place, tail)
                else:
                    for records in tail:
                        self._check_wanted()
                        self._apply(place.topic, records)

    def _tails(self, task: StatefulTask) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Return of each changelog where the store ends, and how many offsets follow."""
        places = list(task.places())
        firsts = self._broker.admin.list_offsets(dict.fromkeys(places, EARLIEST))
        ends = self._broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE))
        begins = {
            place: self._places[place.topic][0] + 1 if place.topic in self._places else firsts[place]
            for place in places
        }
        return begins, {place: ends[place] - begins[place] for place in places}

    def _rebuild(self, task: StatefulTask, fetcher: Fetcher) -> None:
        """Make the store, which is empty, from the changelogs alone."""
        assert self._store is not None, "the store was opened in an earlier step"
        folded = fold_task(task, self._store, self._broker, fetcher, lambda _, __: self._check_wanted())
        for store in folded.stores:
            # Of a store that the job did not have at first, transactions are missing, and nothing is wrong.
            if store.said is not None and store.said != store.ranges.total:
                check_right(store)
        self._places = dict(folded.places)
        self._position = folded.position or self._position
        self._restored_count = sum(store.record_count for store in folded.stores)

    def _apply_in_tables(self, spec: StoreSpec, place: TopicPartition, tail: Iterator[DecodedRecords]) -> None:
        """Apply a tail over what the store has; a crash leaves some of it, under the stamp of before."""
        assert self._store is not None, "the store was opened in an earlier step"
        fold = ChangelogFold(spec, place, self._store, begin_offset=None, complete=False)
        for records in tail:
            self._check_wanted()
            fold.take(records)
        fold.end()
        self._restored_count += fold.record_count
        if fold.position is not None and fold.stamp_place is not None:
            self._move_to(place.topic, fold.stamp_place, fold.position)

    def _apply(self, topic: str, records: DecodedRecords) -> None:
        assert self._store is not None, "the store was opened in an earlier step"
        self._restored_count += len(records)
        values = dict(zip(records.keys, records.values, strict=True))
        said = values.pop(POSITION_KEY, None)
        self._store.write(Changes(values={key: value for key, value in values.items() if key is not None}))
        if said is not None:
            where = len(records) - 1 - list(reversed(records.keys)).index(POSITION_KEY)
            at = (int(records.offsets[where]), zlib.crc32(said))
            self._move_to(topic, at, Position.from_json(orjson.loads(said)))

    def _move_to(self, topic: str, at: tuple[int, int], said: Position) -> None:
        self._places[topic] = at
        if said.transaction >= self._position.transaction:
            self._position = said

    def write_stamp(self) -> None:
        """Stamp the store with the place that it stands for now."""
        if self._restored_count:
            assert self._store is not None, "the store was opened in an earlier step"
            position = orjson.dumps(self._position.to_json())
            stamp = stamp_of(self._broker.admin.log_id(), self._places, position, now_ms=self._clock.now_ms())
            self._store.write(Changes(values={POSITION_KEY: stamp}))
            if self._restored_count >= TABLES_FROM:
                # What took long is not to be done again after a crash.
                self._store.flush()

    def agree(self) -> None:
        """Compare the position with the committed offsets."""
        carried = [note.position for note in self._notes.values() if note.position is not None]
        if carried and not self._plan.sub.stores:
            inputs = {
                place: InputPosition(next_offset=self._committed[place].offset, max_timestamp_ms=note.max_timestamp_ms)
                for place, note in self._notes.items()
            }
            self._position = replace(carried[0], inputs=inputs)
        transaction = max((note.transaction for note in self._notes.values()), default=0)
        if self._position.transaction != transaction:
            self._check_ours()
            raise self._disagreeing(transaction)
        if transaction == 0:
            # Nothing was committed by the task; the start offsets were, with the marks of the run.
            starts = {place: InputPosition(next_offset=offset.offset) for place, offset in self._committed.items()}
            self._position = Position(inputs=starts)

    def _disagreeing(self, transaction: int) -> TaskCorruptedError:
        said = (
            f"task {self._plan.task_id} of job {self._plan.topology.job} is at transaction "
            f"{self._position.transaction} by its changelog and at {transaction} by its committed offsets"
        )
        left = left_behind(self._plan.topology, self._broker.admin.describe_topics())
        if left:
            return TaskCorruptedError(said, detail=said_of(left), hint=LEFT_HINT)
        hint = "the changelog or the offsets were changed from outside; give the job a new name to start over"
        return TaskCorruptedError(said, hint=hint)

    def _check_ours(self) -> None:
        """Tell the commits of a successor, who took the task over during the opening, from damage: they moved offsets.

        Raises:
            TaskMigratedError: The committed offsets are not those that were read.
        """
        committed = self._read_committed()
        if self._of_task(committed) != self._committed:
            raise TaskMigratedError(f"another worker took task {self._plan.task_id} over while it was opened here")

    def set_aside(self, reason: str) -> None:
        """Put the state out of the way."""
        self._close_store()
        self._stores.set_aside(self._plan.task_id, reason)

    def opened(self) -> Opened:
        """Return the open task."""
        assert self._producer is not None, "all steps were taken"
        assert self._store is not None, "all steps were taken"
        return Opened(
            producer=self._producer,
            store=self._store,
            position=self._position,
            places=self._places,
            restored_count=self._restored_count,
        )

    def abandon(self) -> None:
        """Give back what was opened."""
        self._close_store()
        self._stores.close(self._plan.task_id)
        if self._producer is not None:
            self._producer.close()

    def _close_store(self) -> None:
        if self._store is not None:
            # What is wrong with it is being answered already.
            with contextlib.suppress(StreamkitError):
                self._store.close()
            self._store = None

    @contextlib.contextmanager
    def _changelog(self) -> Iterator[Fetcher]:
        fetcher = self._broker.fetcher("read_committed")
        try:
            yield fetcher
        except CorruptBatchError as error:
            raise TaskCorruptedError(
                f"the changelog of task {self._plan.task_id} is damaged: {error.primary}",
                detail=error.detail,
                # The hint of the log is for any file of it; what a changelog has can be computed again.
                hint="streamkit replay JOB computes state and changelog anew from the inputs; otherwise restore the "
                "file from a backup: nothing was changed",
            ) from error
        finally:
            fetcher.close()


_OWNING_STEPS: Final = (Opening.fence, Opening.fence_setup, Opening.read_offsets)
_STORE_STEPS: Final = (
    Opening.open_store,
    Opening.check_stamp,
    Opening.apply_changelog,
    Opening.write_stamp,
    Opening.agree,
)
OPENING_STEPS: Final[tuple[Callable[[Opening], None], ...]] = (*_OWNING_STEPS, *_STORE_STEPS)


def input_places(plan: TaskPlan) -> list[TopicPartition]:
    """Return the partitions that a task reads: of its sources, and of its repartition topics."""
    return [TopicPartition(topic, plan.partition) for topic in plan.topology.input_topics(plan.sub)]


def _position_crc(broker: Broker, fetcher: Fetcher, place: TopicPartition, offset: int) -> int | None:
    """Return the CRC-32 of the record at an offset, None if the log has none there."""
    begin = broker.admin.list_offsets({place: EARLIEST})[place]
    if not begin <= offset < broker.admin.list_offsets({place: LAST_STABLE})[place]:
        return None
    for fetched in fetcher.fetch({place: offset}, wait_ms=_WAIT_MS, bytes_max=1):
        records = decode(fetched.record_batches, from_offset=offset)
        if len(records) and records.offsets[0] == offset:
            return zlib.crc32(records.values[0] or b"")
    return None
