"""A whole machine in memory, for properties: log, stores and tasks, with a schedule that a seed draws.

It runs the production tasks and the production commit; only the order in which tasks fetch, compute and commit is
drawn, and a crash can be placed at any step of any commit. A crash loses what the log's files had not synced and what
the stores had not flushed.
"""

import itertools
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import orjson

from streamkit import Job
from streamkit.broker import LATEST, open_broker
from streamkit.graph import Aggregation
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime.comparing import Past
from streamkit.runtime.options import Guarantee, RunOptions
from streamkit.runtime.reading import read_to
from streamkit.runtime.runner import RunnerEnvironment, TaskRunner
from streamkit.runtime.setup import prepare
from streamkit.runtime.shadow import ShadowBroker
from streamkit.runtime.stores import MemoryStores
from streamkit.runtime.task_plan import unchecked
from streamkit.seams import ManualClock, ManualEventLoop, MemoryFileSystem, SeededRng
from streamkit.state import POSITION_KEY, Digest, MemoryStore, store_range
from streamkit.topology import compile_graph

STEPS_MAX = 100_000
"""Of a bounded run: of the drawn jobs, few take 1,000."""


class Crashed(BaseException):
    """The machine lost its power."""


def after(gaps: Sequence[int]) -> Callable[[str], None]:
    """Crash after so many steps, and so many more, and so on."""
    upcoming: Iterator[int] = iter(itertools.accumulate(gaps))
    seen, due = [0], [next(upcoming, None)]

    def crash_at(step: str) -> None:
        seen[0] += 1
        if due[0] is not None and seen[0] >= due[0]:
            due[0] = next(upcoming, None)
            raise Crashed

    return crash_at


def at(step: str, nth: int) -> Callable[[str], None]:
    """Crash the n-th time, from 0, that a step is reached."""
    seen = [0]

    def crash_at(name: str) -> None:
        if name == step:
            seen[0] += 1
            if seen[0] == nth + 1:
                raise Crashed

    return crash_at


class Machine:
    """One machine; `crash_at` is told every step of every opening and commit, and may raise `Crashed`."""

    def __init__(self, job: Job, partitions: dict[str, int], *, guarantee: Guarantee = "exactly-once") -> None:
        self.topology = compile_graph(job.build())
        self.clock = ManualClock()
        self.event_loop = ManualEventLoop(self.clock)
        weakref.finalize(self, self.event_loop.close)
        self.fs = MemoryFileSystem()
        # One for all boots: a topic that is made anew is another one.
        self.rng = SeededRng(0)
        self.stores = MemoryStores()
        self.guarantee = guarantee
        self.crash_at: Callable[[str], None] = lambda step: None
        self.runners: list[TaskRunner] = []
        self.survivors: tuple[MemoryFileSystem, dict[str, MemoryStore]] | None = None
        self.boot()
        for topic, count in partitions.items():
            self.broker.admin.create_topic(topic, count)

    def boot(self) -> None:
        self.broker = open_broker("memory://", fs=self.fs, clock=self.clock, rng=self.rng)

    def send(self, topic: str, partition: int, rows: list[tuple[bytes | None, bytes, int]]) -> None:
        """Append (key, value, timestamp) rows, each as a record batch of its own so that any cut is possible."""
        producer = self.broker.producer()
        for key, value, stamp in rows:
            records = EncodedRecords.to_append(timestamps_ms=[stamp], keys=[key], values=[value])
            producer.send(TopicPartition(topic, partition), records)
        producer.flush()
        producer.close()

    def open(self, *, bounded: bool = True, go_on: bool = False, replayed: Past | None = None) -> bool:
        """Open all tasks, which brings their stores forward; return whether there is anything to do.

        With `replayed` the run is that of a replay, which reads the sources to where they had been read.
        """
        options = RunOptions(bounded=bounded, go_on=go_on, guarantee=self.guarantee)
        if replayed is not None:
            options = replace(options, replaying=True)
        broker = self.broker if replayed is None else ShadowBroker(self.broker, self.broker, replayed.ends)
        plan = prepare(self.topology, broker, options, unchecked, self._observe)
        environment = RunnerEnvironment(
            broker=broker,
            stores=self.stores,
            clock=self.clock,
            options=options,
            observe=self._observe,
            event_loop=self.event_loop,
        )
        self.runners = [TaskRunner(task, environment) for task in plan.tasks]
        self.fetcher = broker.fetcher()
        return not plan.finished

    def close(self) -> None:
        for runner in self.runners:
            runner.close()
        self.runners = []

    def _observe(self, step: str) -> None:
        try:
            self.crash_at(step)
        except Crashed:
            # What dies now closes nothing: whatever is closed or flushed on the way up happens to another machine.
            self.survivors = self._survivors()
            raise

    def _survivors(self) -> tuple[MemoryFileSystem, dict[str, MemoryStore]]:
        return self.fs.crashed(), {task_id: store.survivor() for task_id, store in self.stores.stores.items()}

    def crash(self, *, lose_state: bool = False) -> None:
        """Lose the power: unsynced bytes and unflushed stores are gone, with `lose_state` the stores altogether."""
        self.runners = []
        self.fs, stores = self.survivors or self._survivors()
        self.survivors = None
        self.stores = MemoryStores()
        self.stores.stores = {} if lose_state else stores
        self.boot()

    def step(self, rng: random.Random) -> None:
        """Let one task, drawn, fetch some of its inputs, or commit."""
        runner = rng.choice(self.runners)
        if runner.task.dirty and (rng.random() < 0.3 or runner.task.ended):
            sealed = runner.seal()
            if sealed is None:
                runner.rewind()
            else:
                runner.finish(sealed)
            return
        positions = runner.task.positions()
        some = {place: position for place, position in positions.items() if rng.random() < 0.7}
        for part in self.fetcher.fetch(some, wait_ms=0, bytes_max=rng.choice([1, 200, 1000, 100_000])):
            runner.feed(part)
            if runner.rewinding:
                runner.rewind()
                return

    @property
    def finished(self) -> bool:
        return all(runner.task.finished for runner in self.runners)

    def finish(self, rng: random.Random) -> None:
        """Step a bounded run until it has come to its end; one that has not after `STEPS_MAX` never will."""
        for _ in range(STEPS_MAX):
            if self.finished:
                return
            self.step(rng)
        raise AssertionError(f"wait for ever: {[one.task.task_id for one in self.runners if not one.task.finished]}")

    def drain(self, rng: random.Random) -> None:
        """Step an unbounded run until everything there is was read and committed."""
        for _ in range(STEPS_MAX // 10):
            for _ in range(10):
                self.step(rng)
            positions = {place: at for runner in self.runners for place, at in runner.task.positions().items()}
            if not any(runner.task.dirty for runner in self.runners) and not self.fetcher.fetch(
                positions, wait_ms=0, bytes_max=1
            ):
                return
        raise AssertionError("it never comes to rest")

    def run_bounded(self, rng: random.Random, *, go_on: bool = False) -> int:
        """Run a bounded run to its end, over every crash; return how many crashes there were."""
        return self.run(rng, bounded=True, go_on=go_on)

    def run(self, rng: random.Random, *, bounded: bool, go_on: bool = False, state_losses: float = 0.0) -> int:
        """Run to the end, or until nothing is left to read, over every crash; return how many crashes there were.

        At each opening and at the end the digest of every store must be that of its contents.

        Args:
            rng: Draws the schedule.
            bounded: Which kind of run.
            go_on: Begin another bounded run, if the last one is finished.
            state_losses: In how many of the crashes the state directories are lost too.
        """
        crashes = 0
        while True:
            try:
                # Once the next run was fixed it is resumed; before, it is still to begin.
                self.open(bounded=bounded, go_on=go_on)
                self.check_digests()
                go_on = False
                if bounded:
                    self.finish(rng)
                else:
                    self.drain(rng)
                self.close()
                self.check_digests()
                return crashes
            except Crashed:
                crashes += 1
                self.crash(lose_state=rng.random() < state_losses)

    def read(self, topic: str) -> list[tuple[bytes | None, bytes | None, int]]:
        """Return (key, value, timestamp) of every committed record."""
        return [row for rows in self.read_partitions(topic) for row in rows]

    def read_partitions(self, topic: str) -> list[list[tuple[bytes | None, bytes | None, int]]]:
        """Return the same by partition."""
        partitions = []
        fetcher = self.broker.fetcher()
        for partition in range(self.broker.admin.describe_topics()[topic].partition_count):
            rows: list[tuple[bytes | None, bytes | None, int]] = []
            for records in read_to(self.broker, fetcher, TopicPartition(topic, partition), None):
                rows.extend(zip(records.keys, records.values, records.timestamps_ms.tolist(), strict=True))
            partitions.append(rows)
        return partitions

    def state(self) -> dict[str, dict[bytes, bytes]]:
        """Return the contents of every store, without the position."""
        contents = {}
        for task_id, store in self.stores.stores.items():
            pairs = dict(store.survivor().scan(b"", b"\xff" * 16))
            contents[task_id] = {key: value for key, value in pairs.items() if key != POSITION_KEY}
        return contents

    def contents(self) -> tuple[dict[str, dict[bytes, bytes]], dict[str, str]]:
        """Return what is in each store, and the digests that the positions say, all shards of one together.

        In a fold without windows the number of the run that changed a value leads it; it is left out.
        """
        folds = {node.name for node in self.topology.graph.nodes if isinstance(node, Aggregation)}
        contents: dict[str, dict[bytes, bytes]] = {}
        digests: dict[str, Digest] = {}
        for task_id, store in self.stores.stores.items():
            pairs = dict(store.survivor().scan(b"", b"\xff" * 16))
            said = orjson.loads(pairs[POSITION_KEY])["position"]["d"] if POSITION_KEY in pairs else {}
            for spec in self.topology.sub_topologies[int(task_id.split("_")[0])].stores:
                begin, end = store_range(spec.index)
                some = {key: value for key, value in pairs.items() if begin <= key < end and key != POSITION_KEY}
                whole = contents.setdefault(spec.name, {})
                assert not whole.keys() & some.keys(), "a key lives in one shard"
                led = spec.name in folds and not spec.windowed
                whole.update({key: value[4:] for key, value in some.items()} if led else some)
                digest = Digest.from_text(said.get(spec.name, "0:0"))
                digests[spec.name] = digests.get(spec.name, Digest()).plus(digest)
        return contents, {name: digest.to_text() for name, digest in digests.items()}

    def check_digests(self) -> None:
        """Digest each store's contents anew, and compare with what its position says, whatever crashes led to it."""
        for task_id, store in self.stores.stores.items():
            readable = store if self.runners else store.survivor()
            (stamp,) = readable.get_many([POSITION_KEY])
            said = {} if stamp is None else orjson.loads(stamp)["position"]["d"]
            for spec in self.topology.sub_topologies[int(task_id.split("_")[0])].stores:
                pairs, made = dict(readable.scan(*store_range(spec.index))), Digest()
                made.add(list(pairs), list(pairs.values()))
                assert made == Digest.from_text(said.get(spec.name, "0:0")), f"digest of {spec.name} in {task_id}"

    def committed(self) -> dict[TopicPartition, int]:
        group = self.broker.group(self.topology.job)
        return {place: committed.offset for place, committed in group.committed().items()}

    def ends(self, topic: str) -> list[int]:
        count = self.broker.admin.describe_topics()[topic].partition_count
        places = [TopicPartition(topic, partition) for partition in range(count)]
        offsets = self.broker.admin.list_offsets(dict.fromkeys(places, LATEST))
        return [offsets[place] for place in places]
