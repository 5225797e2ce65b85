"""Runs every columnar node twice, with the batch cut elsewhere: results must not depend on batch size."""

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from streamkit.errors import RowWiseError
from streamkit.graph import Node
from streamkit.records import Batch
from streamkit.runtime.operators.stateless import Step

__all__ = ["row_wise_check"]


def row_wise_check(node: Node, step: Step) -> Step:
    """Return a step that also runs on the two parts of each batch, and compares."""

    def checked(batch: Batch) -> Batch:
        whole = step(batch)
        count = len(batch)
        if count > 1:
            cut = count // 2
            parts = [step(batch.take(np.arange(*bounds, dtype=np.int64))) for bounds in ((0, cut), (cut, count))]
            _compare(node, batch, whole, parts)
        return whole

    return checked


def _compare(node: Node, batch: Batch, whole: Batch, parts: list[Batch]) -> None:
    rows = sum(map(len, parts))
    halves = [part for part in parts if len(part)]
    if rows == len(whole) and halves:
        try:
            for made, expected in (
                (pl.concat([part.values.frame() for part in halves], how="vertical"), whole.values.frame()),
                (pl.concat([part.keys.frame() for part in halves], how="vertical"), whole.keys.frame())
                if whole.keys.is_frame
                else (pl.DataFrame(), pl.DataFrame()),
            ):
                assert_frame_equal(made, expected, check_exact=True)
        except (AssertionError, pl.exceptions.PolarsError) as difference:
            raise _error(node, batch, str(difference)) from difference
    elif rows != len(whole):
        raise _error(node, batch, f"{len(whole)} rows at once, {rows} rows in two parts")


def _error(node: Node, batch: Batch, difference: str) -> RowWiseError:
    return RowWiseError(
        f"{node.name!r} is not row-wise: its rows depend on where a batch is cut",
        topic=batch.origin.source.topic,
        partition=batch.origin.source.partition,
        offset=int(batch.offsets[0]),
        node=node.name,
        data=difference.encode(),
        hint="use row-wise expressions only; a total over rows is an agg()",
    )
