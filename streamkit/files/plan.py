"""The plan of a run over files: which bytes of which file are which offsets of which partition.

It is made once, when the run first starts, and kept in the run's directory: whoever goes on with the run reads the same
records at the same offsets. It depends on the files alone. A file is cut at the first line that begins at or after
each multiple of `PART_BYTES`; files that are smaller than that are put together, in order, up to that size.

A file that cannot be cut (gzip, and csv, where a line feed may stand within quotes) is a part by itself. Offsets are
bytes, of csv and text as they are read, after inflation, and rows in parquet.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import polars as pl

from streamkit.errors import ConfigError, FileError
from streamkit.files.bindings import Format, InputBinding, OutputBinding, format_of
from streamkit.files.content import CUT
from streamkit.seams.user_files import FileFacts, UserFile, facts_of

__all__ = [
    "PARTS_MAX",
    "PART_BYTES",
    "FilePartition",
    "Part",
    "RunPlan",
    "check_same_job",
    "check_unchanged",
    "made_plan",
    "part_bytes",
]

PART_BYTES: Final = 64 * 1024 * 1024
"""So much is worth the cost of a task."""
PARTS_MAX: Final = 4
"""Of one file: what a task keeps, about 8 MiB, must not grow with the file."""

_LOOK_BYTES: Final = 64 * 1024
_INFLATED_MAX: Final = 1032
"""Deflate makes no byte more than this many (its longest match, 258 bytes, in two bits)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`[begin, end)` of one file, in bytes or rows; its first record's offset is `offset`.

    The end of a file with gzip is not known before it is read: it is an upper bound.
    """

    path: str
    begin: int
    end: int
    offset: int

    @property
    def end_offset(self) -> int:
        """The offset behind its last record."""
        return self.offset + self.end - self.begin


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePartition:
    """The parts of one partition, in the order of their offsets; without any it is empty."""

    parts: tuple[Part, ...]

    @property
    def begin_offset(self) -> int:
        """The first offset."""
        return self.parts[0].offset if self.parts else 0

    @property
    def end_offset(self) -> int:
        """The offset behind the last record."""
        return self.parts[-1].end_offset if self.parts else 0

    def part_at(self, offset: int) -> Part | None:
        """Return the part that an offset lies in, None at the end."""
        return next((part for part in self.parts if offset < part.end_offset), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a run reads and writes.

    Args:
        name: Of the run: the job's where the log is the run's alone, else one that no other run has.
        files: What each input was when the run began.
        inputs: The partitions of each topic.
        outputs: The file of each sink.
        overwrite: Whether files that have the names of outputs are given up.
        nodes: What each node of the job was when the run began, as text.
    """

    name: str
    files: tuple[FileFacts, ...]
    inputs: Mapping[str, tuple[FilePartition, ...]]
    outputs: Mapping[str, str]
    overwrite: bool = False
    nodes: Mapping[str, str] = field(default_factory=dict)


def made_plan(
    name: str, inputs: Iterable[InputBinding], outputs: Iterable[OutputBinding], whole: Iterable[str]
) -> RunPlan:
    """Return the plan of a run that begins now.

    Args:
        name: Of the run.
        inputs: What it reads.
        outputs: What it writes.
        whole: Topics that are read by their own key: all of one is one partition, since a key may lie anywhere.

    Raises:
        ConfigError: A file cannot be read.
        FileError: A file with gzip has no bytes; nothing that is compressed has none.
    """
    files: dict[str, FileFacts] = {}
    partitions: dict[str, tuple[FilePartition, ...]] = {}
    for binding in inputs:
        parts: list[Part] = []
        for path in binding.paths:
            files[path], of_file = _parts_of(path)
            parts += of_file
        sizes = {path: files[path].size_bytes for path in binding.paths}
        partitions[binding.topic] = _put_together(parts, None if binding.topic in set(whole) else sizes)
    return RunPlan(
        name=name,
        files=tuple(files.values()),
        inputs=partitions,
        outputs={output.topic: output.path for output in outputs},
    )


def check_unchanged(plan: RunPlan, inputs: Iterable[InputBinding], directory: str) -> None:
    """Check that a run that goes on finds the files that it began with.

    Args:
        plan: Of the run.
        inputs: What it reads now: a glob may match other files.
        directory: Of the run.

    Raises:
        ConfigError: A file is missing, was added, or differs in size or modification time.
    """
    named = {path for binding in inputs for path in binding.paths}
    hint = f"put it back as it was and run the same command, or begin anew after rm -r {directory}"
    for was in plan.files:
        now = facts_of(was.path)
        if now is None or was.path not in named:
            raise ConfigError(f"{was.path!r} is gone, and a run that began with it is not finished", hint=hint)
        if now != was:
            raise ConfigError(
                f"{was.path!r} has changed since the run began",
                detail=f"it had {was.size_bytes} bytes, now {now.size_bytes}; modified at {was.modified_ns} ns, now"
                f" {now.modified_ns}",
                hint=hint,
            )
    added = sorted(named - {was.path for was in plan.files})
    if added:
        raise ConfigError(f"{added[0]!r} was not there when the run began, and it is not finished", hint=hint)


def check_same_job(plan: RunPlan, nodes: Mapping[str, str], directory: str) -> None:
    """Check that a run that goes on is of the job that it began with: of another one, half would be of either.

    Args:
        plan: Of the run; one without nodes was made before they were kept, and is of any job.
        nodes: What each node of the job is now.
        directory: Of the run.

    Raises:
        ConfigError: A node is new, gone, or another one.
    """
    if not plan.nodes or plan.nodes == nodes:
        return
    names = [name for name in {**plan.nodes, **nodes} if plan.nodes.get(name) != nodes.get(name)]
    changes = [f"{name}: was {plan.nodes.get(name, 'not there')}; is {nodes.get(name, 'gone')}" for name in names]
    raise ConfigError(
        "the job has changed since the run began, and it is not finished",
        detail="\n  ".join(changes),
        hint=f"undo the change and run the same command, or begin anew after rm -r {directory}",
    )


def _parts_of(path: str) -> tuple[FileFacts, list[Part]]:
    form, gzip = format_of(path)
    try:
        file = UserFile(path)
        try:
            facts = file.facts()
            if gzip:
                if not facts.size_bytes:
                    raise FileError(CUT, path=path, position=0)
                spans = [(0, facts.size_bytes * _INFLATED_MAX)]
            elif form is Format.PARQUET:
                spans = _row_spans(path, facts.size_bytes)
            elif form is Format.CSV:
                spans = [(0, facts.size_bytes)]
            else:
                spans = _line_spans(file.read_at, facts.size_bytes)
        finally:
            file.close()
    except OSError as error:
        raise ConfigError(f"{path!r} cannot be read", detail=error.strerror or str(error)) from error
    return facts, [Part(path=path, begin=begin, end=end, offset=begin) for begin, end in spans if begin < end]


def part_bytes(size_bytes: int) -> int:
    """Return how large the parts of a file of this size are, about: they depend on nothing else."""
    return max(PART_BYTES, -(-size_bytes // PARTS_MAX))


def _line_spans(read_at: Callable[[int, int], bytes], size_bytes: int) -> list[tuple[int, int]]:
    """Cut a text at the line ends behind the multiples of its parts' size."""
    cuts, step_bytes = {0, size_bytes}, part_bytes(size_bytes)
    for target in range(step_bytes, size_bytes, step_bytes):
        # A line that ends just before the target is over: what begins at the target is a line.
        position = target - 1
        while position < size_bytes:
            data = read_at(position, _LOOK_BYTES)
            found = data.find(b"\n")
            if found >= 0:
                cuts.add(position + found + 1)
                break
            position += max(len(data), 1)
    return list(pairwise(sorted(cuts)))


def _row_spans(path: str, size_bytes: int) -> list[tuple[int, int]]:
    """Cut the rows of a table evenly, into as many parts as its bytes would make."""
    try:
        count = int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"{path!r} is no parquet file, or a damaged one", detail=str(error)) from error
    parts = max(1, -(-size_bytes // part_bytes(size_bytes)))
    return list(pairwise([count * index // parts for index in range(parts + 1)]))


def _put_together(parts: Sequence[Part], sizes: Mapping[str, int] | None) -> tuple[FilePartition, ...]:
    """Put small files together, up to `PART_BYTES`; without `sizes` (the bytes of each file) all there is."""
    counts = Counter(part.path for part in parts)
    groups: list[list[Part]] = []
    room_bytes = 0
    for part in parts:
        size_bytes = PART_BYTES if sizes is None or counts[part.path] > 1 else sizes[part.path]
        if groups and (sizes is None or size_bytes <= room_bytes):
            end = groups[-1][-1].end_offset
            groups[-1].append(Part(path=part.path, begin=part.begin, end=part.end, offset=end))
            room_bytes -= size_bytes
        else:
            groups.append([part])
            room_bytes = PART_BYTES - size_bytes
    return tuple(FilePartition(parts=tuple(group)) for group in groups or [[]])
