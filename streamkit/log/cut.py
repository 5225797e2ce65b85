"""Cutting a partition's files back to where its log ended before: for logs that were acknowledged without an fsync.

Not here: what a crash leaves torn at the end (`recovery`).
"""

import contextlib
from typing import NamedTuple

from streamkit.errors import CorruptBatchError
from streamkit.log.recovery import segment_offsets
from streamkit.seams import FileSystem

__all__ = ["LogPlace", "check_reaches", "cut_back", "sync_end"]


class LogPlace(NamedTuple):
    """Where a log ends: in the segment of that first offset, after so many bytes."""

    segment_offset: int
    size_bytes: int


def check_reaches(fs: FileSystem, directory: str, place: LogPlace) -> None:
    """Raise unless the log in `directory` reaches `place`.

    Raises:
        CorruptBatchError: Something before it is missing. Nothing was changed.
    """
    path = _segment_path(directory, place.segment_offset)
    try:
        with contextlib.closing(fs.open(path)) as file:
            size_bytes = file.size_bytes()
    except FileNotFoundError:
        size_bytes = -1
    if size_bytes < place.size_bytes:
        raise CorruptBatchError(
            f"{place.size_bytes} bytes of the segment were durable" + (", but it is missing" if size_bytes < 0 else ""),
            file=path,
            position=max(0, size_bytes),
            hint="nothing was changed: restore the directory from a backup",
        )


def cut_back(fs: FileSystem, directory: str, place: LogPlace) -> None:
    """Remove what lies behind `place`, durably; what was cut half can be cut again."""
    for base_offset in reversed(segment_offsets(fs, directory)):
        path = _segment_path(directory, base_offset)
        if base_offset > place.segment_offset:
            fs.remove(path)
        elif base_offset == place.segment_offset:
            with contextlib.closing(fs.open(path)) as file:
                file.truncate(place.size_bytes)
                file.sync()
    fs.sync_dir(directory)


def sync_end(fs: FileSystem, directory: str) -> None:
    """Make the log durable as it is: earlier segments were, before the last one was begun."""
    for base_offset in segment_offsets(fs, directory)[-1:]:
        with contextlib.closing(fs.open(_segment_path(directory, base_offset))) as file:
            file.sync()


def _segment_path(directory: str, base_offset: int) -> str:
    return f"{directory}/{base_offset:020d}.log"
