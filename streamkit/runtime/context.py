"""What the operators of one task share."""

from dataclasses import dataclass, field

from streamkit.records import NEVER_MS
from streamkit.runtime.aside import Aside
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


@dataclass(slots=True, kw_only=True)
class TaskContext:
    """The shared, mutable middle of a task.

    Args:
        partition: The partition of all its inputs.
        overlay: State above the store.
        run: The run that is going on; if it is bounded, a table without windows is written once, at the end.
        outputs: Records for the topics that users see.
        internal: Blocks of repartition topics.
        aside: The source records that are left out.
        careful: Whether the key of each row is checked where the row is known, not of each group where it is not.
        stream_time_ms: The largest timestamp that any source of this task has shown, in whatever way it came here.
    """

    partition: int
    overlay: Overlay
    run: Run
    aside: Aside = field(default_factory=lambda: Aside({}, None))
    careful: bool = False
    outputs: Outbox = field(default_factory=Outbox)
    internal: Outbox = field(default_factory=Outbox)
    counters: Counters = field(default_factory=Counters)
    stream_time_ms: int = NEVER_MS
