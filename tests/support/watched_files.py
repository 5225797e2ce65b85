"""A file system through the seam that tells of every change before it happens, so that a test can make it fail."""

from collections.abc import Callable, Sequence

from streamkit.seams import File, FileSystem, MemoryFileSystem

Watch = Callable[[str, str], None]


class WatchedFileSystem:
    """Calls `watch(change, path)` before each change of `inner`; an error raised there is that change's.

    A write that fails has written the first half of its bytes.
    """

    def __init__(self, inner: FileSystem | None = None) -> None:
        self.inner: FileSystem = inner or MemoryFileSystem()
        self.watch: Watch = lambda change, path: None

    def open(self, path: str, *, create: bool = False) -> File:
        try:
            opened = self.inner.open(path)
        except FileNotFoundError:
            if not create:
                raise
            self.watch("create", path)
            opened = self.inner.open(path, create=True)
        return _WatchedFile(self, path, opened)

    def list(self, path: str) -> Sequence[str]:
        return self.inner.list(path)

    def make_dirs(self, path: str) -> None:
        self.inner.make_dirs(path)

    def rename(self, old: str, new: str) -> None:
        self.watch("rename", old)
        self.inner.rename(old, new)

    def remove(self, path: str) -> None:
        self.watch("remove", path)
        self.inner.remove(path)

    def sync_dir(self, path: str) -> None:
        self.watch("sync_dir", path)
        self.inner.sync_dir(path)

    def lock(self, path: str) -> File | None:
        return self.inner.lock(path)


class _WatchedFile:
    def __init__(self, fs: WatchedFileSystem, path: str, inner: File) -> None:
        self._fs, self._path, self._inner = fs, path, inner

    def read_at(self, position: int, size_bytes: int) -> bytes:
        return self._inner.read_at(position, size_bytes)

    def write_at(self, position: int, data: bytes | bytearray | memoryview) -> None:
        try:
            self._fs.watch("write", self._path)
        except OSError:
            self._inner.write_at(position, data[: len(data) // 2])
            raise
        self._inner.write_at(position, data)

    def sync(self) -> None:
        self._fs.watch("sync", self._path)
        self._inner.sync()

    def truncate(self, size_bytes: int) -> None:
        self._fs.watch("truncate", self._path)
        self._inner.truncate(size_bytes)

    def size_bytes(self) -> int:
        return self._inner.size_bytes()

    def close(self) -> None:
        self._inner.close()
