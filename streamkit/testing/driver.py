"""The test driver: the production tasks, stepped by hand."""

import itertools
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson

from streamkit.broker import EARLIEST, Broker, open_broker
from streamkit.broker.partitioner import Placement
from streamkit.dsl import Job, Table
from streamkit.errors import UnknownStoreError, UnknownTopicError
from streamkit.graph import (
    Aggregation,
    Filter,
    Latest,
    MapValues,
    Node,
    Sink,
    Source,
    TableJoin,
    Typed,
    Window,
    to_ms,
)
from streamkit.graph.stores import Store
from streamkit.records import EncodedRecords, TopicPartition, Windowed
from streamkit.runtime.commit import Observe
from streamkit.runtime.operators.aggregate import AggregateOperator
from streamkit.runtime.options import Guarantee, RunOptions
from streamkit.runtime.reading import read_to
from streamkit.runtime.runner import RunnerEnvironment, TaskRunner
from streamkit.runtime.setup import prepare
from streamkit.runtime.stores import MemoryStores
from streamkit.seams import ManualClock, ManualEventLoop, MemoryFileSystem, SeededRng
from streamkit.serde import key_serde, value_serde
from streamkit.state import store_range
from streamkit.testing.row_wise import row_wise_check
from streamkit.topology import compile_graph

__all__ = ["TestDriver"]

K = TypeVar("K")
V = TypeVar("V")

_FETCH_BYTES = 1024 * 1024


def _unobserved(step: str) -> None:
    """Watch nothing."""


class TestDriver:
    """Runs a job in this thread on an in-memory broker with a manual clock.

    It is the production task loop: what is tested is what runs. It commits when told, or when `advance` moves the
    clock past `commit_interval`. Every columnar node runs twice, with its batch cut elsewhere.

    Args:
        job: The job; it is built, hence frozen.
        partitions: Partition count of the source topics, one number or by topic.
        guarantee: As for `streamkit run`.
        commit_interval: Of fake time.

    Example:
        >>> import operator
        >>> from streamkit import Job
        >>> job = Job("lengths")
        >>> longest = job.stream("words", value=str).map(len).group_by(str, name="by_length").count(name="counts")
        >>> with TestDriver(job) as driver:
        ...     driver.send("words", "to")
        ...     driver.send("words", "be")
        ...     driver.commit()
        ...     driver.table(longest)
        {'2': 2}
    """

    __test__ = False

    def __init__(
        self,
        job: Job,
        *,
        partitions: int | Mapping[str, int] = 1,
        guarantee: Guarantee = "exactly-once",
        commit_interval: timedelta = timedelta(milliseconds=100),
        observe: Observe = _unobserved,
    ) -> None:
        """Make the source topics and open the tasks."""
        self.clock = ManualClock(start_ms=0)
        self._topology = compile_graph(job.build())
        self._nodes = {node.name: node for node in self._topology.graph.nodes}
        self.broker: Broker = open_broker("memory://", fs=MemoryFileSystem(), clock=self.clock, rng=SeededRng(0))
        self._guarantee, self._observe = guarantee, observe
        self._interval_ms = to_ms(commit_interval)
        self._stores = MemoryStores()
        self._event_loop = ManualEventLoop(self.clock)
        self._sources = {node.topic: node for node in self._nodes.values() if isinstance(node, Source)}
        self._placements: dict[str, Placement] = {}
        for topic in self._sources:
            count = partitions if isinstance(partitions, int) else partitions.get(topic, 1)
            self.broker.admin.create_topic(topic, count)
            self._placements[topic] = Placement(count)
        self._producer = self.broker.producer()
        self._fetcher = self.broker.fetcher()
        self._runners: list[TaskRunner] = []
        self._open(bounded=False)

    def __enter__(self) -> Self:
        """Return the driver."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the tasks and the broker."""
        self._close()
        self._event_loop.close()
        self.broker.close()

    def _open(self, *, bounded: bool) -> None:
        options = RunOptions(bounded=bounded, go_on=True, guarantee=self._guarantee, thread_count=1)
        plan = prepare(self._topology, self.broker, options, row_wise_check)
        environment = RunnerEnvironment(
            broker=self.broker,
            stores=self._stores,
            clock=self.clock,
            options=options,
            observe=self._observe,
            event_loop=self._event_loop,
        )
        self._runners = [TaskRunner(task, environment) for task in plan.tasks]
        self._committed_ms = self.clock.monotonic_ms()

    def _close(self) -> None:
        for runner in self._runners:
            runner.close()
        self._runners = []

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: Any = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> None:
        """Append one record to a source topic.

        Args:
            topic: A topic that the job reads.
            value: Encoded as the source declares; `bytes` go as they are, so that bad records can be sent. None deletes
                the key of a table.
            key: Encoded as the source declares; `bytes` go as they are.
            timestamp_ms: Of the record; the driver's clock unless said.
            partition: Kafka's partitioner places the key unless said.

        Raises:
            UnknownTopicError: The job does not read the topic.
        """
        if topic not in self._sources:
            raise UnknownTopicError(f"the job does not read {topic!r}", detail=f"it reads {', '.join(self._sources)}")
        source = self._sources[topic]
        deletes = value is None and source.nulls_delete
        raw = value if deletes or isinstance(value, bytes) else _encoded(source.value_type, value)
        raw_key = key if isinstance(key, bytes) or key is None else key_serde(source.key_type or type(key)).encode(key)
        place = int(self._placements[topic].place([raw_key])[0]) if partition is None else partition
        stamp = self.clock.now_ms() if timestamp_ms is None else timestamp_ms
        records = EncodedRecords.to_append(timestamps_ms=[stamp], keys=[raw_key], values=[raw])
        self._producer.send(TopicPartition(topic, place), records)
        self._producer.flush()

    def process(self) -> None:
        """Run everything that is there through the tasks, without committing."""
        while self._step():
            pass

    def _step(self) -> bool:
        owners = {place: runner for runner in self._runners for place in runner.task.positions()}
        positions = {place: position for runner in self._runners for place, position in runner.task.positions().items()}
        fetched = self._fetcher.fetch(positions, wait_ms=0, bytes_max=_FETCH_BYTES)
        for part in fetched:
            runner = owners[part.topic_partition]
            if not runner.rewinding:
                runner.feed(part)
        for runner in self._runners:
            if runner.rewinding:
                runner.rewind()
        return bool(fetched)

    def commit(self) -> None:
        """Process and commit until nothing is left, through every shuffle."""
        while True:
            self.process()
            dirty = [runner for runner in self._runners if runner.task.dirty]
            if not dirty:
                break
            for runner in dirty:
                sealed = runner.seal()
                if sealed is None:
                    runner.rewind()
                else:
                    runner.finish(sealed)
        self._committed_ms = self.clock.monotonic_ms()

    def advance(self, by: timedelta) -> None:
        """Move the clock; commit if the interval has passed."""
        self.clock.advance(to_ms(by))
        self.process()
        if self.clock.monotonic_ms() - self._committed_ms >= self._interval_ms:
            self.commit()

    def end(self) -> None:
        """End the input: every window closes, and tables that were never written are. More records may follow."""
        self.commit()
        self._close()
        self._open(bounded=True)
        self.commit()
        self._close()
        self._open(bounded=False)

    def restart(self) -> None:
        """Drop everything that was not committed, and open the tasks again."""
        self._close()
        self._open(bounded=False)

    def sent(self, topic: str) -> list[tuple[Any, Any]]:
        """Return key and value of every committed record of a topic, by partition and offset.

        Keys are of the sink's key type where it is known, else text; values are parsed where they are JSON.
        """
        return [(key, value) for key, value, _ in self.sent_records(topic)]

    def sent_records(self, topic: str) -> list[tuple[Any, Any, int]]:
        """Return key, value and timestamp (ms) of every committed record of a topic."""
        description = self.broker.admin.describe_topics().get(topic)
        if description is None:
            raise UnknownTopicError(f"there is no topic {topic!r}")
        sinks = [node for node in self._nodes.values() if isinstance(node, Sink) and node.topic == topic]
        key_type = self._topology.plans[sinks[0].inputs[0]].key_type if sinks else None
        rows = []
        for partition in range(description.partition_count):
            for records in read_to(self.broker, self._fetcher, TopicPartition(topic, partition), None):
                for key, value, stamp in zip(records.keys, records.values, records.timestamps_ms.tolist(), strict=True):
                    rows.append((_key(key, key_type), _value(value), stamp))
        return rows

    def table(self, table: Table[K, V] | str) -> dict[K, V]:
        """Return the committed contents of a table; the keys of a windowed one are `Windowed`.

        Raises:
            UnknownStoreError: The job has no such table.
        """
        return self._contents(table if isinstance(table, str) else table.name)

    def _contents(self, table: str) -> dict[Any, Any]:
        match self._nodes.get(table):
            case MapValues() | Filter() | Typed() as step:
                return _through(step, self._contents(step.inputs[0]))
            case TableJoin() as join:
                one, other = map(self._contents, join.inputs)
                return {key: join.fn(value, other[key]) for key, value in one.items() if key in other}
            case Latest() as node:
                key_type = self._topology.plans[table].key_type
                kept = [one for runner in self._runners for one in runner.task.latest if one.node == node.name]
                return {_key(key, key_type): value for one in kept for key, value in one.stored()}
            case Aggregation() as node:
                tasks = [runner.task.aggregates for runner in self._runners]
                mine = [one for aggregates in tasks for one in aggregates if one.spec.node == node.name]
                return dict(itertools.chain.from_iterable(self._rows(node, one).items() for one in mine))
            case _:
                raise UnknownStoreError(f"the job has no table {table!r}")

    def _rows(self, node: Aggregation, aggregate: AggregateOperator) -> dict[Any, Any]:
        upstream = self._nodes[node.inputs[0]]
        key_type = self._topology.plans[upstream.name].key_type
        rows: dict[Any, Any] = {}
        for end_ms, key, value in aggregate.stored():
            plain = _key(key, key_type)
            if isinstance(upstream, Window):
                rows[Windowed(plain, end_ms - upstream.window.size_ms, end_ms)] = value
            else:
                rows[plain] = value
        return rows

    def store(self, store: Store[K, V], *, partition: int | None = None) -> dict[K, V]:
        """Return what a store of `process` holds, in the order of the keys' bytes.

        Args:
            store: What `job.store` returned.
            partition: Of the task whose part it is; all tasks' parts in one without it, as if no key were in two.

        Raises:
            UnknownStoreError: No `process` of the job uses the store.
        """
        keys, values = key_serde(store.key_type), value_serde(store.value_type)
        pairs: list[tuple[bytes, bytes]] = []
        found = False
        for runner in self._runners:
            for spec in runner.plan.sub.stores:
                if spec.name == store.name and partition in (None, runner.plan.partition):
                    found, (begin, end) = True, store_range(spec.index)
                    pairs += [(k[len(begin) :], v) for k, v in runner.task.context.overlay.scan(begin, end)]
        if not found:
            raise UnknownStoreError(f"no process of the job uses the store {store.name!r}")
        return {keys.decode(key): values.decode(value) for key, value in sorted(pairs)}

    def committed(self) -> dict[TopicPartition, int]:
        """Return the committed offsets of the job."""
        offsets = self.broker.group(self._topology.job).committed()
        return {place: committed.offset for place, committed in offsets.items()}

    def shuffle_rows(self) -> tuple[int, int]:
        """Return how many rows came to the shuffles and how many left them: the difference is what combining saved."""
        counters = [runner.task.context.counters for runner in self._runners]
        return sum(one.shuffle_rows_in for one in counters), sum(one.shuffle_rows_out for one in counters)

    def record_count(self, topic: str) -> int:
        """Return how many committed records a topic has, internal ones too."""
        count = self.broker.admin.describe_topics()[topic].partition_count
        total = 0
        for partition in range(count):
            place = TopicPartition(topic, partition)
            start = self.broker.admin.list_offsets({place: EARLIEST})[place]
            total += sum(len(records) for records in read_to(self.broker, self._fetcher, place, start))
        return total


def _encoded(value_type: Any, value: Any) -> bytes | None:
    # A dict stands for an object of any declared type, as it does in JSON.
    return value_serde(None if isinstance(value, dict) else value_type).encode(value)


def _key(key: bytes | None, key_type: Any) -> Any:
    if key is None:
        return None
    return key.decode() if key_type is None else key_serde(key_type).decode(key)


def _value(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.decode("utf-8", "backslashreplace")


def _through(step: Node, rows: dict[Any, Any]) -> dict[Any, Any]:
    match step:
        case MapValues():
            return {key: step.fn(value) for key, value in rows.items()}
        case Filter(predicate=predicate) if callable(predicate):
            return {key: value for key, value in rows.items() if bool(predicate(value)) != step.negate}
        case _:
            return rows
