"""Shuffles that a job got, or got back, since it last ran, or while a bounded run of it was under way.

A bounded run ends for a shuffle with a mark of each upstream task. A task that had ended without the shuffle sends none
any more: whoever waited for it would wait for ever.
"""

from collections.abc import Collection, Mapping, Sequence

from streamkit.broker import LATEST, Broker
from streamkit.errors import TopologyError
from streamkit.records import TopicPartition
from streamkit.runtime.position import Note
from streamkit.topology import Repartition, Topology
from streamkit.topology.left_behind import LEFT_HINT, left_behind, said_of

__all__ = ["ShufflesOfRun", "check_stores_behind", "never_written"]


def never_written(
    topology: Topology, broker: Broker, counts: Mapping[str, int], read: Collection[TopicPartition]
) -> list[Repartition]:
    """Return the shuffles that nothing was ever sent to; every run that ends sends a mark to each partition.

    Args:
        topology: Of the job.
        broker: Where its topics are.
        counts: The partitions of each topic.
        read: What offsets are committed for.

    Cost: offsets are asked for where none are committed.
    """
    unread = {
        one.name: [TopicPartition(one.topic, partition) for partition in range(counts[one.topic])]
        for one in topology.repartitions
    }
    unread = {name: places for name, places in unread.items() if set(read).isdisjoint(places)}
    places = [place for of_shuffle in unread.values() for place in of_shuffle]
    # Not the last stable offsets: a transaction that is open would hide what was committed behind it.
    ends = broker.admin.list_offsets(dict.fromkeys(places, LATEST)) if places else {}
    new = {name for name, of_shuffle in unread.items() if not any(ends[place] for place in of_shuffle)}
    return [one for one in topology.repartitions if one.name in new]


def check_stores_behind(
    topology: Topology, broker: Broker, counts: Mapping[str, int], read: Collection[TopicPartition]
) -> None:
    """Check that what is behind a new shuffle is new too: a store is at the offsets of the shuffle that fills it.

    Args:
        topology: Of the job.
        broker: Where its topics are.
        counts: The partitions of each topic.
        read: What offsets are committed for; nothing if the job has not run.

    Raises:
        TopologyError: A store is not. Nothing was changed.
    """
    for shuffle in never_written(topology, broker, counts, read) if read else ():
        below = topology.sub_topologies[shuffle.downstream]
        if below.source_topics or below.repartitions_in != (shuffle.name,):
            # Its tasks have offsets for something else too, by which the store may be right.
            continue
        for store in below.stores:
            topic = store.changelog_topic
            places = [TopicPartition(topic, partition) for partition in range(counts[topic])]
            if any(broker.admin.list_offsets(dict.fromkeys(places, LATEST)).values()):
                raise TopologyError(
                    f"the shuffle {shuffle.name!r} is new, and the store {store.name!r} behind it is not",
                    detail=said_of(left_behind(topology, broker.admin.describe_topics())),
                    hint=LEFT_HINT,
                )


class ShufflesOfRun:
    """Which shuffles of a job a bounded run has ended without, for some of its tasks or for all.

    Args:
        topology: Of the job as it is now.
        counts: The partitions of each topic.
        notes: What is committed with the offsets.
        run: Number of the run.
        unwritten: The shuffles that nothing was ever sent to; of the others the notes say which were in the run.
    """

    def __init__(
        self,
        topology: Topology,
        counts: Mapping[str, int],
        notes: Mapping[TopicPartition, Note],
        run: int,
        unwritten: Collection[Repartition],
    ) -> None:
        """Ask nobody yet."""
        self._topology, self._counts, self._notes, self._run = topology, counts, notes, run
        self._unwritten = {shuffle.name for shuffle in unwritten}

    def absent(self) -> list[Repartition]:
        """Return the shuffles that the run was without: all who write them had ended so, or are behind such a one."""
        absent = [one for one in self._topology.repartitions if not any(map(self._ended, self._places(one.topic)))]
        while True:
            topics = {one.topic for one in absent}
            fewer = [one for one in absent if all(self._not_in_run(one, task, topics) for task in self._writers(one))]
            if fewer == absent:
                return absent
            absent = fewer

    def check_not_back(self, absent: Sequence[Repartition]) -> None:
        """Check that the shuffles which the whole run was without are new.

        Raises:
            TopologyError: One was written by an earlier run: what is behind it lacks the rows of this one.
        """
        for shuffle in absent:
            if shuffle.name not in self._unwritten:
                stores = ", ".join(one.name for one in self._topology.sub_topologies[shuffle.downstream].stores)
                raise TopologyError(
                    f"the shuffle {shuffle.name!r} is back, and the last bounded run was without it",
                    detail=f"what is behind it lacks the rows of that run: {stores}",
                    hint="undo the change, or compute everything anew with streamkit replay; a topology lock "
                    "(streamkit lock) tells of such a change before the job runs",
                )

    def check_none_waits(self) -> None:
        """Check that no shuffle waits for a mark that nobody is going to write.

        Raises:
            TopologyError: The run has ended without it for one of its upstream tasks, and not for what is behind it.
        """
        for shuffle in self._topology.repartitions:
            if all(map(self._ended, self._places(shuffle.topic))):
                continue
            ended = [task for task in self._writers(shuffle) if self._ended_without(shuffle, task)]
            if ended:
                new = "new" if shuffle.name in self._unwritten else "back, or written from elsewhere"
                raise TopologyError(
                    f"the shuffle {shuffle.name!r} is {new}, and the bounded run that is under way has ended without it"
                    f" for {ended[0][0]}",
                    hint="undo the change until run --bounded has finished, or begin anew with streamkit replay",
                )

    def _not_in_run(self, shuffle: Repartition, task: Sequence[TopicPartition], absent: Collection[str]) -> bool:
        known = [place for place in task if place.topic not in absent]
        return not known or self._ended_without(shuffle, known)

    def _ended_without(self, shuffle: Repartition, task: Sequence[TopicPartition]) -> bool:
        """Return whether a task has ended, and did not tell the shuffle."""
        return all(map(self._ended, task)) and not any(self._told(shuffle, place) for place in task)

    def _told(self, shuffle: Repartition, place: TopicPartition) -> bool:
        told = self._notes[place].ended_shuffles
        # Notes were once without: then what was ever written counts as told.
        return shuffle.name not in self._unwritten if told is None else shuffle.name in told

    def _ended(self, place: TopicPartition) -> bool:
        note = self._notes.get(place)
        return note is not None and note.ended_run >= self._run

    def _places(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for partition in range(self._counts[topic])]

    def _writers(self, shuffle: Repartition) -> list[list[TopicPartition]]:
        """Return what each upstream task reads."""
        tasks = []
        for index in shuffle.upstream:
            topics = self._topology.input_topics(self._topology.sub_topologies[index])
            for partition in range(max(self._counts[topic] for topic in topics)):
                here = [TopicPartition(topic, partition) for topic in topics if partition < self._counts[topic]]
                tasks.append(here)
        return tasks
