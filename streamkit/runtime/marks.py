"""Which run is going on: fixed once, by whichever worker comes first, for all of them.

The end offsets of a bounded run, and the partition count of its sources, are committed as notes beside the source
offsets when the run first starts, in one transaction: whoever resumes it ends where the first would have.

Several workers may start at once. Each that finds no run to resume opens the producer `<job>-setup`, which fences the
others who are at it, and only then reads, decides and commits; one that was fenced reads again. The offsets are written
anew with the notes, so the tasks are taken from whoever still runs them first; and whoever opens a task opens that
producer too, after the task's own (`opening`), so that nobody moves offsets which are being written here.

The steps stand in one tuple, in their order; tests crash before each of them.
"""

import threading
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from streamkit.broker import EARLIEST, LAST_STABLE, Broker, CommittedOffset, Producer
from streamkit.errors import CommitFailedError, ProducerFencedError, TopologyError
from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.commit import Observe
from streamkit.runtime.new_shuffles import ShufflesOfRun, never_written
from streamkit.runtime.options import RunOptions
from streamkit.runtime.position import Note, Run, RunMark
from streamkit.runtime.task_plan import transactional_id
from streamkit.seams import Clock
from streamkit.topology import Topology

__all__ = ["SETUP_STEPS", "RunRequest", "check_counts", "fix_run", "run_ended", "setup_id"]

_ATTEMPTS_MAX: Final = 20
_PAUSE_MIN_MS: Final = 50
_PAUSE_MAX_MS: Final = 3200
"""Twenty attempts wait for half a minute on average."""

Marks = dict[TopicPartition, RunMark]


def setup_id(job: str) -> str:
    """Return the transactional id of whoever fixes a run of the job."""
    return transactional_id(job, "setup")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What is to be fixed.

    Args:
        topology: Of the job.
        broker: Where its offsets are.
        options: Say whether the last run is resumed.
        counts: The partitions of each topic.
        task_ids: Of all tasks.
    """

    topology: Topology
    broker: Broker
    options: RunOptions
    counts: Mapping[str, int]
    task_ids: Sequence[str]

    def shuffles_of_run(self, notes: Mapping[TopicPartition, Note], run: int) -> ShufflesOfRun:
        """Return what the committed notes say of a bounded run and the shuffles of the job."""
        unwritten = never_written(self.topology, self.broker, self.counts, notes)
        return ShufflesOfRun(self.topology, self.counts, notes, run, unwritten)

    @property
    def sources(self) -> list[TopicPartition]:
        """All partitions of all sources."""
        return [
            TopicPartition(topic, partition)
            for sub in self.topology.sub_topologies
            for topic in sub.source_topics
            for partition in range(self.counts[topic])
        ]


def fix_run(job: RunRequest, clock: Clock, observe: Observe) -> tuple[Marks, bool]:
    """Return what the run reads of each source partition, and whether it is finished.

    Two workers that begin the same run fence each other; each waits before its next attempt, longer each time and not
    as long as the other.

    Args:
        job: What is to be fixed.
        clock: For that pause.
        observe: Told each step's name before it.

    Raises:
        TopologyError: A source had another partition count; or the last bounded run has ended, for some tasks or for
            all, without a shuffle that the job has now. Nothing was written.
        ProducerFencedError: Others fix a run at the same time, again and again.
    """
    before = _Before.of(job, job.broker.group(job.topology.job).committed())
    if before.resumed_by(job.options):
        return _resumed(job, before)
    failed: list[ProducerFencedError | CommitFailedError] = []
    while len(failed) < _ATTEMPTS_MAX:
        marking = _Marking(job)
        try:
            return marking.run(observe)
        except (ProducerFencedError, CommitFailedError) as error:
            # Another worker was faster, or the outcome is not known: what is committed says which.
            failed.append(error)
        finally:
            marking.close()
        clock.wait(threading.Event(), _pause_ms(len(failed), job.options.worker_id, clock))
    raise failed[-1]


def _pause_ms(failures: int, worker_id: str, clock: Clock) -> float:
    """Return a pause that no other worker makes: drawn from its id and the moment."""
    most_ms = min(_PAUSE_MIN_MS << failures, _PAUSE_MAX_MS)
    return zlib.crc32(f"{worker_id} {clock.monotonic_ms()}".encode()) % most_ms


def check_counts(committed: Mapping[TopicPartition, CommittedOffset], counts: Mapping[str, int]) -> None:
    """Check that sources have the partitions that they had when the run began.

    Args:
        committed: The offsets of the job's group.
        counts: The partitions of each topic there is.

    Raises:
        TopologyError: A source had another partition count.
    """
    for place, offset in committed.items():
        was_count = Note.from_text(offset.metadata).partition_count
        if was_count and counts.get(place.topic, was_count) != was_count:
            raise TopologyError(
                f"{place.topic!r} had {was_count} partitions when the job first ran, now it has {counts[place.topic]}",
                hint="a changed count moves keys: give the job a new name to read everything again",
            )


def run_ended(
    topology: Topology, committed: Mapping[TopicPartition, CommittedOffset], counts: Mapping[str, int], run: int
) -> bool:
    """Return whether every task has committed the end of a bounded run.

    Args:
        topology: Of the job.
        committed: The offsets of its group.
        counts: The partitions of each topic.
        run: Number of the run.
    """
    notes = {place: Note.from_text(offset.metadata) for place, offset in committed.items()}
    return _all_ended(topology, notes, counts, run)


class _Marking:
    """One attempt to fix a run."""

    def __init__(self, job: RunRequest) -> None:
        self._job = job
        self._producer: Producer | None = None
        self._before: _Before | None = None
        self._marks: Marks = {}

    def run(self, observe: Observe) -> tuple[Marks, bool]:
        """Take the steps, until it turns out that there is a run to resume."""
        for step in SETUP_STEPS:
            observe(step.__name__)
            step(self)
            if self._known.resumed_by(self._job.options):
                return _resumed(self._job, self._known)
        return self._marks, False

    @property
    def _known(self) -> "_Before":
        assert self._before is not None, "the first step has read"
        return self._before

    def take_setup(self) -> None:
        """Fence whoever is at it, then read what was decided."""
        self._producer = self._job.broker.producer(setup_id(self._job.topology.job))
        self._before = self._read()

    def take_tasks(self) -> None:
        """Take every task from whoever still runs it, then read how far they came."""
        if self._known.notes:
            for task_id in self._job.task_ids:
                self._job.broker.producer(transactional_id(self._job.topology.job, task_id)).close()
            self._before = self._read()

    def _read(self) -> "_Before":
        job = self._job
        return _Before.of(job, self._open_producer.committed(job.topology.job, job.sources[0]))

    def begin_marks(self) -> None:
        """Open the transaction."""
        self._open_producer.begin()

    def send_marks(self) -> None:
        """Decide, and write the offsets anew with the notes of the run."""
        job, before = self._job, self._known
        ends = dict(job.broker.admin.list_offsets(dict.fromkeys(job.sources, LAST_STABLE)))
        published_ms = before.published_ms(job.sources)
        run = before.next_run(bounded=job.options.bounded, published_ms=max(published_ms.values()))
        firsts = job.broker.admin.list_offsets(
            {place: EARLIEST for place in job.sources if place not in before.offsets}
        )
        starts = {**firsts, **before.offsets}
        begins = {place: mark.begin_offset for place, mark in before.marks.items()}
        self._marks = {
            place: RunMark(
                run=run,
                end_offset=ends[place] if run.bounded else None,
                published_ms=published_ms[place],
                begin_offset=begins.get(place, starts[place]),
            )
            for place in job.sources
        }
        offsets = {
            place: CommittedOffset(
                offset=starts[place],
                metadata=replace(
                    before.notes.get(place, Note()), mark=mark, partition_count=job.counts[place.topic]
                ).to_text(),
            )
            for place, mark in self._marks.items()
        }
        self._open_producer.send_offsets(job.topology.job, offsets)

    def commit_marks(self) -> None:
        """From here on the run is fixed."""
        self._open_producer.commit()

    def close(self) -> None:
        """Give the producer back; what was not committed is not there."""
        if self._producer is not None:
            self._producer.close()

    @property
    def _open_producer(self) -> Producer:
        assert self._producer is not None, "the first step has opened it"
        return self._producer


SETUP_STEPS: Final[tuple[Callable[[_Marking], None], ...]] = (
    _Marking.take_setup,
    _Marking.take_tasks,
    _Marking.begin_marks,
    _Marking.send_marks,
    _Marking.commit_marks,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """What the committed offsets say of the runs so far: the marks are those of the last one."""

    offsets: Mapping[TopicPartition, int]
    notes: Mapping[TopicPartition, Note]
    marks: dict[TopicPartition, RunMark]
    complete: bool
    finished: bool

    @classmethod
    def of(cls, job: RunRequest, committed: Mapping[TopicPartition, CommittedOffset]) -> "_Before":
        """Look at them.

        Raises:
            TopologyError: A source had another partition count, or a shuffle is back that the last run was without.
        """
        check_counts(committed, job.counts)
        notes = {place: Note.from_text(offset.metadata) for place, offset in committed.items()}
        marks = {place: mark for place in job.sources if place in notes and (mark := notes[place].mark) is not None}
        last = max((mark.run.number for mark in marks.values()), default=0)
        bounded = any(mark.run.bounded for mark in marks.values())
        finished = bounded and _all_ended(job.topology, notes, job.counts, last)
        if bounded and not finished:
            # What it had ended for does not end again because the job got shuffles since.
            known = job.shuffles_of_run(notes, last)
            absent = known.absent()
            topics = {shuffle.topic for shuffle in absent}
            finished = bool(absent) and _all_ended(job.topology, notes, job.counts, last, topics)
            if finished:
                known.check_not_back(absent)
        return cls(
            offsets={place: offset.offset for place, offset in committed.items()},
            notes=notes,
            marks=marks,
            complete=len(marks) == len(job.sources),
            finished=finished,
        )

    def resumed_by(self, options: RunOptions) -> bool:
        """Return whether a run with these options is the last one, gone on with."""
        if not self.complete:
            return False
        bounded = any(mark.run.bounded for mark in self.marks.values())
        return bounded and (not self.finished or not options.go_on) if options.bounded else not bounded

    @property
    def last(self) -> Run:
        """The last run, number 0 if there was none."""
        return max((mark.run for mark in self.marks.values()), key=lambda run: run.number, default=Run(number=0))

    def published_ms(self, sources: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return how far windows of each source partition's records have been published by the ends of runs.

        Where the end of a run closed windows, it closed all that had begun: those of a task, and behind a shuffle
        those that any source partition may have rows in.
        """
        closed = {place for place, note in self.notes.items() if note.closed_run >= self.last.number > 0}
        everywhere = not closed <= set(sources)
        seen_ms = max((note.max_timestamp_ms for note in self.notes.values()), default=NEVER_MS)
        before = {place: self.marks.get(place, RunMark()).published_ms for place in sources}
        return {
            place: max(before_ms, seen_ms) if everywhere or place in closed else before_ms
            for place, before_ms in before.items()
        }

    def next_run(self, *, bounded: bool, published_ms: int) -> Run:
        """Return the run that follows."""
        last = self.last
        # Tasks that an unbounded run never opened have not written what was left for it: each knows by its `ended_run`.
        left_run = (0 if self.finished else last.number) if last.bounded else last.left_run
        return Run(number=last.number + 1, bounded=bounded, published_ms=published_ms, left_run=left_run)


def _all_ended(
    topology: Topology,
    notes: Mapping[TopicPartition, Note],
    counts: Mapping[str, int],
    run: int,
    new_topics: Collection[str] = (),
) -> bool:
    return all(
        _ended(topic, partition, notes, run)
        for sub in topology.sub_topologies
        for topic in topology.input_topics(sub)
        if topic not in new_topics
        for partition in range(counts[topic])
    )


def _resumed(job: RunRequest, before: _Before) -> tuple[Marks, bool]:
    """Return the run that is resumed, and whether it is finished.

    Raises:
        TopologyError: It has ended for tasks that would have sent something to a new shuffle, and not for others:
            nobody would say to the shuffle that the run is over.
    """
    if before.last.bounded and not before.finished:
        job.shuffles_of_run(before.notes, before.last.number).check_none_waits()
    return before.marks, before.finished


def _ended(topic: str, partition: int, notes: Mapping[TopicPartition, Note], run: int) -> bool:
    note = notes.get(TopicPartition(topic, partition))
    return note is not None and note.ended_run >= run
