"""Files that users name, to be read in place or written whole: other than the log's, they are nobody's but theirs."""

import contextlib
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "FileFacts",
    "NewFile",
    "UserFile",
    "absolute",
    "facts_of",
    "is_directory",
    "matching",
    "put_in_place",
    "resolved",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """By what a file is known again: its absolute path, its length, and when it was last modified (ns, UTC)."""

    path: str
    size_bytes: int
    modified_ns: int


def matching(pattern: str) -> Sequence[str]:
    """Return the absolute paths of the files that a path or a glob (`*`, `?`, `[a-z]`, `**`) names, sorted.

    A path that exists is taken as it stands, whatever characters are in it.
    """
    if os.path.isfile(pattern):
        return [os.path.abspath(pattern)]
    return sorted(os.path.abspath(path) for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))


def is_directory(path: str) -> bool:
    """Return whether a path is a directory, or a link to one."""
    return os.path.isdir(path)


def facts_of(path: str) -> FileFacts | None:
    """Return what a file is now, None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return FileFacts(path=os.path.abspath(path), size_bytes=found.st_size, modified_ns=found.st_mtime_ns)


class UserFile:
    """One file, opened for reading alone.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        """Open it."""
        self._path, self._fd = os.path.abspath(path), os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def facts(self) -> FileFacts:
        """Return what the open file is now."""
        found = os.fstat(self._fd)
        return FileFacts(path=self._path, size_bytes=found.st_size, modified_ns=found.st_mtime_ns)

    def read_at(self, position: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from a byte position; fewer at the end of the file."""
        data = os.pread(self._fd, size_bytes, position)
        if len(data) == size_bytes or not data:
            return data
        parts = [data]
        # Linux reads at most 2 GiB at once, and a network's file system less.
        while data:
            position, size_bytes = position + len(data), size_bytes - len(data)
            data = os.pread(self._fd, size_bytes, position)
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Close it; closing twice does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        """Close what nobody reads any more."""
        with contextlib.suppress(AttributeError):  # it could not be opened
            self.close()


class NewFile:
    """A file that is written from its beginning, emptied first if it is there.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, path: str) -> None:
        """Make it."""
        self._file = open(path, "wb")  # noqa: SIM115  # closed by `close`

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def close(self) -> None:
        """Close it once all is on the disk (fsync)."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def put_in_place(path: str, final_path: str) -> None:
    """Rename a file durably, over whatever is there: its bytes are on the disk before its new name is.

    Raises:
        OSError: The file system refused; the old file is still there.
    """
    for name, flags, rename in ((path, os.O_RDONLY, True), (os.path.dirname(final_path) or ".", os.O_DIRECTORY, False)):
        fd = os.open(name, flags | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if rename:
            os.replace(path, final_path)


def absolute(path: str) -> str:
    """Return a path from the root, through whatever links it is named."""
    return os.path.abspath(path)


def resolved(path: str) -> str:
    """Return the path of a file without links, by which two names of one file are the same."""
    return os.path.realpath(path)
