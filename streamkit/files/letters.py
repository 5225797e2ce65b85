"""The dead letters of a run over files become a file too: their topic goes with the run.

A letter names the file and the place in it, for that is where its record is to be mended.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import orjson
import polars as pl

from streamkit.files.rows import SinkRows
from streamkit.files.shapes import SinkShape
from streamkit.records import Header, RecordColumns
from streamkit.topology import Topology
from streamkit.topology.names import dead_letter_topic

__all__ = ["LETTER_SHAPE", "PlaceOf", "letter_rows", "letters_topic"]

PlaceOf: TypeAlias = Callable[[str, int, int], tuple[str, str]]
"""From topic, partition and offset in the run to the job's name of the topic, and the place in a file or ""."""

_OWN_COUNT_MAX: Final = 7

LETTER_SHAPE: Final = SinkShape(
    integer_key=False,
    form="json",
    dtype=pl.Struct(
        {
            "reason": pl.String(),
            "node": pl.String(),
            "place": pl.String(),
            "topic": pl.String(),
            "partition": pl.Int64(),
            "offset": pl.Int64(),
            "table": pl.String(),
            "record": pl.String(),
        }
    ),
    nested=False,
    latest=False,
)


def letters_topic(topology: Topology) -> str | None:
    """Return the topic of a job's dead letters, None if it writes none."""
    graph = topology.graph
    writes = "dead_letter" in (*graph.policies().values(), graph.on_error)
    return dead_letter_topic(graph.job) if writes else None


def letter_rows(records: RecordColumns, place_of: PlaceOf) -> SinkRows:
    """Return dead letters as rows: what is wrong and where, and the record as text."""
    assert records.headers is not None, "a letter has some"
    values = [
        _letter(headers, value, place_of) for headers, value in zip(records.headers, list(records.values), strict=True)
    ]
    return SinkRows(keys=records.keys, values=values, timestamps_ms=records.timestamps_ms)


def _letter(headers: Sequence[Header], value: bytes | None, place_of: PlaceOf) -> bytes:
    # Ours come first, the table last among them; those of the record behind them may bear the same names.
    said = {name: (data or b"").decode("utf-8", "replace") for name, data in reversed(headers[:_OWN_COUNT_MAX])}
    topic, place = place_of(said["topic"], int(said["partition"]), int(said["offset"]))
    return orjson.dumps(
        {
            "reason": said["reason"],
            "node": said["node"],
            "place": place or None,
            "topic": topic,
            "partition": int(said["partition"]),
            "offset": int(said["offset"]),
            "table": said.get("dead_letter.table"),
            "record": None if value is None else value.decode("utf-8", "backslashreplace"),
        }
    )
