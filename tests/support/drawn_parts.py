"""What a drawn job is made of: its steps, its sources, and what is known of each stream and table in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from drawn_rows import Row, get, ms

from streamkit import EventTime, Job

__all__ = ["Choices", "DrawnJob", "DrawnStream", "DrawnTable", "Shape", "SourceKind", "Step"]

T = TypeVar("T")
Shape = Literal["struct", "columns", "loose"]
"""What the rows of a stream are: `Row`, known columns, or whatever."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: its name, which of what it fits it works on, 0 the last one, and a number for further choices."""

    operator: str
    at: int = 0
    how: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceKind:
    """How a source is declared."""

    key: Any = None
    typed: bool = True
    time: Literal["field", "function", "slack", "record"] = "field"
    table: bool = False

    @property
    def timestamp(self) -> Any:
        return {
            "field": "ts",
            "function": lambda row: get(row, "ts"),
            "slack": EventTime("ts", out_of_orderness=ms(5)),
            "record": None,
        }[self.time]


@dataclass(frozen=True, kw_only=True)
class DrawnStream:
    """A stream and what is known of it.

    Args:
        stream: The handle.
        shape: Of its rows.
        key: Type of its keys.
        keyed_by: Names of the nodes that changed the key since the last shuffle; None: it is in place.
        merged: Whether several inputs meet in it, so that its rows have no order.
        ranked: Whether it stems from what was made behind a shuffle, so that the order of its rows among those of other
            keys depends on the number of shards.
    """

    stream: Any
    shape: Shape
    key: Any
    keyed_by: frozenset[str | None] = frozenset({None})
    merged: bool = False
    ranked: bool = False

    @property
    def framed(self) -> bool:
        return self.shape != "loose"

    @property
    def one_order(self) -> bool:
        """Whether the rows of a key have one order."""
        return self.keyed_by == {None} and not self.merged and self.key is not None

    @property
    def one_key(self) -> bool:
        """Whether state can be kept by the key."""
        return len(self.keyed_by) == 1 and self.key is not None

    @property
    def shuffled(self) -> bool:
        """Whether state by its key is behind a shuffle."""
        return self.keyed_by != {None} or self.ranked

    def in_turn(self, stream: Any) -> "DrawnStream":
        """Return what a node that depends on order makes of it: rows of one order, in the place of their key."""
        return replace(
            self, stream=stream, shape="struct", keyed_by=frozenset({None}), merged=False, ranked=self.shuffled
        )


@dataclass(frozen=True, kw_only=True)
class DrawnTable:
    """A table, the columns that are known of it, and how its results come."""

    table: Any
    columns: Sequence[str]
    windowed: bool
    final: bool
    after: DrawnStream

    def joins(self, key: Any) -> bool:
        """Whether it can be looked up by keys of a type."""
        return not self.windowed and key is not None and self.after.key == key


@dataclass(kw_only=True)
class DrawnJob:
    """A job under construction, then as it is.

    `updates` are the topics of which the last value of each key and window counts, `in_order` those in which the
    records of a key have one order. `one_shard_count` says that results depend on the number of shards, `keeps_offsets`
    that a store has offsets in it, which in a file are bytes.
    """

    job: Job
    shards: int
    streams: list[DrawnStream] = field(default_factory=list)
    tables: list[DrawnTable] = field(default_factory=list)
    groups: list[tuple[Any, DrawnStream]] = field(default_factory=list)
    stores: list[tuple[Any, Any]] = field(default_factory=list)
    """Those of `process`, with the types of their keys."""
    updates: set[str] = field(default_factory=set)
    in_order: set[str] = field(default_factory=set)
    one_shard_count: bool = False
    keeps_offsets: bool = False

    def pick(self, step: Step, fits: Callable[[DrawnStream], bool] = lambda stream: True) -> DrawnStream | None:
        some = [stream for stream in self.streams if fits(stream)]
        return some[-1 - step.at % len(some)] if some else None

    def pick_table(self, step: Step, fits: Callable[[DrawnTable], bool] = lambda table: True) -> DrawnTable | None:
        some = [table for table in self.tables if fits(table)]
        return some[-1 - step.at % len(some)] if some else None

    def add_table(self, table: DrawnTable) -> None:
        """Keep a table, and write it: of each its topic is looked at."""
        self.tables.append(table)
        topic = f"table_{len(self.tables)}"
        table.table.to(topic)
        if table.windowed and table.final:
            self.in_order.add(topic)
        else:
            self.updates.add(topic)

    def end(self) -> None:
        """Write every stream that leads nowhere."""
        read = {name for node in self.job._nodes.values() for name in node.inputs}
        for number, drawn in enumerate(self.streams):
            if drawn.stream.name not in read:
                drawn.stream.to(f"stream_{number}")
                if drawn.one_order:
                    self.in_order.add(f"stream_{number}")

    @staticmethod
    def value_type(kind: SourceKind) -> Any:
        return Row if kind.typed else None


class Choices:
    """Choices made of one number, the first of each for 0."""

    def __init__(self, number: int) -> None:
        self._number = number

    def of(self, options: Sequence[T]) -> T:
        self._number, index = divmod(self._number, len(options))
        return options[index]
