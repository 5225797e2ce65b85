"""What the operators of one task share."""

from dataclasses import dataclass, field

from streamkit.records import NEVER_MS, Batch, TopicPartition
from streamkit.runtime.aside import Aside, LeftOut
from streamkit.runtime.outbox import Outbox
from streamkit.runtime.overlay import Overlay
from streamkit.runtime.position import Run

__all__ = ["Counters", "TaskContext"]


@dataclass(slots=True)
class Counters:
    """Totals of one task over all runs; they are a part of its position."""

    records_in: int = 0
    records_out: int = 0
    late: int = 0
    shuffle_rows_in: int = 0
    shuffle_rows_out: int = 0
    skipped: int = 0
    dead_letters: int = 0

    def add(self, left_out: LeftOut) -> None:
        """Count what was left out."""
        self.skipped += left_out.skipped
        self.dead_letters += left_out.dead_letters


@dataclass(slots=True, kw_only=True)
class TaskContext:
    """The shared, mutable middle of a task.

    Args:
        partition: The partition of all its inputs.
        overlay: State above the store.
        run: The run that is going on; if it is bounded, a table without windows is written once, at the end.
        outputs: Records for the topics that users see.
        internal: Blocks of repartition topics.
        ordered: Whether rows wait for their turn among the inputs of the task.
        alone: Whether it has one input, so that nothing waits.
        aside: The source records that are left out.
        careful: Whether the key of each row is checked where the row is known, not of each group where it is not.
        reading: Partition and offset of what was read last: a source record or a block.
        emitted: Of each table whose results could not be taken, those results.
        stream_time_ms: The largest timestamp that any source of this task has shown, in whatever way it came here.
    """

    partition: int
    overlay: Overlay
    run: Run
    ordered: bool = False
    alone: bool = False
    aside: Aside = field(default_factory=lambda: Aside({}, None))
    careful: bool = False
    reading: tuple[TopicPartition, int] | None = None
    emitted: dict[str, Batch] = field(default_factory=dict)
    outputs: Outbox = field(default_factory=Outbox)
    internal: Outbox = field(default_factory=Outbox)
    counters: Counters = field(default_factory=Counters)
    stream_time_ms: int = NEVER_MS
