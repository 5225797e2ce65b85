"""A file system in memory that knows what was synced, so that a power cut can be acted out."""

import threading
from collections.abc import Callable, Sequence

from streamkit.seams.filesystem import File

__all__ = ["MemoryFileSystem"]


class _Content:
    """The bytes of one file as written, and as of its last sync."""

    __slots__ = ("locked", "synced", "written")

    def __init__(self, data: bytes = b"") -> None:
        self.written = bytearray(data)
        self.synced = bytes(data)
        self.locked = False


class _MemoryFile:
    """A handle; `observe` is told of every change before it happens."""

    __slots__ = ("_content", "_locked", "_observe")

    def __init__(self, content: _Content, observe: Callable[[str], None], *, locked: bool = False) -> None:
        self._content, self._observe, self._locked = content, observe, locked

    def read_at(self, position: int, size_bytes: int) -> bytes:
        return bytes(memoryview(self._content.written)[position : position + size_bytes])

    def write_at(self, position: int, data: bytes | bytearray | memoryview) -> None:
        self._observe("write")
        written = self._content.written
        if position > len(written):
            written.extend(bytes(position - len(written)))
        written[position : position + len(data)] = data

    def sync(self) -> None:
        self._observe("sync")
        self._content.synced = bytes(self._content.written)

    def truncate(self, size_bytes: int) -> None:
        self._observe("truncate")
        written = self._content.written
        if size_bytes < len(written):
            del written[size_bytes:]
        else:
            written.extend(bytes(size_bytes - len(written)))

    def size_bytes(self) -> int:
        return len(self._content.written)

    def close(self) -> None:
        if self._locked:
            self._content.locked = False
            self._locked = False


class MemoryFileSystem:
    """Files in memory. Directory entries are durable at once; file bytes only when synced.

    `observe` is called with the name of every change (`write`, `sync`, `truncate`, `rename`, `remove`) before it
    happens; raising there acts out a crash at that point. `crashed()` gives what a power cut leaves, `killed()` what
    the death of the process leaves.
    """

    def __init__(self, observe: Callable[[str], None] | None = None) -> None:
        """Start empty."""
        self._files: dict[str, _Content] = {}
        self._guard = threading.Lock()
        self._observe = observe or (lambda change: None)
        self._boot = 1

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file of the tree."""
        with self._guard:
            if path not in self._files:
                if not create:
                    raise FileNotFoundError(path)
                self._files[path] = _Content()
            return _MemoryFile(self._files[path], self._observe)

    def list(self, path: str) -> Sequence[str]:
        """Return the names directly below `path`."""
        prefix = path.rstrip("/") + "/"
        with self._guard:
            names = {name[len(prefix) :].split("/", 1)[0] for name in self._files if name.startswith(prefix)}
        return sorted(names)

    def make_dirs(self, path: str) -> None:
        """Do nothing: a directory is there as soon as a file is."""

    def rename(self, old: str, new: str) -> None:
        """Rename a file or a directory, replacing `new`."""
        self._observe("rename")
        with self._guard:
            if old in self._files:
                self._files[new] = self._files.pop(old)
                return
            moved = [name for name in self._files if name.startswith(old + "/")]
            if not moved:
                raise FileNotFoundError(old)
            for name in moved:
                self._files[new + name[len(old) :]] = self._files.pop(name)

    def remove(self, path: str) -> None:
        """Remove a file or everything below a directory."""
        self._observe("remove")
        with self._guard:
            for name in [name for name in self._files if name == path or name.startswith(path + "/")]:
                del self._files[name]

    def sync_dir(self, path: str) -> None:
        """Do nothing: entries are durable at once."""

    def lock(self, path: str) -> File | None:
        """Lock a file within this file system."""
        with self._guard:
            content = self._files.setdefault(path, _Content())
            if content.locked:
                return None
            content.locked = True
            return _MemoryFile(content, self._observe, locked=True)

    def boot_id(self) -> str:
        """Return how many boots there were."""
        return f"boot {self._boot}"

    def crashed(
        self,
        keep: Callable[[str, int], int] | None = None,
        *,
        observe: Callable[[str], None] | None = None,
    ) -> "MemoryFileSystem":
        """Return the tree as a power cut would leave it.

        Args:
            keep: Given a path and how many bytes were written past the synced ones, returns how many of
                those survive. None keeps none.
            observe: Told of the changes to the tree that is returned, so that a recovery can crash too.
        """
        after = MemoryFileSystem(observe)
        after._boot = self._boot + 1
        with self._guard:
            for path, content in self._files.items():
                synced, written = content.synced, bytes(content.written)
                extra_bytes = max(0, len(written) - len(synced))
                kept_bytes = keep(path, extra_bytes) if keep is not None and written[: len(synced)] == synced else 0
                after._files[path] = _Content(synced + written[len(synced) : len(synced) + kept_bytes])
        return after

    def killed(self, *, observe: Callable[[str], None] | None = None) -> "MemoryFileSystem":
        """Return the tree as the death of the process leaves it: all that was written, synced or not, and no lock.

        Args:
            observe: Told of the changes to the tree that is returned.
        """
        after = MemoryFileSystem(observe)
        after._boot = self._boot
        with self._guard:
            for path, content in self._files.items():
                after._files[path] = _Content(content.synced)
                after._files[path].written = bytearray(content.written)
        return after
