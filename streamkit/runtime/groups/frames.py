"""Groups of the columnar spelling: frames of partial results, merged when they are many or when they leave."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.broker.partitioner import partitions_of
from streamkit.errors import ProcessingError
from streamkit.records import Batch, Column, RowError
from streamkit.runtime.aggregates import AggregateOverflow, FrameAggregates, source_order
from streamkit.runtime.blocks import decode_frame_block, encode_frame_block
from streamkit.runtime.groups.base import UNWINDOWED_MS, Results, RowWindows, overflow
from streamkit.runtime.operators.stateless import frame_of
from streamkit.runtime.places import bad_row, rows_in_record
from streamkit.serde import Serde, key_serde

__all__ = ["FrameGroups"]

_BY = ["window_end", "key"]
_COUNT = "window_count"
_UNMERGED_ROWS_MAX = 400_000
_SPREAD_ROWS_MAX = 200_000
_GROUPED_AS_THEY_ARE: Final = (pl.Int64(), pl.String(), pl.Binary())
_BYTES: Final = key_serde(bytes)


class FrameGroups:
    """Partial frames with the columns `window_end`, `key` and the aggregates' partial columns.

    Integers, text and bytes are grouped as they are, any other key by its bytes: two keys are one group if they are
    encoded alike, as in the Python spelling (polars takes 0.0 and -0.0 for one).

    Args:
        node: The aggregation's name, for errors.
        aggregates: Partial, merge and final of its columns.
        key_serde: Encodes keys; its frame form is one column `key`.
        value_serde: Handed to the column of results.
        scalar: Name of the only column if results are the bare value.
    """

    def __init__(
        self, node: str, aggregates: FrameAggregates, key_serde: Serde, value_serde: Serde, scalar: str | None
    ) -> None:
        """Start empty."""
        self._node, self._aggregates, self._scalar = node, aggregates, scalar
        self._key_serde, self._value_serde = key_serde, value_serde
        self._grouped_serde = key_serde if key_serde.dtype in _GROUPED_AS_THEY_ARE else _BYTES
        self._frames: list[pl.DataFrame] = []
        self._pushed_count, self._merge_above = 0, _UNMERGED_ROWS_MAX

    def _with(self, frames: list[pl.DataFrame]) -> "FrameGroups":
        made = FrameGroups(self._node, self._aggregates, self._key_serde, self._value_serde, self._scalar)
        made._frames = frames
        return made

    def __len__(self) -> int:
        """Return how many partial rows there are."""
        return sum(frame.height for frame in self._frames)

    def add(self, batch: Batch, windows: RowWindows | None) -> None:
        """Fold a batch into one partial frame."""
        frame = frame_of(batch, self._node)
        try:
            keys = self._keys_of(batch)
        except RowError as error:
            raise bad_row(batch, error, self._node) from error
        if keys.null_count():
            null = int(keys.is_null().arg_true()[0])
            raise bad_row(batch, RowError(null, "the key is null"), self._node, ProcessingError)
        ends = pl.lit(UNWINDOWED_MS, pl.Int64) if windows is None else pl.Series("window_end", windows.ends_ms)
        needed = frame.select(sorted(self._aggregates.needed_columns))
        rows = (
            needed.with_columns(ends.alias("window_end"), keys.alias("key"))
            if needed.width
            else pl.DataFrame({"key": keys}).with_columns(ends.alias("window_end"))
        )
        if self._aggregates.needs_order:
            rows = rows.with_columns(_order_columns(batch))
        if windows is None or windows.counts is None:
            self._push(self._partial(rows, _BY))
            return
        # Rows that share all their windows are folded once, then each window takes what they are together.
        alike = self._partial(rows.with_columns(pl.Series(_COUNT, windows.counts)), [*_BY, _COUNT])
        for some in alike.iter_slices(max(1, _SPREAD_ROWS_MAX // int(windows.counts.max(initial=1)))):
            self._push(self._merge(_spread(some, windows.advance_ms)))

    def _partial(self, rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        try:
            return self._aggregates.partial(rows, by)
        except AggregateOverflow as cause:
            raise overflow(self._node, cause) from cause

    def _merge(self, partial: pl.DataFrame) -> pl.DataFrame:
        try:
            return self._aggregates.merge(partial, _BY)
        except AggregateOverflow as cause:
            raise overflow(self._node, cause) from cause

    def _keys_of(self, batch: Batch) -> pl.Series:
        if self._grouped_serde is self._key_serde:
            keys = batch.keys.frame().get_column("key")
            if keys.dtype == self._key_serde.dtype:
                return keys
            # An expression may make a smaller integer, or text where no type is declared: as stored, it is neither.
            return self._key_serde.frame_from_encoded(batch.keys.encoded()).get_column("key")
        return pl.Series("key", batch.keys.encoded(), dtype=pl.Binary)

    def _push(self, frame: pl.DataFrame) -> None:
        """Add rows; merge when they are many, and next when they have doubled, so that a row is merged a few times."""
        self._frames.append(frame)
        # Counted on the way, as a sum over all frames is quadratic in their number: rows that have left still count.
        self._pushed_count += frame.height
        if self._pushed_count > self._merge_above:
            self._pushed_count = self._merged().height
            self._merge_above = max(_UNMERGED_ROWS_MAX, 2 * self._pushed_count)

    def _merged(self) -> pl.DataFrame:
        """Return all groups as one frame with one row each, and keep it so."""
        if len(self._frames) > 1:
            self._frames = [self._merge(pl.concat(self._frames))]
        return self._frames[0]

    def absorb(self, block: bytes) -> None:
        """Take the partial rows of a frame block."""
        self._push(decode_frame_block(block))

    def load(self, ends_ms: Sequence[int], keys: Sequence[bytes], encoded: Sequence[bytes]) -> None:
        """Take stored partial rows."""
        if not keys:
            return
        key_frame = self._grouped_serde.frame_from_encoded(keys)
        ends = pl.Series("window_end", ends_ms, dtype=pl.Int64)
        partial = self._aggregates.decode(list(encoded))
        self._push(pl.concat([pl.DataFrame([ends]), key_frame, partial], how="horizontal"))

    def take_until(self, end_ms: int) -> "FrameGroups":
        """Split the closed windows off; a frame that is all on one side is not filtered."""
        closed: list[pl.DataFrame] = []
        still_open: list[pl.DataFrame] = []
        for frame in self._frames:
            # numpy takes 4 us for each of these, a filter 50.
            ends_ms = frame.get_column("window_end").to_numpy()
            if ends_ms.min() > end_ms:
                still_open.append(frame)
            elif ends_ms.max() <= end_ms:
                closed.append(frame)
            else:
                closed.append(frame.filter(pl.col("window_end") <= end_ms))
                still_open.append(frame.filter(pl.col("window_end") > end_ms))
        self._frames = still_open
        return self._with(closed)

    def by_window(self) -> dict[int, "FrameGroups"]:
        """Return the groups of each window, by its end."""
        parts = self._merged().partition_by("window_end", as_dict=True)
        return {int(end_ms): self._with([part]) for (end_ms,), part in parts.items()}

    def over(self, older: Sequence["FrameGroups"]) -> "FrameGroups":
        """Return these groups and, of the older ones, those whose window and key is not among them."""
        if not older:
            return self
        frames = [one._merged() for one in older]  # noqa: SLF001  # one class
        return self._with([pl.concat([*frames, self._merged()]).unique(_BY, keep="last")])

    def merge(self, other: "FrameGroups") -> None:
        """Merge other groups in."""
        self._frames += other._frames  # noqa: SLF001  # one class

    def take_all(self) -> "FrameGroups":
        """Move everything to a new collection."""
        taken = self._with(self._frames)
        self._frames, self._pushed_count, self._merge_above = [], 0, _UNMERGED_ROWS_MAX
        return taken

    def ends_ms(self) -> npt.NDArray[np.int64]:
        """Return the window end of each group."""
        if not self._frames:
            return np.empty(0, dtype=np.int64)
        return self._merged().get_column("window_end").to_numpy()

    def keys(self) -> Sequence[bytes]:
        """Return the encoded keys."""
        if not self._frames:
            return []
        keys = self._grouped_serde.encoded_from_frame(self._merged().select("key"))
        return keys  # type: ignore[return-value]  # null keys are refused when rows are added

    def merge_stored(self, stored: Sequence[bytes | None]) -> None:
        """Merge the stored partial rows in; groups keep their order."""
        found = [index for index, data in enumerate(stored) if data is not None]
        if not found:
            return
        frame = self._merged()
        partial = self._aggregates.decode([stored[index] for index in found])  # type: ignore[misc]  # not None
        merged = pl.concat([frame, pl.concat([frame[found].select(_BY), partial], how="horizontal")])
        again = self._merge(merged)
        self._frames = [frame.select(_BY).join(again, on=_BY, how="left", maintain_order="left")]

    def encoded(self) -> list[bytes]:
        """Return the encoded partial columns of each group."""
        return self._aggregates.encode(self._merged().drop(_BY)) if self._frames else []

    def results(self) -> Results:
        """Return the finished groups, by window and key."""
        # By the bytes of the key, as in the Python spelling; text sorts as its UTF-8 does.
        key = pl.col("key").cast(pl.String) if self._grouped_serde.dtype == pl.Int64 else pl.col("key")
        self._frames = [frame] = [self._merged().sort("window_end", key)]
        try:
            final = self._aggregates.final(frame)
        except AggregateOverflow as cause:
            raise overflow(self._node, cause) from cause
        if self._scalar is not None:
            values = Column(self._value_serde, objects=final.get_column(self._scalar).to_list())
        else:
            values = Column(self._value_serde, frame=final.drop(_BY))
        return Results(
            keys=self._key_column(final.select("key")),
            values=values,
            ends_ms=final.get_column("window_end").to_numpy(),
        )

    def _key_column(self, keys: pl.DataFrame) -> Column:
        if self._grouped_serde is self._key_serde:
            return Column(self._key_serde, frame=keys)
        return Column(self._key_serde, encoded=self._grouped_serde.encoded_from_frame(keys))

    def blocks(self, shard_count: int) -> list[tuple[int, bytes]]:
        """Return frame blocks by shard."""
        frame = self._merged()
        shards = pl.Series("shard", partitions_of(self.keys(), shard_count))
        parts = frame.with_columns(shards).partition_by("shard", as_dict=True, include_key=False)
        return [(int(shard), block) for (shard,), part in sorted(parts.items()) for block in encode_frame_block(part)]


def _spread(alike: pl.DataFrame, advance_ms: int) -> pl.DataFrame:
    """Return each partial row once for each of its `window_count` windows."""
    windows = RowWindows(
        ends_ms=alike.get_column("window_end").to_numpy(),
        counts=alike.get_column(_COUNT).to_numpy(),
        advance_ms=advance_ms,
    )
    rows, ends_ms = windows.spread()
    return alike.drop(_COUNT)[rows].with_columns(pl.Series("window_end", ends_ms))


def _order_columns(batch: Batch) -> list[pl.Series]:
    source = batch.origin.source
    return [
        pl.Series("$timestamp", batch.timestamps_ms),
        pl.Series("$source", [source_order(source.topic, source.partition)] * len(batch), dtype=pl.String),
        pl.Series("$offset", batch.offsets),
        pl.Series("$row", rows_in_record(batch)),
    ]
