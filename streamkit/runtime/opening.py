"""Opens a task, in the one order that is safe: fence, then read offsets, then bring the store forward.

Opening the transactional producer fences the predecessor and ends its open transaction; only then do the committed
offsets say the truth (rule D2). The store is an exact, older state, stamped with the changelog place it stands for;
the tail of the changelog up to the last stable offset is applied on top. A store whose stamp is not in the log is set
aside and rebuilt from the start of the changelog.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from streamkit.broker import EARLIEST, LAST_STABLE, Broker, Fetcher, Producer
from streamkit.errors import Answer, StoreDamagedError, StreamkitError, TaskCorruptedError
from streamkit.log import decode
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime.build import TaskPlan
from streamkit.runtime.commit import stamp_of
from streamkit.runtime.position import InputPosition, Note, Position
from streamkit.runtime.stores import Stores
from streamkit.state import POSITION_KEY, Changes, MemoryStore, StateStore

__all__ = ["Opened", "open_task", "read_to"]

_FETCH_BYTES: Final = 8 * 1024 * 1024
_WAIT_MS: Final = 1000
_STALLS_MAX: Final = 30


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


def open_task(plan: TaskPlan, broker: Broker, stores: Stores) -> Opened:
    """Open one task; local state that cannot be trusted is set aside and restored, once.

    Raises:
        StoreLockedError: Another worker uses the state, or it is of another job.
        TaskCorruptedError: Log and committed offsets disagree even after a restore. Nothing was written.
    """
    producer = broker.producer(f"{plan.topology.job}-{plan.task_id}")
    try:
        try:
            return _open(plan, broker, stores, producer)
        except StreamkitError as error:
            if error.answer is not Answer.RESTORE:
                raise
            stores.set_aside(plan.task_id, error.primary)
            return _open(plan, broker, stores, producer)
    except BaseException:
        producer.close()
        stores.close(plan.task_id)
        raise


def _open(plan: TaskPlan, broker: Broker, stores: Stores, producer: Producer) -> Opened:
    committed = broker.group(plan.topology.job).committed()
    inputs = _input_places(plan)
    notes = {place: Note.from_text(committed[place].metadata) for place in inputs if place in committed}
    transaction = max((note.transaction for note in notes.values()), default=0)
    store: StateStore = stores.open(plan.task_id) if plan.sub.stores else MemoryStore()
    try:
        if plan.sub.stores:
            position, places, count = _catch_up(plan, broker, store)
        else:
            carried = [note.position for note in notes.values() if note.position is not None]
            position, places, count = (carried[0] if carried else Position()), {}, 0
        if position.transaction != transaction:
            raise TaskCorruptedError(
                f"task {plan.task_id} of job {plan.topology.job} is at transaction {position.transaction} by its "
                f"changelog and at {transaction} by its committed offsets",
                hint="the changelog or the offsets were changed from outside; give the job a new name to start over",
            )
        if transaction == 0:
            # Nothing was committed by the task; the start offsets were, with the marks of the run.
            starts = {place: InputPosition(next_offset=committed[place].offset) for place in notes}
            position = Position(inputs=starts)
    except BaseException:
        store.close()
        raise
    return Opened(producer=producer, store=store, position=position, places=places, restored_count=count)


def _input_places(plan: TaskPlan) -> list[TopicPartition]:
    topics = [*plan.sub.source_topics, *(plan.topology.repartition(name).topic for name in plan.sub.repartitions_in)]
    return [TopicPartition(topic, plan.partition) for topic in topics]


def _catch_up(plan: TaskPlan, broker: Broker, store: StateStore) -> tuple[Position, dict[str, tuple[int, int]], int]:
    """Apply the changelog tails above the store's stamp; return the newest position."""
    (stamp,) = store.get_many([POSITION_KEY])
    log_id, places, position = broker.admin.log_id(), dict[str, tuple[int, int]](), Position()
    fetcher = broker.fetcher("read_committed")
    try:
        if stamp is not None:
            data = orjson.loads(stamp)
            places = {topic: (offset, crc) for topic, (offset, crc) in data["at"].items()}
            position = Position.from_json(data["position"])
            _check_stamp(plan, broker, fetcher, data["log"], places)
        count = 0
        raw = orjson.dumps(position.to_json())
        for spec in plan.sub.stores:
            place = TopicPartition(spec.changelog_topic, plan.partition)
            begin = places[place.topic][0] + 1 if place.topic in places else None
            for records in read_to(broker, fetcher, place, begin):
                count += len(records)
                values = dict(zip(records.keys, records.values, strict=True))
                said = values.pop(POSITION_KEY, None)
                store.write(Changes(values={key: value for key, value in values.items() if key is not None}))
                if said is not None:
                    where = len(records) - 1 - list(reversed(records.keys)).index(POSITION_KEY)
                    places[place.topic] = (int(records.offsets[where]), zlib.crc32(said))
                    spoken = Position.from_json(orjson.loads(said))
                    if spoken.transaction >= position.transaction:
                        position, raw = spoken, said
        if count:
            store.write(Changes(values={POSITION_KEY: stamp_of(log_id, places, raw)}))
        return position, places, count
    finally:
        fetcher.close()


def _check_stamp(
    plan: TaskPlan, broker: Broker, fetcher: Fetcher, log_id: str, places: Mapping[str, tuple[int, int]]
) -> None:
    """Refuse a store that is not an older state of this log."""
    if log_id != broker.admin.log_id():
        raise StoreDamagedError(f"the state of task {plan.task_id} belongs to the log {log_id}, not to this one")
    for topic, (offset, crc) in places.items():
        place = TopicPartition(topic, plan.partition)
        end_offset = broker.admin.list_offsets({place: LAST_STABLE})[place]
        if offset < end_offset:
            for fetched in fetcher.fetch({place: offset}, wait_ms=_WAIT_MS, bytes_max=1):
                records = decode(fetched.record_batches, from_offset=offset)
                if len(records) and records.offsets[0] == offset and zlib.crc32(records.values[0] or b"") == crc:
                    break
            else:
                offset = end_offset
        if offset >= end_offset:
            raise StoreDamagedError(
                f"the state of task {plan.task_id} stands for {place} offset {offset}, which the log does not have"
            )


def read_to(broker: Broker, fetcher: Fetcher, place: TopicPartition, begin: int | None) -> Iterator[EncodedRecords]:
    """Yield the committed records of a partition from `begin` (None: its start) to the last stable offset.

    It ends by position, not by count (rule D10): aborted data, markers and gaps at the end are stepped over.
    """
    offsets = broker.admin.list_offsets({place: LAST_STABLE})
    end_offset = offsets[place]
    position = broker.admin.list_offsets({place: EARLIEST})[place] if begin is None else begin
    stalls = 0
    while position < end_offset:
        fetched = fetcher.fetch({place: position}, wait_ms=_WAIT_MS, bytes_max=_FETCH_BYTES)
        stalls = 0 if fetched else stalls + 1
        if stalls > _STALLS_MAX:
            raise TaskCorruptedError(f"{place} gives nothing at offset {position} below its end {end_offset}")
        for part in fetched:
            records = decode(part.record_batches, from_offset=position)
            position = max(position, part.next_offset)
            if len(records):
                yield records
