"""Replay: state and outputs of a job computed anew from its inputs, in the place of what was there.

The steps stand in one tuple, in their order; tests crash before each of them. The first that changes anything writes
the plan (`replay_plan`); from then on no worker of the job starts, and the same command goes on: the steps up to the
reset may be taken any number of times, the run goes on from what it has committed.

Sources alone are read: what lies in repartition topics is removed, not read again. The replay ends where the job had
been, so that each store can be compared with what it was. Whatever came to the sources since is for the next run.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import orjson

from streamkit.broker import EARLIEST, LAST_STABLE, Broker, CommittedOffset, OffsetSpec, Producer
from streamkit.errors import ConfigError, DigestMismatchError, StoreDamagedError, UnknownTopicError
from streamkit.records import TopicPartition
from streamkit.runtime.changelogs import RestoredStore, StatefulTask, stateful_tasks
from streamkit.runtime.commit import Observe, unobserved
from streamkit.runtime.comparing import Comparison, Past, compare_stores, contents, past_of
from streamkit.runtime.dead_letters import keep_receipts
from streamkit.runtime.marks import setup_id
from streamkit.runtime.options import RunOptions
from streamkit.runtime.position import Position
from streamkit.runtime.replay_plan import ReplayJournal, ReplayPlan, StoreBefore
from streamkit.runtime.replaying import Rerun
from streamkit.runtime.restore import RebuildProgress, Restorer
from streamkit.runtime.setup import count_tasks
from streamkit.runtime.shards import list_shards
from streamkit.runtime.task_plan import task_id, transactional_id
from streamkit.seams import Clock, FileSystem
from streamkit.state import POSITION_KEY, Digest, RocksDBResources, RocksDBStore, StateDirectory, store_range
from streamkit.state.ranges import RangeDigests
from streamkit.topology import StoreSpec, Topology
from streamkit.topology.names import dead_letter_topic

__all__ = ["REPLAY_STEPS", "Replay", "ReplayEnvironment", "emptied_topics"]

_REMOVING_THREADS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayEnvironment:
    """What a replay needs beside the job.

    Args:
        broker: Where the topics are.
        state_dir: The root of the state.
        options: How the inputs are run again.
        fs: For files.
        clock: Measures.
        told: Called now and then.
        observe: Told each step's name before it.
        kept: Sources of which nothing can have been removed: files.
    """

    broker: Broker
    state_dir: str
    options: RunOptions
    fs: FileSystem
    clock: Clock
    told: Callable[[RebuildProgress], None] = lambda _: None
    observe: Observe = unobserved
    kept: Collection[str] = ()


def emptied_topics(topology: Topology, broker: Broker) -> list[str]:
    """Return the topics whose records a replay removes: sinks, dead letters, internal ones, as far as they exist."""
    there = broker.admin.describe_topics()
    outputs = (*_sinks(topology), dead_letter_topic(topology.job))
    return [topic for topic in (*outputs, *_repartitions(topology), *_changelogs(topology)) if topic in there]


class Replay:
    """One replay of one job.

    Args:
        topology: Of the job.
        environment: Of the replay.
        begin: Where it begins: `EARLIEST`, or a timestamp in ms.
    """

    def __init__(self, topology: Topology, environment: ReplayEnvironment, begin: OffsetSpec = EARLIEST) -> None:
        """Change nothing yet."""
        self._topology, self._environment, self._begin = topology, environment, begin
        self._broker, self._job = environment.broker, topology.job
        self._journal = ReplayJournal(self._broker, self._job)
        self._producer: Producer | None = None
        self._plan: ReplayPlan | None = None
        self._comparisons: list[Comparison] = []

    def run(self) -> list[Comparison]:
        """Take all steps, or those that an earlier replay did not come to.

        Returns:
            What comparing each store with what it was before came to. A difference is there for `check_equal`; the
            replay has ended all the same, and its state is the one that goes on.

        Raises:
            ConfigError: Workers of the job run, the job has not run, an earlier replay began elsewhere, or an output
                cannot be removed. Nothing was changed.
            ProducerFencedError: Somebody else replays the job now.
            StreamkitError: What stopped the run. The same replay goes on from there.
        """
        try:
            for step in REPLAY_STEPS:
                self._environment.observe(step.__name__)
                step(self)
        finally:
            if self._producer is not None:
                self._producer.close()
        return self._comparisons

    @property
    def finished(self) -> bool:
        """Whether the run that was replayed is a bounded one, and has ended; known once all steps were taken."""
        return self._known.past.finished

    def check_alone(self) -> None:
        """Refuse while workers of the job run."""
        members = self._broker.group(self._job).members()
        if members:
            raise ConfigError(
                f"workers of job {self._job} are running: {', '.join(sorted(member.id for member in members))}",
                hint="stop them first; on Kafka a worker that was killed is a member until its session ends",
            )

    def take_job(self) -> None:
        """Fence whoever replays the job, whoever fixes a run of it, and every task."""
        self._producer = self._broker.producer(transactional_id(self._job, "replay"))
        self._broker.producer(setup_id(self._job)).close()
        for name in self._task_ids():
            self._broker.producer(transactional_id(self._job, name)).close()

    def write_plan(self) -> None:
        """Go on with the plan that is there, or write down what is, and is to be done."""
        self._plan = self._journal.read()
        if self._plan is None:
            self._plan = self._made_plan()
            self._journal.write_plan(self._open_producer, self._plan)
        elif self._plan.begin != self._begin:
            raise ConfigError(
                f"an earlier replay of job {self._job} began elsewhere, and has not ended",
                hint="give the same --from; once it has ended another replay can begin where you like",
            )

    def keep_receipts(self) -> None:
        """Keep which records were sent back: what is removed as an output knows it, and they stay in the sources."""
        if not self._journal.reset:
            keep_receipts(self._broker, self._job, self._open_producer)

    def remove_changelogs(self) -> None:
        """Delete the changelog topics; the run makes them anew."""
        there = self._broker.admin.describe_topics()
        for topic in self._resetting(_changelogs(self._topology)):
            if topic in there:
                self._broker.admin.delete_topic(topic)

    def remove_blocks(self) -> None:
        """Empty the repartition topics."""
        self._remove_records(self._block_ends())

    def set_offsets(self) -> None:
        """Commit what a first run would begin with."""
        if not self._journal.reset:
            blocks = {place: CommittedOffset(offset=end) for place, end in self._block_ends().items()}
            self._broker.group(self._job).commit({**blocks, **self._known.past.notes(self._known.starts)})

    def remove_state(self) -> None:
        """Empty the state directories of this machine; others are of another log's place, and set aside when opened."""
        with ThreadPoolExecutor(_REMOVING_THREADS, thread_name_prefix="streamkit-remove") as threads:
            # Each waits for the disk several times: one after the other they were half of what comes before the run.
            deque(threads.map(self._remove_state_of, self._resetting(self._task_ids())), maxlen=0)

    def _remove_state_of(self, name: str) -> None:
        directory = self._directory(name)
        try:
            directory.empty()
        finally:
            directory.close()

    def remove_outputs(self) -> None:
        """Remove what the job had written, up to where it ended when the plan was made; offsets go on."""
        if not self._journal.reset:
            self._remove_records(self._known.outputs)

    def _remove_records(self, before: Mapping[TopicPartition, int]) -> None:
        if before:
            self._broker.admin.delete_records(before)

    def write_reset(self) -> None:
        """From here on the run goes on, whatever happens."""
        if not self._journal.reset:
            self._journal.write_reset(self._open_producer)

    def run_inputs(self) -> None:
        """Run the inputs again, to where the job had been."""
        environment = self._environment
        options = replace(environment.options, state_dir=environment.state_dir, replaying=True)
        Rerun(
            topology=self._topology,
            sources=self._broker,
            rest=self._broker,
            past=self._known.past,
            options=options,
            fs=environment.fs,
            clock=environment.clock,
            told=environment.told,
        ).run()

    def compare(self) -> None:
        """Compare each store with what it was."""
        self._bring_forward()
        before = {(one.task, one.store): one for one in self._known.stores}
        self._comparisons = []
        for task in stateful_tasks(self._topology, self._broker):
            path = f"{self._environment.state_dir}/{self._job}/{task.task_id}/rocksdb"
            with contextlib.closing(RocksDBStore(path, resources=RocksDBResources(), read_only=True)) as after:
                for spec in task.sub.stores:
                    was = before.get((task.task_id, spec.name))
                    self._comparisons.append(self._compared(task.task_id, spec, was, after))

    def _bring_forward(self) -> None:
        """See to it that the state is what was committed: a replay that was killed may have ended without it."""
        environment = self._environment
        committed = {shard.task: shard.transaction for shard in list_shards(self._topology, self._broker)}
        tasks = stateful_tasks(self._topology, self._broker)
        if any(self._transaction_of(task.task_id) != committed[task.task_id] for task in tasks):
            Restorer(
                self._topology, self._broker, fs=environment.fs, clock=environment.clock, told=environment.told
            ).restore(environment.state_dir)

    def _transaction_of(self, task: str) -> int | None:
        try:
            with self._state_of(task) as (_, position):
                return None if position is None else position.transaction
        except StoreDamagedError:
            return None

    def remove_plan(self) -> None:
        """Let workers start again."""
        self._journal.remove()

    @property
    def _known(self) -> ReplayPlan:
        assert self._plan is not None, "the plan was written in an earlier step"
        return self._plan

    @property
    def _open_producer(self) -> Producer:
        assert self._producer is not None, "the job was taken in an earlier step"
        return self._producer

    def _resetting(self, names: list[str]) -> list[str]:
        return [] if self._journal.reset else names

    def _task_ids(self) -> list[str]:
        counts = count_tasks(self._topology, self._broker.admin.describe_topics())
        return [task_id(index, partition) for index, count in counts.items() for partition in range(count)]

    def _directory(self, name: str) -> StateDirectory:
        environment = self._environment
        return StateDirectory.open(
            environment.fs, environment.state_dir, job=self._job, task=name, log_id=self._broker.admin.log_id()
        )

    def _made_plan(self) -> ReplayPlan:
        # Not asked of the group: after an outage of all of Kafka's brokers its answer may be an older one.
        source = next(topic for sub in self._topology.sub_topologies for topic in sub.source_topics)
        committed = self._open_producer.committed(self._job, TopicPartition(source, 0))
        past = past_of(self._topology, self._broker, committed, self._environment.kept)
        if not past.marks:
            raise ConfigError(f"job {self._job} has not run: there is nothing to replay", hint="streamkit run JOB")
        found = self._broker.admin.list_offsets(dict.fromkeys(past.ends, self._begin))
        starts = {place: min(start, past.ends[place]) for place, start in found.items()}
        if not past.obstacle:
            past = replace(past, obstacle=_other_start(past.begins, starts))
        return ReplayPlan(
            begin=self._begin,
            starts=starts,
            past=past,
            outputs=self._output_ends(),
            stores=self._stores_before(past),
        )

    def _output_ends(self) -> Mapping[TopicPartition, int]:
        sources = {topic for sub in self._topology.sub_topologies for topic in sub.source_topics}
        there = self._broker.admin.describe_topics()
        # What was set aside is an output too: what is still bad is set aside again.
        sinks = [topic for topic in (*_sinks(self._topology), dead_letter_topic(self._job)) if topic in there]
        for topic in sinks:
            if topic in sources:
                raise ConfigError(f"job {self._job} reads {topic!r} and writes it: its outputs cannot be told apart")
            if there[topic].config.get("cleanup.policy") == "compact":
                raise ConfigError(
                    f"the records of {topic!r} cannot be removed: its cleanup.policy is compact",
                    hint="set it to compact,delete, or delete the topic; a run makes it anew",
                )
        places = [TopicPartition(topic, part) for topic in sinks for part in range(there[topic].partition_count)]
        return self._broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE))

    def _stores_before(self, past: Past) -> list[StoreBefore]:
        """Digest what the stores are: the state that is here if it is what was committed last, else the changelogs."""
        if past.obstacle:
            # Nothing will be compared.
            return []
        environment = self._environment
        scratch = f"{environment.state_dir}/{self._job}@replay"
        restorer = Restorer(
            self._topology, self._broker, fs=environment.fs, clock=environment.clock, told=environment.told
        )
        committed = {shard.task: shard.transaction for shard in list_shards(self._topology, self._broker)}
        before: list[StoreBefore] = []
        try:
            environment.fs.make_dirs(environment.state_dir)
            environment.fs.remove(scratch)
            environment.fs.make_dirs(scratch)
            for task in restorer.tasks():
                here = self._state_before(task, committed[task.task_id], past.run_count)
                before += here or _folded(restorer, task, f"{scratch}/{task.task_id}", past.run_count)
        except UnknownTopicError:
            return []
        finally:
            environment.fs.remove(scratch)
        return before

    def _state_before(self, task: StatefulTask, transaction: int, run_count: int) -> list[StoreBefore]:
        """Return what the state that is here has, nothing if it is not exactly what was committed last."""
        found: list[StoreBefore] = []
        try:
            with self._state_of(task.task_id) as (store, position):
                if store is None or position is None or position.transaction != transaction:
                    return []
                for spec in task.sub.stores:
                    ranges = RangeDigests.of(store.scan(*store_range(spec.index)))
                    if ranges.total.to_text() != position.digests.get(spec.name, Digest().to_text()):
                        return []
                    if run_count > 1:
                        ranges = RangeDigests.of(contents(store, spec, any_run=True))
                    found.append(StoreBefore(task=task.task_id, store=spec.name, ranges=ranges, obstacle=""))
        except StoreDamagedError:
            return []
        return found

    @contextlib.contextmanager
    def _state_of(self, task: str) -> Iterator[tuple[RocksDBStore | None, Position | None]]:
        """Open the state of a task, to be looked at, with the position that it stands for."""
        path = f"{self._environment.state_dir}/{self._job}/{task}"
        if "rocksdb" not in self._environment.fs.list(path):
            yield None, None
            return
        with contextlib.closing(RocksDBStore(f"{path}/rocksdb", resources=RocksDBResources(), read_only=True)) as store:
            (stamp,) = store.get_many([POSITION_KEY])
            data = orjson.loads(stamp or b'{"log": null}')
            ours = data["log"] == self._broker.admin.log_id()
            yield store, Position.from_json(data["position"]) if ours else None

    def _block_ends(self) -> dict[TopicPartition, int]:
        there = self._broker.admin.describe_topics()
        topics = [topic for topic in self._resetting(_repartitions(self._topology)) if topic in there]
        places = [TopicPartition(topic, part) for topic in topics for part in range(there[topic].partition_count)]
        return dict(self._broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE)))

    def _compared(self, task: str, spec: StoreSpec, before: StoreBefore | None, after: RocksDBStore) -> Comparison:
        obstacle = self._known.past.obstacle or ("it had no changelog" if before is None else before.obstacle)
        if before is None or obstacle:
            digest = RangeDigests.of(after.scan(*store_range(spec.index))).total.to_text()
            return Comparison(task=task, spec=spec, side="replay", equal=None, reason=obstacle, digest=digest)
        was = RestoredStore(
            task=task, spec=spec, ranges=before.ranges, said=None, position=None, record_count=0, faults=()
        )
        return compare_stores(was, after, "replay", run_count=self._known.past.run_count)


def _other_start(begins: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int]) -> str:
    """Return why a replay does not come to the state that was there; empty if it begins where that does."""
    for place, begin in sorted(begins.items()):
        if starts[place] != begin:
            return f"the state was made from {place} from offset {begin} on, the replay begins at {starts[place]}"
    return ""


def _folded(restorer: Restorer, task: StatefulTask, path: str, run_count: int) -> list[StoreBefore]:
    """Return what a changelog has; one that is damaged is no obstacle to the replay, which mends it."""
    try:
        folded = restorer.build(task, path)
        if run_count > 1:
            with contextlib.closing(RocksDBStore(path, resources=RocksDBResources(), read_only=True)) as made:
                return [
                    replace(_before(one), ranges=RangeDigests.of(contents(made, one.spec, any_run=True)))
                    for one in folded
                ]
        return [_before(store) for store in folded]
    except DigestMismatchError as error:
        nothing = RangeDigests([b""], [Digest()])
        return [
            StoreBefore(task=task.task_id, store=spec.name, ranges=nothing, obstacle=error.primary)
            for spec in task.sub.stores
        ]


def _before(store: RestoredStore) -> StoreBefore:
    obstacle = "" if store.right else "the changelog was damaged"
    if store.faults:
        obstacle += f": {store.faults[0].reason}"
    return StoreBefore(task=store.task, store=store.spec.name, ranges=store.ranges, obstacle=obstacle)


def _sinks(topology: Topology) -> list[str]:
    return sorted({topic for sub in topology.sub_topologies for topic in sub.sink_topics})


def _repartitions(topology: Topology) -> list[str]:
    return [repartition.topic for repartition in topology.repartitions]


def _changelogs(topology: Topology) -> list[str]:
    return [spec.changelog_topic for sub in topology.sub_topologies for spec in sub.stores]


REPLAY_STEPS: Final[tuple[Callable[[Replay], None], ...]] = (
    Replay.check_alone,
    Replay.take_job,
    Replay.write_plan,
    Replay.keep_receipts,
    Replay.remove_changelogs,
    Replay.remove_blocks,
    Replay.set_offsets,
    Replay.remove_state,
    Replay.remove_outputs,
    Replay.write_reset,
    Replay.run_inputs,
    Replay.compare,
    Replay.remove_plan,
)
