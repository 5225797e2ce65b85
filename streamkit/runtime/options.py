"""How a job is run, and what a run tells about itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamkit.records import TopicPartition

__all__ = [
    "Guarantee",
    "PlaceOf",
    "Progress",
    "RunOptions",
    "Summary",
    "place_in_topic",
]

Guarantee: TypeAlias = Literal["exactly-once", "at-least-once"]
PlaceOf: TypeAlias = Callable[[TopicPartition, int], str]
"""Says where a record lies, by its partition and offset, to whoever is to mend it."""


def place_in_topic(at: TopicPartition, offset: int) -> str:
    """Return where a record of a topic lies."""
    return f"record {at} offset {offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user asked for.

    Args:
        bounded: Read to the end offsets that the run fixed when it first started, close every window, stop.
        go_on: Begin another bounded run over the records that came after a finished one (`--continue`).
        guarantee: Whether outputs are inside the transaction, or before it.
        state_dir: Root of the state directories; None keeps state in memory.
        thread_count: How many columnar tasks compute at once, at least 1; of those in Python it is always one.
        commit_interval_ms: While a task is behind, a commit is due when its oldest input that is not committed was read
            this long ago; sooner when its windows have just closed. It begins once a thread is free.
        commit_bytes_max: A task that has read this much since its last commit commits.
        fetch_bytes_max: About how much is fetched per partition at once.
        worker_id: Names this worker among those of the job, the same at each start; it decides which tasks it gets
            when all start together.
        skew_max_ms: How far one source may run ahead of the slowest; None: the largest window, at least a minute.
        replaying: Whether this is a replay's own run; others are refused until the replay has ended.
        place_of: Names the place of a record in warnings.
    """

    bounded: bool = False
    go_on: bool = False
    guarantee: Guarantee = "exactly-once"
    state_dir: str | None = None
    thread_count: int = 2
    commit_interval_ms: int = 1000
    commit_bytes_max: int = 16 * 1024 * 1024
    fetch_bytes_max: int = 4 * 1024 * 1024
    worker_id: str = "worker"
    skew_max_ms: int | None = None
    replaying: bool = False
    place_of: PlaceOf = place_in_topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a run is going; records are of this run, `lag` counts source records (of a file bytes) to compute."""

    records_in: int
    records_out: int
    late: int
    seconds: float
    lag: int
    watermark_ms: int | None
    state_bytes: int
    skipped: int = 0
    dead_letters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did.

    `skipped` are the records that an error policy left out, `dead_letters` those of them that were written as such.
    `finished` says that a bounded run reached its end, `already_finished` that it had done so before it began.
    """

    records_in: int
    records_out: int
    late: int
    seconds: float
    finished: bool
    already_finished: bool = False
    skipped: int = 0
    dead_letters: int = 0
