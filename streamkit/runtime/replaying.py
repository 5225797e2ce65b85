"""Runs the inputs of a job again, to the offsets where the job has been, and no further."""

import contextlib
import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from streamkit.broker import LAST_STABLE, LATEST, Broker, CommittedOffset
from streamkit.errors import StreamkitError
from streamkit.records import TopicPartition
from streamkit.runtime.comparing import Past, read_offset, unread_places
from streamkit.runtime.options import Progress, RunOptions
from streamkit.runtime.position import Note
from streamkit.runtime.restore import RebuildProgress
from streamkit.runtime.shadow import ShadowBroker
from streamkit.runtime.worker import Worker
from streamkit.seams import Clock, FileSystem
from streamkit.topology import Topology

__all__ = ["Rerun"]

_LOOK_MS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """A job whose offsets were set, to be run until it has read what it had read.

    Args:
        topology: Of the job.
        sources: Has its sources.
        rest: Has everything else, and the offsets.
        past: How far it reads.
        options: How; `bounded` is as in the past.
        fs: For its state.
        clock: Measures.
        told: Called now and then.
    """

    topology: Topology
    sources: Broker
    rest: Broker
    past: Past
    options: RunOptions
    fs: FileSystem
    clock: Clock
    told: Callable[[RebuildProgress], None]

    def run(self) -> None:
        """Run until every source is read to its end, and every row of every shuffle is taken.

        Raises:
            StreamkitError: What stops a worker. Run again, it goes on from what was committed.
        """
        broker = ShadowBroker(self.sources, self.rest, self.past.ends)
        committed = self.rest.group(self.topology.job).committed()
        total_count = sum(end - min(committed[place].offset, end) for place, end in self.past.ends.items())
        tell = functools.partial(self._tell, total_count)
        options = replace(self.options, bounded=self.past.bounded)
        worker = Worker(self.topology, broker, options=options, fs=self.fs, clock=self.clock)
        stop = threading.Event()
        if self.past.finished:
            worker.run(stop, tell)
            return
        watch = _Watch(self.topology, broker, self.past.ends, stop, self.clock)
        watch.start()
        try:
            worker.run(stop, tell)
        finally:
            watch.end()

    def _tell(self, total_count: int, progress: Progress) -> None:
        self.told(
            RebuildProgress(
                doing="running the inputs again",
                done_count=max(0, total_count - progress.lag),
                total_count=total_count,
                seconds=progress.seconds,
            )
        )


class _Watch:
    """Stops an unbounded worker once there is nothing left to read; on a thread of its own."""

    def __init__(
        self,
        topology: Topology,
        broker: Broker,
        ends: Mapping[TopicPartition, int],
        stop: threading.Event,
        clock: Clock,
    ) -> None:
        self._topology, self._broker, self._ends, self._stop, self._clock = topology, broker, ends, stop, clock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="streamkit-drained")

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            self._clock.wait(self._ended, _LOOK_MS)
            # Whether the broker is there is the worker's business: the next look may see more.
            with contextlib.suppress(StreamkitError):
                if self._drained():
                    self._stop.set()
                    return

    def _drained(self) -> bool:
        # First the sources: once they are read and committed nothing is added to any shuffle from above.
        committed = self._committed()
        if not all(place in committed and _is_read(committed[place], end) for place, end in self._ends.items()):
            return False
        # Also those that nobody has committed anything of yet.
        there = self._broker.admin.describe_topics()
        shuffles = [shuffle.topic for shuffle in self._topology.repartitions if shuffle.topic in there]
        places = [TopicPartition(topic, part) for topic in shuffles for part in range(there[topic].partition_count)]
        before = self._broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE))
        # Offsets are there before the rows that were committed with them can be read.
        if before != self._broker.admin.list_offsets(dict.fromkeys(places, LATEST)):
            return False
        if unread_places(self._topology, self._broker):
            return False
        # A task between two shuffles may have written meanwhile, and one that was full may have let rows go.
        ends = self._broker.admin.list_offsets(dict.fromkeys(places, LAST_STABLE))
        return before == ends and committed == self._committed()

    def _committed(self) -> Mapping[TopicPartition, CommittedOffset]:
        return self._broker.group(self._topology.job).committed()


def _is_read(committed: CommittedOffset, end: int) -> bool:
    """Return whether no more of a source is read before others come: what waits then waits in an unbounded run, too."""
    return read_offset(committed) >= end or Note.from_text(committed.metadata).full
