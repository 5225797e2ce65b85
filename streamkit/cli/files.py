"""The options `--input` and `--output`: a run whose streams and sinks are files."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from streamkit.broker import Broker, open_broker
from streamkit.broker.open import log_directory
from streamkit.cli.broker import opened
from streamkit.errors import ConfigError, RecordError
from streamkit.files import FileRun, FileRunRequest, input_bindings, letters_topic, output_bindings
from streamkit.graph import Sink, Source
from streamkit.runtime import RunOptions
from streamkit.runtime.keys_check import topics_read_by_key
from streamkit.seams import SystemFileSystem, SystemRng
from streamkit.topology import Topology

__all__ = ["Bindings", "begun_run", "binding_options", "file_options", "file_run", "is_bounded", "over_files"]

_ROOT: Final = ".streamkit"
_COMMIT_BYTES: Final = 64 * 1024 * 1024
_COMMIT_MS: Final = 1_500
"""Nobody waits for the commits of a run over files, and so rare, hot auctions took a fifth less CPU. Rarer ones keep
more in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """What the options say, as it was typed."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    overwrite: bool = False

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.inputs or self.outputs)


def binding_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that bind topics to files."""
    for option in (
        click.option(
            "--output",
            "outputs",
            multiple=True,
            metavar="TOPIC=PATH",
            help="Write a sink to a .jsonl, .csv or .parquet file in place of its topic.",
        ),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="TOPIC=PATH",
            help="Read a stream from a .txt, .jsonl, .csv (or one of these with .gz) or .parquet file, or from all that"
            " a glob matches. May come again.",
        ),
    ):
        command = option(command)
    return command


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that bind topics to files, and the one that gives files up."""
    overwrite = click.option("--overwrite", is_flag=True, help="Replace outputs that exist, once the run is done.")
    return binding_options(overwrite(command))


@contextlib.contextmanager
def file_run(
    topology: Topology, bindings: Bindings, url: str, *, bounded: bool
) -> Iterator[tuple[FileRun, Broker | None]]:
    """Begin a run over files, or go on with it, and publish its outputs if what is within did not fail.

    It has a log of its own if all topics of the job are files of an embedded log's user; else it is on the broker,
    under a name of its own. Yields the run and the broker for its worker, None if the job is done already. What is
    within ends the `with` by an exception unless the job has finished.

    Args:
        topology: Of the job.
        bindings: Of its topics.
        url: Of the broker; the run's directory is below that of an embedded log.
        bounded: Whether a source that is a topic is read to its end.

    Raises:
        ConfigError: A binding is wrong, or the run cannot be gone on with.
        FileError: An output cannot be written. The same command tries again.
    """
    with _opened_run(_request(topology, bindings, url, bounded=bounded), url) as (run, broker):
        yield run, broker
        if broker is not None:
            run.write_outputs()


@contextlib.contextmanager
def begun_run(topology: Topology, bindings: Bindings, url: str) -> Iterator[tuple[FileRun, Broker]]:
    """Find a run over files that has begun and is not done.

    Yields the run and its broker. If what is within has written the outputs, they are put in their places at the end
    and the run is removed, as `file_run` does it.

    Args:
        topology: Of the job.
        bindings: Those that it was begun with.
        url: Of the broker.

    Raises:
        ConfigError: A binding is wrong, there is no such run, or a file has changed since it began. Nothing was made.
    """
    request = replace(_request(topology, bindings, url, bounded=True), begun=True)
    with _opened_run(request, url) as (run, broker):
        assert broker is not None, "it is not done"
        yield run, broker


@contextlib.contextmanager
def _opened_run(request: FileRunRequest, url: str) -> Iterator[tuple[FileRun, Broker | None]]:
    """Open a run and its log; at the end put its outputs in their places if they are written."""
    run = FileRun(request, SystemFileSystem(), SystemRng())
    try:
        if request.shared:
            with opened(url, make=not request.begun) as broker:
                with _place_named(run):
                    yield run, None if run.published else run.broker(broker)
                if run.published:
                    run.publish(broker)
            return
        # What is lost at a power cut is computed again: nothing outside was told of it.
        log = None if run.published else open_broker(f"log://{run.log_directory}?durability=os")
        try:
            with _place_named(run):
                yield run, None if log is None else run.broker(log)
        finally:
            if log is not None:
                log.close()
        if run.published:
            run.publish()
    finally:
        run.close()


@contextlib.contextmanager
def _place_named(run: FileRun) -> Iterator[None]:
    """Say of a bad record which file it is in."""
    try:
        yield
    except RecordError as error:
        run.name_place(error)
        raise


def over_files(options: RunOptions, run: FileRun) -> RunOptions:
    """Return the options as a run over files has them: rare commits, and warnings that name files."""
    return replace(options, commit_bytes_max=_COMMIT_BYTES, commit_interval_ms=_COMMIT_MS, place_of=run.place_name)


def is_bounded(topology: Topology, bindings: Bindings) -> bool:
    """Return whether every stream of the job is files, so that it ends."""
    return set(_topics(topology, Source)) <= {text.partition("=")[0] for text in bindings.inputs}


def _request(topology: Topology, bindings: Bindings, url: str, *, bounded: bool) -> FileRunRequest:
    sources, sinks, letters = _topics(topology, Source), _topics(topology, Sink), letters_topic(topology)
    sinks += [] if letters is None else [letters]
    inputs, outputs = input_bindings(bindings.inputs, sources), output_bindings(bindings.outputs, sinks)
    if outputs and not bounded and len(inputs) < len(sources):
        raise ConfigError(
            "an output is written when the run is done, and this one reads a topic, which has no end",
            hint="--bounded reads topics to their end as it is now, or bind all streams to files",
        )
    directory = log_directory(url)
    all_bound = len(inputs) == len(sources) and len(outputs) == len(sinks)
    return FileRunRequest(
        topology=topology,
        inputs=inputs,
        outputs=outputs,
        whole=tuple(topics_read_by_key(topology)),
        overwrite=bindings.overwrite,
        root=f"{directory or _ROOT}/files",
        shared=directory is None or not all_bound,
    )


def _topics(topology: Topology, kind: type[Source] | type[Sink]) -> list[str]:
    return sorted({node.topic for node in topology.graph.nodes if isinstance(node, kind)})
