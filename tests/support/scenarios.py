"""Small jobs, one for each kind of node, and what a machine must answer after running them."""

import asyncio
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import orjson
from machine import Machine

from streamkit import AsyncCalls, Context, EventTime, Hopping, Job, Record, Tumbling, agg
from streamkit.records import TopicPartition
from streamkit.runtime import Guarantee

Rows = list[tuple[str, int, int]]
"""Sensor, value and timestamp (ms) of the records of one partition."""


class Reading(msgspec.Struct):
    sensor: str
    value: int
    ts: int


def ms(count: int) -> timedelta:
    return timedelta(milliseconds=count)


SLACK = EventTime("ts", out_of_orderness=ms(5))
FINE = Tumbling(ms(20), grace=ms(10))
HOPS = Hopping(ms(20), advance=ms(7), grace=ms(10))
"""The advance does not divide the size: a row is in two windows or in three."""


def columns() -> Job:
    """A shuffle of built-in aggregates."""
    job = Job("columns")
    readings = job.stream("readings", value=Reading, timestamp=SLACK)
    windows = readings.group_by("sensor", type=str, name="by_sensor", shards=3).window(FINE)
    how = {"n": agg.count(), "sum": agg.sum("value"), "max": agg.max("value"), "last": agg.last("value")}
    windows.agg(how, name="stats").to("out")
    windows.late.to("late")
    return job


def python() -> Job:
    """The same count, by Python functions and a merge."""
    job = Job("python")
    readings = job.stream("readings", value=Reading, timestamp=SLACK)

    def by_sensor(reading: Reading) -> str:
        return reading.sensor

    def count(total: int, reading: Reading) -> int:
        return total + 1

    windows = readings.group_by(by_sensor, shards=3).window(FINE)
    windows.aggregate(count, initial=int, merge=operator.add).to("out")
    windows.late.to("late")
    return job


def levels() -> Job:
    """A window's result feeds a larger window with grace, under another key, and its order matters there."""
    job = Job("levels")
    readings = job.stream("readings", value=Reading, timestamp="ts")
    small, large = Tumbling(ms(10), grace=ms(4)), Tumbling(ms(30), grace=ms(3))
    fine = readings.group_by("sensor", type=str, name="by_sensor", shards=2).window(small)
    counts = fine.agg({"n": agg.count()}, name="fine")

    def everything(row: dict[str, int]) -> str:
        return "all"

    coarse = counts.to_stream().group_by(everything, name="by_nothing", shards=1).window(large)
    coarse.agg(
        {"n": agg.sum("n"), "parts": agg.count(), "last": agg.last("n"), "first": agg.first("n")}, name="coarse"
    ).to("out")
    coarse.late.to("late")
    return job


def table() -> Job:
    """A table without windows behind a shuffle."""
    job = Job("table")
    readings = job.stream("readings", value=Reading, timestamp="ts")
    readings.group_by("sensor", type=str, name="by_sensor", shards=3).count(name="counts").to("out")
    return job


def merged() -> Job:
    """Two sources in one stream."""
    job = Job("merged")
    one = job.stream("readings", value=Reading, timestamp="ts")
    two = job.stream("more", value=Reading, timestamp=SLACK)
    windows = one.merge(two).group_by("sensor", type=str, name="by_sensor", shards=2).window(FINE)
    windows.agg({"n": agg.count(), "sum": agg.sum("value")}, name="stats").to("out")
    windows.late.to("late")
    return job


def branched() -> Job:
    """Each row on one of two ways."""
    job = Job("branched")
    readings = job.stream("readings", value=Reading, timestamp="ts")

    def even(reading: Reading) -> bool:
        return reading.value % 2 == 0

    yes, no = readings.branch(even)
    yes.to("even")
    windows = no.group_by("sensor", type=str, name="by_sensor", shards=2).window(FINE)
    windows.count(name="odd_counts").to("out")
    windows.late.to("late")
    return job


def reduced() -> Job:
    """A commutative reduce."""
    job = Job("reduced")
    numbers = job.stream("readings", value=Reading, timestamp="ts")

    def by_sensor(reading: Reading) -> str:
        return reading.sensor

    def larger(one: Reading, other: Reading) -> Reading:
        return max(one, other, key=lambda reading: (reading.value, reading.ts))

    windows = numbers.group_by(by_sensor, shards=2).window(FINE)
    windows.reduce(larger).to("out")
    windows.late.to("late")
    return job


def ordered() -> Job:
    """Folds that cannot merge, over a keyed source: in windows, and for ever."""
    job = Job("ordered")
    readings = job.stream("readings", key=str, value=Reading, timestamp="ts")

    def listed(values: list[int], reading: Reading) -> list[int]:
        return [*values, reading.value]

    def longest(one: Reading, other: Reading) -> Reading:
        return Reading(one.sensor, (one.value * 31 + other.value) % 1009, other.ts)

    windows = readings.group_by_key().window(FINE)
    windows.aggregate(listed, initial=list[int]).to("out")
    windows.late.to("late")
    readings.group_by_key().reduce(longest, commutative=False).to("folded")
    return job


def twice() -> Job:
    """Two aggregations over one shuffle, in both spellings."""
    job = Job("twice")
    readings = job.stream("readings", value=Reading, timestamp="ts")
    grouped = readings.group_by("sensor", type=str, name="by_sensor", shards=2)
    windows = grouped.window(FINE)
    windows.agg({"n": agg.count(), "min": agg.min("value")}, name="stats").to("out")
    windows.late.to("late")

    def total(sum_so_far: int, reading: Reading) -> int:
        return sum_so_far + reading.value

    grouped.aggregate(total, initial=int, merge=operator.add).to("totals")
    return job


def updated() -> Job:
    """Windows whose results are updates."""
    job = Job("updated")
    readings = job.stream("readings", value=Reading, timestamp="ts")
    windows = readings.group_by("sensor", type=str, name="by_sensor", shards=2).window(FINE, emit="update")
    windows.agg({"n": agg.count(), "sum": agg.sum("value")}, name="stats").to("out")
    windows.late.to("late")
    return job


def hopping() -> Job:
    """Overlapping windows of built-in aggregates behind a shuffle, and of them as updates."""
    job = Job("hopping")
    readings = job.stream("readings", value=Reading, timestamp=SLACK)
    grouped = readings.group_by("sensor", type=str, name="by_sensor", shards=3)
    windows = grouped.window(HOPS)
    how = {"n": agg.count(), "sum": agg.sum("value"), "max": agg.max("value"), "last": agg.last("value")}
    windows.agg(how, name="stats").to("out")
    windows.late.to("late")
    grouped.window(HOPS, emit="update").count(name="counts").to("counted")
    return job


def overlapping() -> Job:
    """Overlapping windows of Python functions: behind a shuffle, and in the order of a keyed source."""
    job = Job("overlapping")
    readings = job.stream("readings", key=str, value=Reading, timestamp=SLACK)

    def by_sensor(reading: Reading) -> str:
        return reading.sensor

    def count(total: int, reading: Reading) -> int:
        return total + 1

    def listed(values: list[int], reading: Reading) -> list[int]:
        return [*values, reading.value]

    windows = readings.group_by(by_sensor, shards=2).window(HOPS)
    windows.aggregate(count, initial=int, merge=operator.add).to("out")
    windows.late.to("late")
    readings.group_by_key().window(HOPS).aggregate(listed, initial=list[int]).to("lists")
    return job


def measured() -> Job:
    """Built-in aggregates that keep more than a number, in both spellings: in windows, and for ever."""
    job = Job("measured")
    readings = job.stream("readings", value=Reading, timestamp=SLACK)
    how = {
        "std": agg.std("value"),
        "top": agg.top_k("value", 2),
        "all": agg.collect("value"),
        "kinds": agg.distinct("value"),
        "about": agg.distinct("value", approx=True),
        "when": agg.arg_max("ts", by="value"),
    }
    windows = readings.group_by("sensor", type=str, name="by_sensor", shards=3).window(FINE)
    windows.agg(how, name="stats").to("out")
    windows.late.to("late")

    def loose(reading: Reading) -> dict[str, object]:
        return {"sensor": reading.sensor, "value": reading.value, "ts": reading.ts}

    def sensor(row: dict[str, object]) -> str:
        return str(row["sensor"])

    readings.map(loose).group_by(sensor, shards=2).agg(how, name="for_ever").to("totals")
    return job


def waiting() -> Job:
    """Async functions: one between plain ones before a shuffle, one over the results of windows, one behind a merge."""
    job = Job("waiting")
    one = job.stream("readings", key=str, value=Reading, timestamp=SLACK)
    two = job.stream("more", key=str, value=Reading, timestamp=SLACK)

    async def doubled(reading: Reading) -> Reading:
        await asyncio.sleep(abs(reading.value) % 3 / 1000)
        return Reading(reading.sensor, reading.value * 2, reading.ts)

    async def labelled(count: int) -> str:
        await asyncio.sleep(count % 2 / 1000)
        return f"{count} times"

    windows = one.map(doubled).group_by("sensor", type=str, name="by_sensor", shards=2).window(FINE)
    windows.agg({"n": agg.count(), "sum": agg.sum("value")}, name="stats").to("out")
    windows.late.to("late")
    windows.count(name="counts").to_stream().map(labelled).to("labels")
    one.merge(two).map(doubled, calls=AsyncCalls(at_once=2), name="both").to("doubled")
    return job


def uneven() -> Job:
    """A task with two inputs, one of which may end long before the other."""
    job = Job("uneven")
    one = job.stream("readings", key=str, value=Reading, timestamp="ts")
    two = job.stream("more", key=str, value=Reading, timestamp="ts")
    one.group_by_key().count(name="counts").to("counted")
    one.group_by_key().window(FINE).count(name="windowed").to("out")
    one.merge(two).to("both")
    return job


def kept() -> Job:
    """The table of a topic, filtered, and joined with what is made of it."""
    job = Job("kept")
    readings = job.table("readings", key=str, value=Reading, timestamp="ts")
    values = readings.map_values(lambda reading: reading.value, name="values")
    values.join(readings, lambda value, reading: [value, reading.ts], name="pairs").to("out")
    return job


def joined() -> Job:
    """A table of a topic joined with a count, and a stream joined with the count of its own rows."""
    job = Job("joined")
    readings = job.table("readings", key=str, value=Reading, timestamp="ts")
    more = job.stream("more", key=str, value=Reading, timestamp=SLACK)
    counts = more.group_by_key().count(name="counts")
    more.join(counts, lambda reading, count: [reading.value, count], name="numbered").to("out")
    readings.join(counts, lambda reading, count: [reading.value, count], name="both").to("both")
    return job


def processed() -> Job:
    """Two `process` that share a store, with punctuations, before a window; and one over the results of windows."""
    job = Job("processed")
    readings = job.stream("readings", key=str, value=Reading, timestamp="ts")
    totals, results = job.store("totals", key=str, value=int), job.store("results", key=str, value=int)

    @readings.process(stores=[totals])
    def running(ctx: Context, reading: Record[str, Reading]) -> Iterator[Record[str, Reading]]:
        total = (ctx.store(totals).get(reading.key) or 0) + reading.value.value
        ctx.store(totals).put(reading.key, total)
        for value in (total, reading.value.value)[: 1 + total % 2]:
            yield reading.with_value(Reading(reading.value.sensor, value, reading.value.ts))

    @running.punctuate(every=ms(25))
    def summary(ctx: Context, at_ms: int) -> Iterator[Record[str, Reading]]:
        for key, total in ctx.store(totals).items():
            yield Record(key=key, value=Reading("summary", total, at_ms))

    def forget(ctx: Context, reading: Record[str, Reading]) -> None:
        if reading.value.value < 0:
            ctx.store(totals).delete(reading.key)

    running.process(forget, stores=[totals])
    running.to("running")
    windows = running.group_by("sensor", type=str, name="by_sensor", shards=2).window(FINE)
    windows.late.to("late")
    last = windows.agg({"n": agg.count(), "last": agg.last("value")}, name="stats").to_stream()

    @last.process(stores=[results])
    def numbered(ctx: Context, stats: Record[str, dict[str, Any]]) -> Iterator[Record[str, int]]:
        number = (ctx.store(results).get("all") or 0) * 7 % 1009 + stats.value["n"]
        ctx.store(results).put("all", number)
        yield stats.with_value(number)

    @readings.process
    def unkept(ctx: Context, reading: Record[str, Reading]) -> None:
        """Keep nothing but the schedule."""

    @unkept.punctuate(every=ms(30))
    def at(ctx: Context, at_ms: int) -> Iterator[Record[str, str]]:
        yield Record(key="at", value=f"{at_ms} of {ctx.partition}")

    numbered.to("out")
    unkept.to("schedule")
    return job


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A job, its sources, and which of its topics hold updates (the last value per key counts)."""

    build: Callable[[], Job]
    sources: tuple[str, ...] = ("readings",)
    updates: frozenset[str] = field(default_factory=frozenset)

    def machine(self, partition_count: int, guarantee: Guarantee = "exactly-once") -> Machine:
        return Machine(self.build(), dict.fromkeys(self.sources, partition_count), guarantee=guarantee)

    def fill(self, machine: Machine, partitions: list[Rows]) -> None:
        """Send rows, to the sources in turn; keys of different partitions differ, as if placed by key."""
        for partition, rows in enumerate(partitions):
            by_source: dict[str, list[tuple[bytes | None, bytes, int]]] = {source: [] for source in self.sources}
            for number, (sensor, value, ts) in enumerate(rows):
                encoded = orjson.dumps({"sensor": sensor, "value": value, "ts": ts})
                source = self.sources[number % len(self.sources)]
                by_source[source].append((f"{sensor}{partition}".encode(), encoded, 0))
            for source, records in by_source.items():
                machine.send(source, partition, records)

    def facts(self, machine: Machine) -> dict[str, Counter[tuple[bytes | None, bytes | None, int]]]:
        """Return how often each record stands in each topic whose records are facts."""
        return {topic: Counter(machine.read(topic)) for topic in self.topics(machine) - self.updates}

    def latest(self, machine: Machine) -> dict[str, dict[tuple[bytes | None, int], bytes]]:
        """Return the last value per key and window of the topics that hold updates."""
        found: dict[str, dict[tuple[bytes | None, int], bytes]] = {}
        for topic in self.topics(machine) & self.updates:
            found[topic] = {}
            for key, value, _ in machine.read(topic):
                assert value is not None
                parsed = orjson.loads(value)
                start = parsed.get("window_start", -1) if isinstance(parsed, dict) else -1
                found[topic][key, start] = value
        return found

    def topics(self, machine: Machine) -> frozenset[str]:
        return frozenset(topic for sub in machine.topology.sub_topologies for topic in sub.sink_topics)

    def read_to(self, machine: Machine) -> dict[TopicPartition, int]:
        """Return the committed offsets of the sources: those of shuffles depend on how many blocks there were."""
        return {place: offset for place, offset in machine.committed().items() if place.topic in self.sources}


SCENARIOS = {
    scenario.build.__name__: scenario
    for scenario in (
        Scenario(build=columns),
        Scenario(build=python),
        Scenario(build=levels),
        Scenario(build=table),
        Scenario(build=merged, sources=("readings", "more")),
        Scenario(build=branched),
        Scenario(build=reduced),
        Scenario(build=ordered),
        Scenario(build=twice),
        Scenario(build=updated, updates=frozenset({"out"})),
        Scenario(build=hopping, updates=frozenset({"counted"})),
        Scenario(build=overlapping),
        Scenario(build=measured),
        Scenario(build=waiting, sources=("readings", "more")),
        Scenario(build=processed),
        Scenario(build=uneven, sources=("readings", "more")),
        Scenario(build=kept),
        Scenario(build=joined, sources=("readings", "more"), updates=frozenset({"both"})),
    )
}

FOR_EVER = {
    "table": Scenario(build=table, updates=frozenset({"out"})),
    "ordered": Scenario(build=ordered, updates=frozenset({"folded"})),
    "twice": Scenario(build=twice, updates=frozenset({"totals"})),
    "updated": Scenario(build=updated, updates=frozenset({"out"})),
    "columns": Scenario(build=columns),
    "levels": Scenario(build=levels),
    "hopping": Scenario(build=hopping, updates=frozenset({"counted"})),
    "measured": Scenario(build=measured, updates=frozenset({"totals"})),
    "kept": Scenario(build=kept),
    "joined": Scenario(build=joined, sources=("readings", "more"), updates=frozenset({"both"})),
    "processed": Scenario(build=processed),
}
"""The same for unbounded runs, where a table without windows writes updates."""

SAMPLE: list[Rows] = [
    [("a", 1, 3), ("b", 2, 14), ("a", -1, 31), ("c", 1, 2), ("a", 7, 90), ("b", 1, 60), ("a", 3, 140)],
    [("b", 4, 1), ("b", 2, 25), ("a", 10, 70), ("c", 3, 71), ("a", -10, 72), ("c", 5, 150), ("a", 3, 151)],
]
