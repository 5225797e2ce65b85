"""Runs of jobs over files in this process, as the command has them, and files of every format."""

import contextlib
import gzip
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from streamkit import Job
from streamkit.broker import Broker
from streamkit.cli.files import Bindings, file_run
from streamkit.files import FileRun
from streamkit.runtime import RunOptions, Summary, Worker
from streamkit.seams import MemoryFileSystem, SystemClock
from streamkit.topology import compile_graph

__all__ = ["INPUTS", "OUTPUTS", "left_undone", "lines_of", "ran", "rows_of_output", "worked", "write_rows"]

INPUTS = ("in.jsonl", "in.csv", "in.parquet", "in.jsonl.gz", "in.csv.gz")
"""A name for each format that holds objects."""
OUTPUTS = ("out.jsonl", "out.csv", "out.parquet")


def ran(
    job: Job, directory: Path, inputs: Sequence[str], outputs: Sequence[str], *, overwrite: bool = False
) -> Summary:
    """Run a job over files, and publish what it gives.

    Args:
        job: Not frozen yet, or frozen.
        directory: Where the run's own directory is.
        inputs: Each `TOPIC=PATH`.
        outputs: Each `TOPIC=PATH`.
        overwrite: Whether outputs that exist are replaced.
    """
    topology = compile_graph(job.build())
    bindings = Bindings(inputs=inputs, outputs=outputs, overwrite=overwrite)
    with file_run(topology, bindings, f"log://{directory}/log", bounded=True) as (files, broker):
        assert broker is not None, "the run was not done before"
        return worked(files, broker)


@contextlib.contextmanager
def left_undone(directory: Path, job: Job, bound: str, output: str) -> Iterator[tuple[FileRun, Broker]]:
    """Begin a run, or go on with it, and leave it as it is behind the `with`, as if it had died."""
    topology = compile_graph(job.build())
    bindings = Bindings(inputs=[bound], outputs=[output], overwrite=False)
    url = f"log://{directory}/log"
    with contextlib.suppress(_Left), file_run(topology, bindings, url, bounded=True) as (files, broker):
        assert broker is not None, "the run was not done before"
        yield files, broker
        raise _Left


class _Left(Exception):
    """Nothing went wrong."""


def worked(files: FileRun, broker: Broker) -> Summary:
    """Run the job of a run to its end, without its state on the disk."""
    options = RunOptions(bounded=True, place_of=files.place_name)
    fs, clock = MemoryFileSystem(), SystemClock()
    summary = Worker(files.topology, broker, options=options, fs=fs, clock=clock).run(threading.Event())
    assert summary.finished
    return summary


def lines_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as lines of JSON."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> None:
    """Write rows in the format that the name says; `schema` is what a table without rows has."""
    frame = pl.DataFrame(list(rows), schema=dict(schema))
    if path.suffix == ".parquet":
        frame.write_parquet(path)
        return
    data = frame.write_csv().encode() if ".csv" in path.suffixes else lines_of(rows)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def rows_of_output(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an output as they stand, whatever its format."""
    match path.suffix:
        case ".jsonl":
            return [orjson.loads(line) for line in path.read_bytes().splitlines()]
        case ".csv":
            return pl.read_csv(path, infer_schema_length=None).to_dicts()
        case _:
            return pl.read_parquet(path).to_dicts()
