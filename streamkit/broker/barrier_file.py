"""The file `barrier`: up to where everything is durable, and cutting a log back to there (docs/formats/barrier.md).

It is there while a log is open with durability `os`, and after such a log died. Without it there is nothing to cut.
"""

import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec

from streamkit.broker.topics import Topic
from streamkit.broker.whole_file import read_whole, write_whole
from streamkit.errors import CorruptBatchError
from streamkit.log.cut import LogPlace, check_reaches, cut_back, sync_end
from streamkit.seams import FileSystem

__all__ = ["BarrierFile", "Ends", "PartitionEnd"]

FORMAT_VERSION: Final = 1
_START: Final = LogPlace(0, 0)


class PartitionEnd(msgspec.Struct, frozen=True, array_like=True):
    """Where a partition ends."""

    topic_id: str
    partition: int
    segment_offset: int
    size_bytes: int


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything ends at one moment. No `transactions_bytes`: the transaction log counts to its last byte."""

    transactions_bytes: int | None
    partitions: list[PartitionEnd]


class _Barrier(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    number: int
    boot_id: str
    ends: Ends


class BarrierFile:
    """The barrier of one log directory."""

    def __init__(self, fs: FileSystem, directory: str) -> None:
        """Name it; nothing is read."""
        self._fs, self._directory, self._path = fs, directory, f"{directory}/barrier"

    def write(self, number: int, ends: Ends) -> None:
        """Put another barrier in place of the last one; everything before `ends` is durable.

        Raises:
            OSError: The file system refused.
        """
        barrier = _Barrier(format=FORMAT_VERSION, number=number, boot_id=self._fs.boot_id(), ends=ends)
        write_whole(self._fs, self._path, msgspec.json.encode(barrier))

    def remove(self) -> None:
        """Remove it, durably: everything in the log is durable, and nothing will be cut."""
        if "barrier" in self._fs.list(self._directory):
            self._fs.remove(self._path)
            self._fs.sync_dir(self._directory)

    def settle(self, topics: Iterable[Topic]) -> None:
        """Make durable what a log with durability `os` left, and remove its barrier.

        If the machine went down since, everything is cut back to the barrier first: what the machine kept of later
        bytes differs from file to file. If only the process died, all that it wrote is there.

        Raises:
            CorruptBatchError: What the barrier says is not there. Nothing was changed.
        """
        barrier = self._read()
        if barrier is None:
            return
        directories = {
            (topic.topic_id, index): f"{self._directory}/{topic.name}-{index}"
            for topic in topics
            for index in range(topic.partition_count)
        }
        if barrier.boot_id == self._fs.boot_id():
            for directory in directories.values():
                sync_end(self._fs, directory)
            self._settle_transactions(None)
        else:
            self._cut(directories, barrier.ends)
        self.remove()

    def _cut(self, directories: dict[tuple[str, int], str], ends: Ends) -> None:
        places = {
            (end.topic_id, end.partition): LogPlace(end.segment_offset, end.size_bytes) for end in ends.partitions
        }
        known = [(directory, places[key]) for key, directory in directories.items() if key in places]
        for directory, place in known:
            check_reaches(self._fs, directory, place)
        self._settle_transactions(ends.transactions_bytes)
        for directory, place in known:
            cut_back(self._fs, directory, place)
        for key, directory in directories.items():
            if key not in places:
                # Its topic was made after the barrier, so none of its records is older.
                cut_back(self._fs, directory, _START)

    def _settle_transactions(self, size_bytes: int | None) -> None:
        path = f"{self._directory}/transactions.log"
        with contextlib.closing(self._fs.open(path)) as file:
            if size_bytes is not None:
                if file.size_bytes() < size_bytes:
                    raise CorruptBatchError(
                        f"{size_bytes} bytes of the transaction log were durable",
                        file=path,
                        position=file.size_bytes(),
                        hint="nothing was changed: restore the log directory from a backup",
                    )
                file.truncate(size_bytes)
            file.sync()

    def _read(self) -> _Barrier | None:
        body = read_whole(self._fs, self._path)
        if body is None:
            return None
        try:
            barrier = msgspec.json.decode(body, type=_Barrier)
        except msgspec.DecodeError as error:
            raise CorruptBatchError(f"the barrier does not decode: {error}", file=self._path) from error
        if barrier.format != FORMAT_VERSION:
            raise CorruptBatchError(
                f"the barrier has format version {barrier.format}, this release reads {FORMAT_VERSION}",
                file=self._path,
                hint="use the release that wrote it, or a later one",
            )
        return barrier
