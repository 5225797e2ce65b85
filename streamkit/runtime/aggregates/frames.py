"""The built-in aggregates in columns: partial, merge and final as group-bys over frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import polars as pl

from streamkit.graph import Aggregate
from streamkit.runtime.aggregates.base import AggregateOverflow
from streamkit.runtime.aggregates.columns import part_of
from streamkit.runtime.aggregates.parts import FramePart, GroupPlan
from streamkit.topology import check_aggregates

__all__ = ["FrameAggregates"]


class FrameAggregates:
    """Named aggregates of groups of rows.

    A partial frame has the columns of the group first (`by`: `window_end` where there are windows, `key`), then the
    aggregates' partial columns, named `<name>$0`, `<name>$1` and so on. Equal groups have equal partial columns,
    however their rows were cut and merged.

    Args:
        columns: The aggregates by result name.
        schema: Of the frames that will be aggregated.

    Raises:
        DefinitionError: An aggregate cannot be made of its column.
    """

    def __init__(self, columns: Mapping[str, Aggregate], schema: Mapping[str, pl.DataType]) -> None:
        """Choose how each aggregate is computed, by its column's type."""
        check_aggregates(columns, schema)
        self._parts: list[FramePart] = [part_of(name, aggregate, schema) for name, aggregate in columns.items()]
        self._partial_schema: dict[str, pl.DataType] = {}
        for part in self._parts:
            self._partial_schema |= part.partial_schema
        self.needed_columns = frozenset(column for aggregate in columns.values() for column in aggregate.columns)
        self.needs_order = any(aggregate.ordered for aggregate in columns.values())
        self.result_schema: dict[str, pl.DataType] = {part.name: part.dtype for part in self._parts}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(tuple[tuple(Any for _ in self._partial_schema)]).decode  # type: ignore[misc]  # made at run time

    def partial(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """Fold rows: one partial row a group.

        `frame` has the needed columns, those of `by`, and `$timestamp`, `$source`, `$offset`, `$row` if the order
        is needed.
        """
        return self._grouped(frame, by, [part.partial(frame) for part in self._parts])

    def merge(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """Fold partial rows: one partial row a group. Exact, associative, commutative."""
        return self._grouped(frame, by, [part.merge(frame) for part in self._parts])

    def final(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the group's columns and the results, row for row.

        Raises:
            AggregateOverflow: A sum of integers leaves 64 bits.
        """
        by = frame.select([name for name in frame.columns if name not in self._partial_schema])
        return by.with_columns([part.final(frame, by) for part in self._parts])

    def encode(self, frame: pl.DataFrame) -> list[bytes]:
        """Return the partial columns of each row as bytes, the same for equal ones; other columns are left aside."""
        columns = [frame.get_column(name).to_list() for name in self._partial_schema]
        return list(map(self._encode, zip(*columns, strict=True)))

    def decode(self, encoded: Sequence[bytes]) -> pl.DataFrame:
        """Return the partial columns of encoded rows."""
        rows = list(map(self._decode, encoded))
        columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(self._partial_schema)
        return pl.DataFrame(
            [
                pl.Series(name, values, dtype=dtype)
                for (name, dtype), values in zip(self._partial_schema.items(), columns, strict=True)
            ]
        )

    def _grouped(self, frame: pl.DataFrame, by: Sequence[str], plans: Sequence[GroupPlan]) -> pl.DataFrame:
        columns = [column for plan in plans for column in plan.columns]
        sums = [aggregation for plan in plans for aggregation in plan.aggregations]
        wide = frame.select(by).with_columns(columns) if columns else frame
        grouped = wide.group_by(by).agg(sums)
        try:
            settled = [column for plan in plans for column in plan.settle(grouped)]
        except AggregateOverflow as cause:
            if cause.group_index is None:
                raise
            raise cause.of(grouped.select(by).row(cause.group_index, named=True)) from cause
        made = grouped.select(by).with_columns(settled)
        return made.cast(self._partial_schema)  # type: ignore[arg-type]  # a mapping of types
