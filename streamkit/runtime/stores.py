"""Where the stores of a worker's tasks live: below a state directory, or in memory."""

from typing import Protocol

from streamkit.seams import FileSystem
from streamkit.state import MemoryStore, RocksDBResources, RocksDBStore, StateDirectory, StateStore

__all__ = ["DirectoryStores", "MemoryStores", "Stores"]


class Stores(Protocol):
    """Opens the store of a task, and sets a damaged one aside."""

    def open(self, task_id: str) -> StateStore:
        """Open or make the store of a task.

        Raises:
            StoreLockedError: Another worker uses it, or it is of another job.
            StoreDamagedError: Its files are damaged.
        """
        ...

    def close(self, task_id: str) -> None:
        """Give the task's directory back, after its store was closed."""
        ...

    def set_aside(self, task_id: str, reason: str) -> None:
        """Put the task's state out of the way, so that the next `open` starts empty."""
        ...


class DirectoryStores:
    """RocksDB stores below `STATE_DIR/<job>/<task>`.

    Args:
        fs: For locks and moves.
        state_dir: The root.
        job: Name of the job.
        log_id: Identity of the log the state belongs to.
    """

    def __init__(self, fs: FileSystem, state_dir: str, job: str, log_id: str) -> None:
        """Open nothing yet."""
        self._fs, self._state_dir, self._job, self._log_id = fs, state_dir, job, log_id
        self._resources = RocksDBResources()
        self._open: dict[str, StateDirectory] = {}

    def open(self, task_id: str) -> StateStore:
        """Take the directory's lock and open RocksDB in it."""
        directory = self._directory(task_id)
        return RocksDBStore(directory.store_path, resources=self._resources)

    def _directory(self, task_id: str) -> StateDirectory:
        if task_id not in self._open:
            self._open[task_id] = StateDirectory.open(
                self._fs, self._state_dir, job=self._job, task=task_id, log_id=self._log_id
            )
        return self._open[task_id]

    def close(self, task_id: str) -> None:
        """Give back the lock."""
        directory = self._open.pop(task_id, None)
        if directory is not None:
            directory.close()

    def set_aside(self, task_id: str, reason: str) -> None:
        """Rename the directory."""
        self._directory(task_id).set_aside(reason)
        self.close(task_id)


class MemoryStores:
    """Stores in memory, kept between opens as long as this object lives."""

    def __init__(self) -> None:
        """Start empty."""
        self.stores: dict[str, MemoryStore] = {}

    def open(self, task_id: str) -> StateStore:
        """Open what the task's last store flushed."""
        last = self.stores.get(task_id)
        self.stores[task_id] = MemoryStore() if last is None else last.survivor()
        return self.stores[task_id]

    def close(self, task_id: str) -> None:
        """Do nothing: the memory stays."""

    def set_aside(self, task_id: str, reason: str) -> None:  # noqa: ARG002  # nobody looks for it here
        """Forget the store."""
        self.stores.pop(task_id, None)
