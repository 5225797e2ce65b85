"""What `--input` and `--output` say: which topic of the job is which files.

Everything that can be wrong with a name is found here, before anything is read or made.
"""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from streamkit.errors import ConfigError
from streamkit.seams.user_files import absolute, facts_of, is_directory, matching, resolved

__all__ = ["Format", "InputBinding", "OutputBinding", "check_free", "format_of", "input_bindings", "output_bindings"]

_GZIP: Final = ".gz"


class Format(StrEnum):
    """How records lie in a file; the value is the end of its name."""

    TEXT = ".txt"
    JSON_LINES = ".jsonl"
    CSV = ".csv"
    PARQUET = ".parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputBinding:
    """A stream that is read from files.

    Args:
        topic: Of the job.
        named: What was named, paths and globs, absolute.
        paths: The files that this is now, absolute, in the order in which they were named.
    """

    topic: str
    named: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputBinding:
    """A sink that is written to a file: its absolute path."""

    topic: str
    path: str


def format_of(path: str) -> tuple[Format, bool]:
    """Return how records lie in a file, and whether it is compressed with gzip.

    Raises:
        ConfigError: The end of its name says neither.
    """
    inflated = path.removesuffix(_GZIP)
    gzip = inflated != path
    end = posixpath.splitext(inflated)[1]
    if end in set(Format) and not (gzip and end == Format.PARQUET):
        return Format(end), gzip
    raise ConfigError(
        f"{path!r} is no file that can be read: its name says how records lie in it",
        hint="a name ends with .txt, .jsonl or .csv, with .gz after it or not, or with .parquet",
    )


def input_bindings(texts: Iterable[str], topics: Sequence[str]) -> tuple[InputBinding, ...]:
    """Return the bindings of the streams, one a topic.

    Args:
        texts: Each `TOPIC=PATH`, a path or a glob; a topic that comes again gets more files.
        topics: Those that the job reads.

    Raises:
        ConfigError: A text has another form, a topic is none of the job's, no file is there, or one comes twice.
    """
    paths: dict[str, list[str]] = {}
    named: dict[str, list[str]] = {}
    for text in texts:
        topic, pattern = _parts(text, "--input", "reads", topics)
        of_topic = paths.setdefault(topic, [])
        named.setdefault(topic, []).append(absolute(pattern))
        for path in _matching(pattern):
            if path in of_topic:
                raise ConfigError(f"{path!r} is an input of {topic!r} twice", hint="name each file once")
            format_of(path)
            of_topic.append(path)
    return tuple(
        InputBinding(topic=topic, named=tuple(named[topic]), paths=tuple(of_topic))
        for topic, of_topic in sorted(paths.items())
    )


def output_bindings(texts: Iterable[str], topics: Sequence[str]) -> tuple[OutputBinding, ...]:
    """Return the bindings of the sinks.

    Args:
        texts: Each `TOPIC=PATH`.
        topics: Those that the job writes.

    Raises:
        ConfigError: A text has another form, a topic is none of the job's or bound twice, a path is no file of these
            formats, or its directory is missing.
    """
    paths: dict[str, str] = {}
    for text in texts:
        topic, path = _parts(text, "--output", "writes", topics)
        if topic in paths:
            raise ConfigError(f"{topic!r} has two outputs", detail=f"{paths[topic]} and {path}", hint="name one")
        _check_output(path)
        if absolute(path) in paths.values():
            raise ConfigError(f"{path!r} is the output of two topics", hint="give each a file of its own")
        paths[topic] = absolute(path)
    return tuple(OutputBinding(topic=topic, path=path) for topic, path in sorted(paths.items()))


def check_free(outputs: Iterable[OutputBinding], inputs: Iterable[InputBinding], *, overwrite: bool) -> None:
    """Check that no output takes the place of a file that was not given up.

    Raises:
        ConfigError: An output is an input, or exists and `overwrite` was not said.
    """
    read: Mapping[str, str] = {resolved(path): path for binding in inputs for path in binding.paths}
    for output in outputs:
        if resolved(output.path) in read:
            raise ConfigError(f"{output.path!r} is an input and an output", hint="write to another file")
        if not overwrite and facts_of(output.path) is not None:
            raise ConfigError(
                f"the output {output.path!r} exists",
                hint="--overwrite replaces it when the run is done; until then it stays as it is",
            )


def _parts(text: str, option: str, verb: str, topics: Sequence[str]) -> tuple[str, str]:
    topic, equals, path = text.partition("=")
    if not (topic and equals and path):
        raise ConfigError(f"{option} {text!r} is not TOPIC=PATH", hint=f"such as {option} {topics[0]}=FILE")
    if topic not in topics:
        raise ConfigError(
            f"{option} names the topic {topic!r}, and the job {verb} none of that name",
            detail=f"it {verb} {', '.join(topics)}",
        )
    return topic, path


def _matching(pattern: str) -> Sequence[str]:
    if is_directory(pattern):
        raise ConfigError(f"{pattern!r} is a directory", hint=f"name its files, such as '{pattern}/*.jsonl'")
    found = matching(pattern)
    if not found:
        what = "matches no file" if any(character in pattern for character in "*?[") else "does not exist"
        raise ConfigError(f"the input {pattern!r} {what}", hint=f"paths begin in {absolute('.')}")
    return found


def _check_output(path: str) -> None:
    parent = posixpath.dirname(absolute(path))
    if not is_directory(parent):
        raise ConfigError(f"the directory of the output {path!r} does not exist", hint=f"mkdir -p {parent}")
    if is_directory(path):
        raise ConfigError(f"the output {path!r} is a directory", hint="name a file")
    if posixpath.splitext(path)[1] not in {Format.JSON_LINES, Format.CSV, Format.PARQUET}:
        raise ConfigError(
            f"{path!r} is no file that can be written: its name says how", hint="it ends with .jsonl, .csv or .parquet"
        )
