"""Files as a seam: what the log needs of a file system, and nothing more."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

__all__ = ["File", "FileSystem", "SystemFileSystem"]


class File(Protocol):
    """One open file, read and written at byte positions."""

    def read_at(self, position: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `position`; fewer at the end of the file."""
        ...

    def write_at(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at `position`; on an error a part may be there."""
        ...

    def sync(self) -> None:
        """Return once what was written survives a power cut (`fdatasync`)."""
        ...

    def truncate(self, size_bytes: int) -> None:
        """Cut or extend the file to `size_bytes`."""
        ...

    def size_bytes(self) -> int:
        """Return the length of the file."""
        ...

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        ...


class FileSystem(Protocol):
    """A tree of directories and files, named by `/`-separated path strings."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file for reading and writing; `create` makes a missing one.

        Raises:
            FileNotFoundError: The file is missing and `create` is false.
        """
        ...

    def list(self, path: str) -> Sequence[str]:
        """Return the names in a directory, sorted; empty for a missing directory."""
        ...

    def make_dirs(self, path: str) -> None:
        """Make a directory and its parents durably; an existing one is fine."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename durably and atomically, replacing `new`."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file or a whole directory; a missing one is fine."""
        ...

    def sync_dir(self, path: str) -> None:
        """Return once the directory's entries survive a power cut."""
        ...

    def lock(self, path: str) -> File | None:
        """Take an exclusive lock on a file, made if missing; None if another holder has it.

        Closing the returned file, or the death of the process, gives the lock back.
        """
        ...

    def boot_id(self) -> str:
        """Return what every start of the machine changes: under another one, only what was synced is there."""
        ...


class _SystemFile:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read_at(self, position: int, size_bytes: int) -> bytes:
        return os.pread(self._fd, size_bytes, position)

    def write_at(self, position: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, position)
            position += written
            view = view[written:]

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._fd, size_bytes)

    def size_bytes(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        # A reader may hold a removed segment a moment longer than the log does: the last one closes it.
        self.close()


class SystemFileSystem:
    """The machine's files."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open with `O_RDWR`, and `O_CREAT` when `create`."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return _SystemFile(os.open(path, flags, 0o644))

    def list(self, path: str) -> Sequence[str]:
        """Return the sorted names of a directory."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def make_dirs(self, path: str) -> None:
        """Make the directory, and sync every parent that gained an entry."""
        directory = Path(path)
        missing = []
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for made in reversed(missing):
            made.mkdir(exist_ok=True)
            self.sync_dir(str(made.parent))

    def rename(self, old: str, new: str) -> None:
        """Rename and sync the directories of both names."""
        os.replace(old, new)
        parents = {os.path.dirname(old) or ".", os.path.dirname(new) or "."}
        for parent in sorted(parents):
            self.sync_dir(parent)

    def remove(self, path: str) -> None:
        """Remove a file or a tree."""
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def sync_dir(self, path: str) -> None:
        """Fsync the directory."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> File | None:
        """Take `flock(LOCK_EX | LOCK_NB)`."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return _SystemFile(fd)

    def boot_id(self) -> str:
        """Return Linux' own."""
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
