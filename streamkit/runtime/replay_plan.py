"""The plan of a replay, and how far it is, in a topic of the job: whoever gives the same command goes on from there.

The topic has one record for the plan, one for each store as it was before, and one once everything is reset. It is
there from before the first thing is changed until after the last; while it is, no worker of the job starts.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from streamkit.broker import Broker, Producer
from streamkit.errors import ConfigError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime.comparing import Past
from streamkit.runtime.position import Run, RunMark
from streamkit.runtime.reading import read_to
from streamkit.state.ranges import RangeDigests
from streamkit.topology.names import replay_topic

__all__ = ["ReplayJournal", "ReplayPlan", "StoreBefore"]

_VERSION: Final = 1
_CONFIG: Final = {"cleanup.policy": "delete", "retention.ms": "-1"}
_PLAN, _STORE, _RESET = b"plan", b"store", b"reset"

Offsets = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBefore:
    """One store of one task as it was before a replay; `ranges` are those of what its changelog had."""

    task: str
    store: str
    ranges: RangeDigests
    obstacle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """What a replay does.

    Args:
        begin: What was asked for, a spec of offsets.
        starts: Where it begins in each source partition.
        past: How far the job had come, which is how far the replay reads.
        outputs: The ends of what is removed of each sink partition.
        stores: What each store was before.
    """

    begin: int
    starts: Offsets
    past: Past
    outputs: Offsets
    stores: Sequence[StoreBefore]


class ReplayJournal:
    """The topic; `reset` says whether everything is as before a first run."""

    def __init__(self, broker: Broker, job: str) -> None:
        """Read nothing yet."""
        self._broker, self._topic = broker, replay_topic(job)
        self._place = TopicPartition(self._topic, 0)
        self.reset = False

    def read(self) -> ReplayPlan | None:
        """Return the plan of a replay that was begun, None if there is none.

        Raises:
            ConfigError: A newer streamkit has begun it.
        """
        if self._topic not in self._broker.admin.describe_topics():
            return None
        records: list[tuple[bytes | None, Any]] = []
        with contextlib.closing(self._broker.fetcher("read_committed")) as fetcher:
            for some in read_to(self._broker, fetcher, self._place, None):
                records += [
                    (key, orjson.loads(value or b"{}")) for key, value in zip(some.keys, some.values, strict=True)
                ]
        self.reset = any(key == _RESET for key, _ in records)
        plan = next((data for key, data in records if key == _PLAN), None)
        return None if plan is None else _plan_of(plan, [data for key, data in records if key == _STORE])

    def write_plan(self, producer: Producer, plan: ReplayPlan) -> None:
        """Make the topic, and write the plan."""
        self._broker.admin.create_topic(self._topic, 1, _CONFIG)
        stores = [
            {"task": one.task, "store": one.store, "ranges": one.ranges.to_json(), "obstacle": one.obstacle}
            for one in plan.stores
        ]
        self._append(producer, [(_PLAN, _to_json(plan)), *((_STORE, store) for store in stores)])

    def write_reset(self, producer: Producer) -> None:
        """Write that everything is reset."""
        self._append(producer, [(_RESET, {})])
        self.reset = True

    def remove(self) -> None:
        """Remove the topic: the replay has ended."""
        self._broker.admin.delete_topic(self._topic)

    def _append(self, producer: Producer, records: Sequence[tuple[bytes, Any]]) -> None:
        producer.begin()
        for key, data in records:
            one = EncodedRecords.to_append(timestamps_ms=[0], keys=[key], values=[orjson.dumps(data)])
            producer.send(self._place, one)
        producer.commit()


def _to_json(plan: ReplayPlan) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "begin": plan.begin,
        "starts": _offsets_json(plan.starts),
        "begins": _offsets_json(plan.past.begins),
        "ends": _offsets_json(plan.past.ends),
        "bounded_ends": [[at.topic, at.partition, mark.end_offset] for at, mark in plan.past.marks.items()],
        "counts": dict(plan.past.partition_counts),
        "bounded": plan.past.bounded,
        "finished": plan.past.finished,
        "runs": plan.past.run_count,
        "obstacle": plan.past.obstacle,
        "outputs": _offsets_json(plan.outputs),
    }


def _plan_of(data: Mapping[str, Any], stores: Sequence[Mapping[str, Any]]) -> ReplayPlan:
    if data["version"] != _VERSION:
        raise ConfigError(
            f"the replay was begun by a newer streamkit, its plan has version {data['version']}",
            hint="go on with that one",
        )
    run = Run(number=1, bounded=data["bounded"])
    past = Past(
        begins=_offsets_of(data.get("begins", ())),
        ends=_offsets_of(data["ends"]),
        marks={TopicPartition(topic, at): RunMark(run=run, end_offset=end) for topic, at, end in data["bounded_ends"]},
        partition_counts=data["counts"],
        finished=data["finished"],
        run_count=data.get("runs", 1),
        obstacle=data["obstacle"],
    )
    return ReplayPlan(
        begin=data["begin"],
        starts=_offsets_of(data["starts"]),
        past=past,
        outputs=_offsets_of(data["outputs"]),
        stores=[
            StoreBefore(
                task=one["task"],
                store=one["store"],
                ranges=RangeDigests.from_json(one["ranges"]),
                obstacle=one["obstacle"],
            )
            for one in stores
        ],
    )


def _offsets_json(offsets: Offsets) -> list[list[Any]]:
    return [[at.topic, at.partition, offset] for at, offset in offsets.items()]


def _offsets_of(rows: Sequence[Sequence[Any]]) -> dict[TopicPartition, int]:
    return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}
