"""The directory of one task's state, `STATE_DIR/<job>/<task>`, held by one worker at a time.

::

    STATE_DIR/<job>/<task>.lock          held while the directory is open; never removed
                    <task>/owner         whose state this is, JSON
                    <task>/rocksdb/      the store
                    <task>/restoring/    a store that is being built, to take its place
                    <task>/replaced/     the store whose place was taken, while it is being removed
                    <task>.damaged-<n>/  the directory last set aside, with the reason in a file

The lock lies beside the directory, so that setting the directory aside does not give the lock away. State is never
precious: what cannot be trusted is set aside and restored from the changelog. Only what is somebody else's is refused.
"""

import re
from dataclasses import asdict, dataclass
from typing import Final

import orjson

from streamkit.errors import ConfigError, StoreInUseError, StoreLockedError
from streamkit.seams import File, FileSystem

__all__ = ["StateDirectory"]

_FORMAT: Final = 1
_JOB_NAME: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")
_TASK_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
"""No dots: `<task>.lock` and `<task>.damaged-<n>` can then never be another task's directory."""
_STORE: Final = "rocksdb"
_BESIDE: Final = "restoring"
_REPLACED: Final = "replaced"
_LEFT_BEHIND: Final = (_REPLACED, _BESIDE, f"{_BESIDE}.table", f"{_STORE}.table")
_OWNER_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owner:
    format: int
    job: str
    task: str
    log_id: str


class StateDirectory:
    """The open, locked state directory of one task; made by `StateDirectory.open`."""

    __slots__ = ("_fs", "_job_path", "_lock", "_owner")

    def __init__(self, fs: FileSystem, job_path: str, lock: File, owner: _Owner) -> None:
        """Take over a lock that is held."""
        self._fs, self._job_path, self._lock, self._owner = fs, job_path, lock, owner

    @classmethod
    def open(cls, fs: FileSystem, state_dir: str, *, job: str, task: str, log_id: str) -> "StateDirectory":
        """Lock the task's directory, made if missing.

        A directory whose owner file cannot be read, or whose state belongs to another log, is set aside, and the task
        gets an empty one.

        Args:
            fs: For the lock and all files but the store's own.
            state_dir: The root of all state.
            job: Name of the job: a topic name by Kafka's rule.
            task: Id of the task: letters, digits, `_` and `-`.
            log_id: Identity of the log that the state comes from.

        Raises:
            ConfigError: A name cannot be a file name. Nothing was touched.
            StoreInUseError: Another worker holds it.
            StoreLockedError: It belongs to another job or task, or to a newer streamkit. It was not changed.
        """
        for name, pattern in ((job, _JOB_NAME), (task, _TASK_NAME)):
            if not pattern.fullmatch(name):
                raise ConfigError(
                    f"the name {name[:250]!r} cannot be a directory of state",
                    hint="use 1 to 249 letters, digits, dots, underscores and dashes",
                )
        job_path = f"{state_dir}/{job}"
        fs.make_dirs(job_path)
        lock = fs.lock(f"{job_path}/{task}.lock")
        if lock is None:
            raise StoreInUseError(
                f"the state directory {job_path}/{task} is in use",
                detail=f"another worker holds {job_path}/{task}.lock",
                hint="stop the other worker, or pass another --state-dir",
            )
        directory = cls(fs, job_path, lock, _Owner(format=_FORMAT, job=job, task=task, log_id=log_id))
        try:
            directory._claim()
        except BaseException:
            lock.close()
            raise
        return directory

    @property
    def path(self) -> str:
        """The directory itself."""
        return f"{self._job_path}/{self._owner.task}"

    @property
    def store_path(self) -> str:
        """Where the store goes; the directory above it exists."""
        return f"{self.path}/{_STORE}"

    def begin_beside(self) -> str:
        """Return the path for a new store, built beside the one that is there; what an earlier one left is removed."""
        for name in _LEFT_BEHIND:
            self._fs.remove(f"{self.path}/{name}")
        return f"{self.path}/{_BESIDE}"

    def take_beside(self) -> None:
        """Put the store that was built beside in the place of the one that is there.

        Both must be closed. A crash in between leaves the old store, or none, or the new one, whole.
        """
        if _STORE in self._fs.list(self.path):
            self._fs.rename(self.store_path, f"{self.path}/{_REPLACED}")
        self._fs.rename(f"{self.path}/{_BESIDE}", self.store_path)
        self._fs.remove(f"{self.path}/{_REPLACED}")

    def empty(self) -> None:
        """Remove the store, which must be closed, and all that was set aside; the lock stays held."""
        for name in self._set_aside_before():
            self._fs.remove(f"{self._job_path}/{name}")
        self._fs.remove(self.path)
        self._start()

    def set_aside(self, reason: str) -> None:
        """Rename the directory to `<task>.damaged-<n>` and go on with an empty one; the lock stays held.

        The store in it must be closed. Only the directory set aside last is kept. A crash in between leaves either
        the old directory or an empty one.

        Args:
            reason: Why, for whoever looks at what was set aside.
        """
        old = self._set_aside_before()
        number = max(old.values(), default=0) + 1
        self._write_file(f"{self.path}/reason", reason.encode())
        self._fs.rename(self.path, f"{self.path}.damaged-{number}")
        for name in old:
            self._fs.remove(f"{self._job_path}/{name}")
        self._start()

    def close(self) -> None:
        """Give the lock back; closing twice does nothing."""
        self._lock.close()

    def _claim(self) -> None:
        """Make the directory ours, unless it is somebody else's."""
        there = set(self._fs.list(self.path))
        if not {"owner", _STORE} & there:
            self._start()
            return
        owner = self._read_owner()
        if owner is None:
            self.set_aside("the owner file is missing or damaged")
        elif owner.format > _FORMAT:
            raise StoreLockedError(
                f"the state directory {self.path} was written by a newer streamkit",
                detail=f"it has format {owner.format}, this streamkit reads up to {_FORMAT}",
                hint="use the newer streamkit, or pass another --state-dir",
            )
        elif (owner.job, owner.task) != (self._owner.job, self._owner.task):
            raise StoreLockedError(
                f"the state directory {self.path} belongs to task {owner.task} of job {owner.job}",
                detail=f"it was opened for task {self._owner.task} of job {self._owner.job}",
                hint="pass another --state-dir",
            )
        elif owner.log_id != self._owner.log_id:
            self.set_aside(f"its state comes from the log {owner.log_id}, not from {self._owner.log_id}")
        elif {_REPLACED, _BESIDE} <= there and _STORE not in there:
            # The new store was whole before the old one was moved away.
            self.take_beside()

    def _start(self) -> None:
        self._fs.make_dirs(self.path)
        self._write_file(f"{self.path}/owner", orjson.dumps(asdict(self._owner)))

    def _write_file(self, path: str, data: bytes) -> None:
        """Write a whole file, or leave it as it was."""
        file = self._fs.open(f"{path}.new", create=True)
        try:
            file.truncate(0)
            file.write_at(0, data)
            file.sync()
        finally:
            file.close()
        self._fs.rename(f"{path}.new", path)

    def _read_owner(self) -> _Owner | None:
        """Return what the owner file says, None if it says nothing that makes sense."""
        try:
            file = self._fs.open(f"{self.path}/owner")
        except FileNotFoundError:
            return None
        try:
            data = orjson.loads(file.read_at(0, _OWNER_BYTES_MAX))
            owner = _Owner(**{name: data[name] for name in _Owner.__slots__})
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        finally:
            file.close()
        texts = (owner.job, owner.task, owner.log_id)
        return owner if type(owner.format) is int and all(type(text) is str for text in texts) else None

    def _set_aside_before(self) -> dict[str, int]:
        """Return the directories set aside earlier, by name, with their numbers."""
        pattern = re.compile(re.escape(self._owner.task) + r"\.damaged-(\d+)")
        matches = {name: pattern.fullmatch(name) for name in self._fs.list(self._job_path)}
        return {name: int(match[1]) for name, match in matches.items() if match}
