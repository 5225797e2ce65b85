"""Streams out of other nodes: several merged into one, and the results of a table taken as facts."""

import numpy as np
import numpy.typing as npt
import polars as pl

from streamkit.records import NEVER_MS, Batch, Origin
from streamkit.runtime.operators.base import Fan

__all__ = ["FactsOperator", "MergeOperator"]


class _Port:
    """One input of a merge."""

    __slots__ = ("_merge", "ended", "watermark_ms")

    def __init__(self, merge: "MergeOperator") -> None:
        self._merge, self.watermark_ms, self.ended = merge, NEVER_MS, False

    def receive(self, batch: Batch) -> None:
        self._merge.out.receive(batch)

    def advance(self, watermark_ms: int) -> None:
        self.watermark_ms = watermark_ms
        self._merge.advanced()

    def end(self) -> None:
        self.ended = True
        self._merge.advanced()


class MergeOperator:
    """Joins several inputs into one stream; an input that ended holds no watermark back."""

    def __init__(self) -> None:
        """Start without inputs."""
        self._ports: list[_Port] = []
        self.out = Fan()

    def port(self) -> _Port:
        """Return the receiver of one more input."""
        self._ports.append(_Port(self))
        return self._ports[-1]

    def advanced(self) -> None:
        """Hand on what the inputs agree on."""
        running = [port.watermark_ms for port in self._ports if not port.ended]
        if running:
            self.out.advance(min(running))
        else:
            self.out.advance(min(port.watermark_ms for port in self._ports))
            self.out.end()


class FactsOperator:
    """Takes a table's final results as facts: plain key, timestamp window end - 1, no window any more.

    A window closes at once, but when that is, and in which order its groups come, depends on commits. As a fact a
    result stands in the order of (timestamp, key), and its offset is its rank in its window: `first` and `last` of a
    later aggregation then have an order that the log alone decides.
    """

    def __init__(self) -> None:
        """Start without receivers."""
        self.out = Fan()

    def receive(self, batch: Batch) -> None:
        """Put the results in order and forget their windows."""
        order = _order(batch)
        stamps = batch.timestamps_ms[order]
        origin = Origin(
            source=batch.origin.source,
            offsets=_ranks(stamps),
            timestamps_ms=stamps,
            watermarks_ms=batch.watermarks_ms[order],
            published_ms=batch.origin.published_ms,
        )
        self.out.receive(Batch(origin, batch.keys.take(order), batch.values.take(order)))

    def advance(self, watermark_ms: int) -> None:
        """Pass the watermark on."""
        self.out.advance(watermark_ms)

    def end(self) -> None:
        """Pass the end on."""
        self.out.end()


def _order(batch: Batch) -> npt.NDArray[np.int64]:
    columns = {"timestamp": batch.timestamps_ms, "key": pl.Series(batch.keys.encoded(), dtype=pl.Binary)}
    return pl.DataFrame(columns).select(pl.arg_sort_by("timestamp", "key")).to_series().to_numpy().astype(np.int64)


def _ranks(stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    begins = np.flatnonzero(np.diff(stamps, prepend=stamps[0] - 1))
    return np.arange(len(stamps), dtype=np.int64) - np.repeat(begins, np.diff(begins, append=len(stamps)))
