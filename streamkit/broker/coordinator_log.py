"""The file `transactions.log`: checksummed frames, appended and synced in groups, rewritten whole by rename.

It knows frames, not what is in them (`coordinator_records`). Layout of a frame, big-endian::

    magic 4 | body length 4 | CRC-32C 4 | synced position 8 | body

The checksum covers the frame's own byte position, so that bytes are a frame only where they were written. The
synced position says up to where the file was durable when the frame was appended (the whole file, for the frames
of a rewrite). That tells a torn tail from damage: if any whole frame says that the broken place was durable,
acknowledged bytes are damaged and opening fails; else nothing from there on was acknowledged, and it is cut.

Not here: when to rewrite, and what to keep (`coordinator`).
"""

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final

import google_crc32c

from streamkit.errors import CorruptBatchError, LogError
from streamkit.seams import File, FileSystem

__all__ = ["CoordinatorLog"]

_MAGIC: Final = b"SKTX"
_FRAME: Final = struct.Struct(">4sIIQ")
_COVERED: Final = struct.Struct(">QQI")
BODY_BYTES_MAX: Final = 64 * 1024 * 1024


def _frame(body: bytes, *, position: int, synced_position: int) -> bytes:
    crc = _crc(body, position, synced_position)
    return _FRAME.pack(_MAGIC, len(body), crc, synced_position) + body


def _crc(body: bytes, position: int, synced_position: int) -> int:
    covered: int = google_crc32c.value(_COVERED.pack(position, synced_position, len(body)) + body)
    return covered


def _body_at(data: bytes, position: int) -> tuple[bytes, int] | None:
    """Return the body and synced position of the frame at `position`, None if there is no whole one."""
    if position + _FRAME.size > len(data):
        return None
    magic, length, crc, synced_position = _FRAME.unpack_from(data, position)
    begin = position + _FRAME.size
    if magic != _MAGIC or length > BODY_BYTES_MAX or begin + length > len(data):
        return None
    body = data[begin : begin + length]
    return (body, synced_position) if _crc(body, position, synced_position) == crc else None


def _frames_after(data: bytes, position: int) -> Iterator[int]:
    """Yield the synced position of each whole frame that begins beyond `position`."""
    found = data.find(_MAGIC, position + 1)
    while found >= 0:
        frame = _body_at(data, found)
        if frame is not None:
            yield frame[1]
        found = data.find(_MAGIC, found + 1)


class CoordinatorLog:
    """An append-only file of frames with group commit.

    Positions handed out count bytes since the log was opened and never go back, though a rewrite makes the file
    shorter. `append` and `rewrite` are called under the coordinator's lock, `sync` without it.
    """

    def __init__(self, fs: FileSystem, path: str) -> None:
        """Name the file; `create` or `load` opens it."""
        self._fs, self._path = fs, path
        self._file: File | None = None
        self._size_bytes = 0
        self._shift = 0
        self._durable = 0
        self._sync_lock = threading.Lock()
        self._failure: Exception | None = None
        self.acknowledging: Callable[[], AbstractContextManager[None]] | None = None
        """With durability `os`, what `sync` does instead of an fsync."""

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._size_bytes

    @property
    def end_position(self) -> int:
        """The position that makes everything appended so far durable."""
        return self._size_bytes + self._shift

    @property
    def durable_position(self) -> int:
        """Everything appended before this position survives a power cut, or was acknowledged without that."""
        return self._durable

    def load(self) -> list[bytes]:
        """Open the file, cut a torn tail, and return the bodies.

        Raises:
            FileNotFoundError: There is none; `rewrite` makes it.
            CorruptBatchError: A frame that was acknowledged is damaged. Nothing is changed.
        """
        file = self._fs.open(self._path)
        data = file.read_at(0, file.size_bytes())
        bodies, position, synced_position = [], 0, 0
        while (frame := _body_at(data, position)) is not None:
            bodies.append(frame[0])
            synced_position = max(synced_position, frame[1])
            position += _FRAME.size + len(frame[0])
        if position < max([synced_position, *_frames_after(data, position)]):
            file.close()
            raise CorruptBatchError(
                "a record of the transaction log is damaged",
                file=self._path,
                position=position,
                hint="restore the log directory from a backup; nothing was changed",
            )
        if position < len(data):
            file.truncate(position)
        file.sync()
        self._file, self._size_bytes, self._durable = file, position, position
        return bodies

    def append(self, body: bytes) -> int:
        """Append one frame; return the position up to which `sync` makes it durable.

        Raises:
            LogError: It could not be written. The log is as before, or stopped if even that failed.
        """
        file = self._usable()
        position = self._size_bytes
        frame = _frame(body, position=position, synced_position=self._durable - self._shift)
        try:
            file.write_at(position, frame)
        except OSError as error:
            self._undo_torn_write(file, position)
            raise LogError("the transaction log could not be written", detail=f"{self._path}: {error}") from error
        self._size_bytes = position + len(frame)
        return self.end_position

    def sync(self, upto: int) -> None:
        """Return once everything before position `upto` is durable; one fsync serves all who wait.

        Raises:
            LogError: The fsync failed, now or earlier. What is on the disk is unknown, so the log has stopped.
        """
        with self._sync_lock:
            self._usable()
            if self._durable >= upto:
                return
            end = self.end_position
            if self.acknowledging is None:
                self.sync_file()
                self._durable = end
                return
            with self.acknowledging():
                self._durable = end

    def sync_file(self) -> None:
        """Make the file durable as it is; what readers of positions know does not change.

        Raises:
            LogError: The fsync failed, now or earlier.
        """
        try:
            self._usable().sync()
        except OSError as error:
            self._failure = error
            raise LogError("the transaction log could not be synced", detail=f"{self._path}: {error}") from error

    def stop(self, error: Exception) -> None:
        """Refuse everything from now on: somewhere in the log directory an fsync failed."""
        self._failure = self._failure or error

    def check_running(self) -> None:
        """Raise unless the log can still be written.

        Raises:
            LogError: A write or fsync failed and what is on the disk is unknown, or the log is closed.
        """
        self._usable()

    def rewrite(self, bodies: Sequence[bytes]) -> None:
        """Replace the whole file by these bodies, durably and all or nothing.

        Raises:
            LogError: It could not be written. The old file is still in use.
        """
        size_bytes = sum(_FRAME.size + len(body) for body in bodies)
        data = bytearray()
        for body in bodies:
            data += _frame(body, position=len(data), synced_position=size_bytes)
        new_path = self._path + ".new"
        with self._sync_lock:
            self._raise_failure()
            try:
                self._fs.remove(new_path)
                new = self._fs.open(new_path, create=True)
                new.write_at(0, data)
                new.sync()
            except OSError as error:
                raise LogError("the transaction log could not be rewritten", detail=f"{new_path}: {error}") from error
            try:
                self._fs.rename(new_path, self._path)
            except OSError as error:
                # Which file bears the name now is unknown: one more append might go to the one that is lost.
                self._failure = error
                self._raise_failure()
            if self._file is not None:
                self._file.close()
            end = self.end_position
            self._file, self._size_bytes, self._shift = new, size_bytes, end - size_bytes
            self._durable = end

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        with self._sync_lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _usable(self) -> File:
        self._raise_failure()
        if self._file is None:
            raise LogError("the log is closed", detail=self._path)
        return self._file

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise LogError(
                "the log has stopped after a failed write or fsync",
                detail=f"{self._path}: {self._failure}",
                hint="open the log again: everything that was acknowledged is kept",
            ) from self._failure

    def _undo_torn_write(self, file: File, size_bytes: int) -> None:
        try:
            file.truncate(size_bytes)
        except OSError as error:
            self._failure = error
