"""The options `--input` and `--output`: a run whose streams and sinks are files."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from streamkit.broker import Broker, open_broker
from streamkit.broker.open import log_directory
from streamkit.errors import ConfigError, RecordError
from streamkit.files import FileRun, FileRunRequest, input_bindings, output_bindings
from streamkit.graph import Sink, Source
from streamkit.runtime.keys_check import topics_read_by_key
from streamkit.seams import SystemFileSystem
from streamkit.topology import Topology

__all__ = ["Bindings", "file_options", "file_run"]

_ROOT: Final = ".streamkit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """What the options say, as it was typed."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    overwrite: bool

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.inputs or self.outputs)


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that bind topics to files."""
    for option in (
        click.option("--overwrite", is_flag=True, help="Replace outputs that exist, once the run is done."),
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


@contextlib.contextmanager
def file_run(topology: Topology, bindings: Bindings, url: str) -> Iterator[tuple[FileRun, Broker | None]]:
    """Begin a run over files, or go on with it, and publish its outputs if what is within did not fail.

    Yields the run and the broker for its worker, None if the job is done already. What is within ends the `with` by
    an exception unless the job has finished.

    Args:
        topology: Of the job.
        bindings: Of its topics.
        url: Of the broker; the run's directory is below that of an embedded log.

    Raises:
        ConfigError: A binding is wrong, or the run cannot be gone on with.
        FileError: An output cannot be written. The same command tries again.
    """
    request = _request(topology, bindings, f"{log_directory(url) or _ROOT}/files")
    run = FileRun(request, SystemFileSystem())
    try:
        if run.published:
            yield run, None
        else:
            # What is lost at a power cut is computed again: nothing outside was told of it.
            log = open_broker(f"log://{run.log_directory}?durability=os")
            try:
                yield run, run.broker(log)
                run.write_outputs()
            except RecordError as error:
                run.name_place(error)
                raise
            finally:
                log.close()
        run.publish()
    finally:
        run.close()


def _request(topology: Topology, bindings: Bindings, root: str) -> FileRunRequest:
    sources = _topics(topology, Source)
    sinks = _topics(topology, Sink)
    inputs = input_bindings(bindings.inputs, sources)
    outputs = output_bindings(bindings.outputs, sinks)
    for option, topics, bound in (
        ("--input", sources, [binding.topic for binding in inputs]),
        ("--output", sinks, [binding.topic for binding in outputs]),
    ):
        for topic in topics:
            if topic not in bound:
                raise ConfigError(
                    f"the topic {topic!r} has no {option}, and a run over files has one for each topic of the job",
                    hint=f"{option} {topic}=PATH",
                )
    return FileRunRequest(
        topology=topology,
        inputs=inputs,
        outputs=outputs,
        whole=tuple(topics_read_by_key(topology)),
        overwrite=bindings.overwrite,
        root=root,
    )


def _topics(topology: Topology, kind: type[Source] | type[Sink]) -> list[str]:
    return sorted({node.topic for node in topology.graph.nodes if isinstance(node, kind)})
