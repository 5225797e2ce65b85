"""Verify: is the state of a job what its changelogs say, and are they what its inputs give?

In a scratch directory the changelogs are restored and, with a log of its own, the inputs are run again; the state
directory is only looked at. Nothing is written where the job lives, and nobody is fenced.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import orjson

from streamkit.broker import Broker, open_broker
from streamkit.errors import StoreDamagedError, StoreInUseError
from streamkit.runtime.changelogs import RestoredStore, StatefulTask
from streamkit.runtime.comparing import Comparison, Past, Side, compare_stores, contents, past_of
from streamkit.runtime.folding import Fault
from streamkit.runtime.options import RunOptions
from streamkit.runtime.position import Position
from streamkit.runtime.replaying import Rerun
from streamkit.runtime.restore import RebuildProgress, Restorer
from streamkit.runtime.setup import check_not_replayed
from streamkit.seams import Clock, FileSystem
from streamkit.state import POSITION_KEY, Digest, RocksDBResources, RocksDBStore, store_range
from streamkit.state.ranges import RangeDigests
from streamkit.topology import Topology

__all__ = ["Verification", "prepare_rerun"]

_STORE, _RECORD_LIMIT = "rocksdb", "max.message.bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Restored:
    """The stores of one task in the scratch directory, and what they were compared with there."""

    task: StatefulTask
    path: str
    stores: list[RestoredStore]


class Verification:
    """Verifies one job.

    Args:
        topology: Of the job.
        broker: Where its topics are.
        state_dir: The root of its state; the scratch directory is made there, as `<job>@verify`.
        options: How its inputs are run again.
        fs: For files.
        clock: Measures.
    """

    def __init__(
        self, topology: Topology, broker: Broker, *, state_dir: str, options: RunOptions, fs: FileSystem, clock: Clock
    ) -> None:
        """Read nothing yet."""
        self._topology, self._broker, self._state_dir = topology, broker, state_dir
        self._options, self._fs, self._clock = options, fs, clock
        self._resources = RocksDBResources()
        # No job can have this name.
        self._scratch = f"{state_dir}/{topology.job}@verify"

    def run(
        self, told: Callable[[RebuildProgress], None], *, shadow: bool = True, kept: Collection[str] = ()
    ) -> list[Comparison]:
        """Compare each store of each task with its changelog, its state directory and a replay.

        Args:
            told: Called now and then.
            shadow: Whether the inputs are run again.
            kept: Sources of which nothing can have been removed: files.

        Raises:
            ConfigError: The job is being replayed.
            UnknownTopicError: The job has not run.
            StoreInUseError: Another verification of the job is under way.

        Cost: a restore and a replay, and room for both below the state directory until the end.
        """
        check_not_replayed(self._topology.job, self._broker.admin.describe_topics())
        with self._scratch_held():
            committed = self._broker.group(self._topology.job).committed()
            past = past_of(self._topology, self._broker, committed, kept)
            restored = self._restore(told)
            comparisons = [_with_changelog(store) for one in restored for store in one.stores]
            comparisons += [found for one in restored for found in self._with_state(one)]
            if shadow:
                comparisons += self._with_replay(restored, past, told)
        return comparisons

    @contextlib.contextmanager
    def _scratch_held(self) -> Iterator[None]:
        self._fs.make_dirs(self._state_dir)
        lock = self._fs.lock(f"{self._scratch}.lock")
        if lock is None:
            raise StoreInUseError(
                f"job {self._topology.job} is being verified already", detail=f"{self._scratch}.lock is held"
            )
        try:
            self._fs.remove(self._scratch)
            self._fs.make_dirs(self._scratch)
            yield
        finally:
            self._fs.remove(self._scratch)
            lock.close()

    def _restore(self, told: Callable[[RebuildProgress], None]) -> list[_Restored]:
        restorer = Restorer(self._topology, self._broker, fs=self._fs, clock=self._clock, told=told)
        made = []
        for task in restorer.tasks():
            path = f"{self._scratch}/{task.task_id}"
            made.append(_Restored(task=task, path=path, stores=restorer.build(task, path)))
        return made

    def _with_state(self, restored: _Restored) -> list[Comparison]:
        """Compare with the state directory, if there is one and nobody uses it."""
        task_id = restored.task.task_id
        path = f"{self._state_dir}/{self._topology.job}/{task_id}"
        if _STORE not in self._fs.list(path):
            return [_not_comparable(store, "state", "there is none on this machine") for store in restored.stores]
        lock = self._fs.lock(f"{path}.lock")
        if lock is None:
            return [_not_comparable(store, "state", "a worker uses it") for store in restored.stores]
        try:
            with (
                contextlib.closing(self._opened(f"{path}/{_STORE}")) as state,
                contextlib.closing(self._opened(restored.path)) as changelog,
            ):
                return [
                    self._state_of(store, state, changelog, complete=number == 0)
                    for number, store in enumerate(restored.stores)
                ]
        except StoreDamagedError as error:
            return [_differs(store, "state", f"{error.primary}: {error.detail}") for store in restored.stores]
        finally:
            lock.close()

    def _opened(self, path: str) -> RocksDBStore:
        return RocksDBStore(path, resources=self._resources, read_only=True)

    def _state_of(
        self, store: RestoredStore, state: RocksDBStore, changelog: RocksDBStore, *, complete: bool
    ) -> Comparison:
        """Compare at the position of the state, which may be older than the changelog's.

        Args:
            store: As it was restored.
            state: The state directory.
            changelog: What was restored.
            complete: Whether its changelog has a position of every transaction of the task: it is the first store.
        """
        (stamp,) = state.get_many([POSITION_KEY])
        if stamp is None:
            return _not_comparable(store, "state", "it stands for no position")
        data = orjson.loads(stamp)
        if data["log"] != self._broker.admin.log_id():
            return _not_comparable(store, "state", "it is of another log")
        position = Position.from_json(data["position"])
        newest = 0 if store.position is None else store.position.transaction
        if store.position is not None and position.inputs == store.position.inputs:
            return compare_stores(store, state, "state", changelog)
        said = Digest.from_text(position.digests.get(store.spec.name, Digest().to_text()))
        if RangeDigests.of(state.scan(*store_range(store.spec.index))).total != said:
            return _differs(store, "state", f"it is not what it was at its transaction {position.transaction}")
        if position.transaction > newest and complete:
            return _differs(
                store, "state", f"it stands for transaction {position.transaction}, the changelog ends at {newest}"
            )
        return replace(
            _not_comparable(store, "state", ""),
            equal=True,
            reason=f"at its own transaction {position.transaction}: the changelog is at {newest}",
        )

    def _with_replay(
        self, restored: list[_Restored], past: Past, told: Callable[[RebuildProgress], None]
    ) -> list[Comparison]:
        every = [store for one in restored for store in one.stores]
        if past.obstacle:
            return [_not_comparable(store, "replay", past.obstacle) for store in every]
        log = f"{self._scratch}/log"
        with contextlib.closing(open_broker(f"log://{log}?durability=os", fs=self._fs, clock=self._clock)) as rest:
            prepare_rerun(rest, self._broker, past, self._topology)
            options = replace(self._options, state_dir=f"{self._scratch}/state")
            Rerun(
                topology=self._topology,
                sources=self._broker,
                rest=rest,
                past=past,
                options=options,
                fs=self._fs,
                clock=self._clock,
                told=told,
            ).run()
        compared = []
        for one in restored:
            path = f"{self._scratch}/state/{self._topology.job}/{one.task.task_id}/{_STORE}"
            if not self._fs.list(path):
                # Where nothing is to be read a run may end before it opens this task.
                self._fs.make_dirs(path)
                RocksDBStore(path, resources=self._resources).close()
            with (
                contextlib.closing(self._opened(path)) as replayed,
                contextlib.closing(self._opened(one.path)) as changelog,
            ):
                compared += [
                    compare_stores(
                        _of_any_run(store, changelog, past.run_count),
                        replayed,
                        "replay",
                        changelog,
                        run_count=past.run_count,
                    )
                    for store in one.stores
                ]
        return compared


def prepare_rerun(rest: Broker, sources: Broker, past: Past, topology: Topology) -> None:
    """Set the offsets of a job in another broker to where its state begins; its sources are made there, empty.

    So are its sinks: what they take decides which records are bad.
    """
    described = sources.admin.describe_topics()
    sinks = {topic for sub in topology.sub_topologies for topic in sub.sink_topics} & described.keys()
    for topic in (*past.partition_counts, *sorted(sinks - past.partition_counts.keys())):
        config = {name: value for name, value in described[topic].config.items() if name == _RECORD_LIMIT}
        rest.admin.create_topic(topic, described[topic].partition_count, config)
    rest.group(topology.job).commit(past.notes(past.begins))


def _with_changelog(store: RestoredStore) -> Comparison:
    if store.right:
        reason = "" if store.said is not None else "nothing was committed"
        equal = None if store.said is None else True
        return Comparison(task=store.task, spec=store.spec, side="changelog", equal=equal, reason=reason)
    if store.faults:
        return Comparison(
            task=store.task,
            spec=store.spec,
            side="changelog",
            equal=False,
            reason=store.faults[0].reason,
            faults=store.faults,
        )
    return _differs(store, "changelog", "its last values do not have the digest that its last position says")


def _of_any_run(store: RestoredStore, contained: RocksDBStore, run_count: int) -> RestoredStore:
    if run_count == 1:
        return store
    return replace(store, ranges=RangeDigests.of(contents(contained, store.spec, any_run=True)))


def _differs(store: RestoredStore, side: Side, reason: str) -> Comparison:
    fault = Fault(store=store.spec, where=f"task {store.task}", reason=f"the {side}: {reason}")
    return replace(_not_comparable(store, side, reason), equal=False, faults=(fault,))


def _not_comparable(store: RestoredStore, side: Side, reason: str) -> Comparison:
    return Comparison(task=store.task, spec=store.spec, side=side, equal=None, reason=reason)
