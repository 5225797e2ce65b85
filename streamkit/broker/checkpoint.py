"""The file `checkpoint`: from where each partition must be read at open. It is derived: losing it costs time only."""

from collections.abc import Mapping
from typing import Final

import msgspec

from streamkit.broker.partition import Aborted
from streamkit.broker.whole_file import read_whole, write_whole
from streamkit.errors import CorruptBatchError
from streamkit.seams import FileSystem

__all__ = ["PartitionCheckpoint", "read_checkpoint", "write_checkpoint"]

FORMAT_VERSION: Final = 1


class PartitionCheckpoint(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a partition below `recovery_offset`: durable, no transaction open, these aborted."""

    topic_id: str
    recovery_offset: int
    aborted: list[Aborted]


class _CheckpointFile(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    partitions: dict[str, PartitionCheckpoint]


def write_checkpoint(fs: FileSystem, path: str, partitions: Mapping[str, PartitionCheckpoint]) -> None:
    """Replace the file; partitions go by `topic-partition`."""
    file = _CheckpointFile(format=FORMAT_VERSION, partitions=dict(partitions))
    write_whole(fs, path, msgspec.json.encode(file))


def read_checkpoint(fs: FileSystem, path: str) -> Mapping[str, PartitionCheckpoint]:
    """Return the partitions of the file; none if it is missing, damaged or of another format."""
    try:
        body = read_whole(fs, path)
        file = None if body is None else msgspec.json.decode(body, type=_CheckpointFile)
    except (CorruptBatchError, msgspec.DecodeError):
        return {}
    return file.partitions if file is not None and file.format == FORMAT_VERSION else {}
