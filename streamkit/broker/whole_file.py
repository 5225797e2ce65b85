"""Small files that are written whole: body, then one line with its checksum, put in place by an atomic rename.

Whoever opens such a file sees the old body or the new one, and a damaged body is noticed.
"""

from typing import Final

import google_crc32c

from streamkit.errors import CorruptBatchError
from streamkit.seams import FileSystem

__all__ = ["read_whole", "write_whole"]

_TRAILER: Final = b"\ncrc32c "
_TRAILER_BYTES: Final = len(_TRAILER) + 8 + 1


def write_whole(fs: FileSystem, path: str, body: bytes) -> None:
    """Put `body` at `path`, durably and all or nothing.

    Raises:
        OSError: The file system refused; the old body is still there.
    """
    new_path = path + ".new"
    fs.remove(new_path)
    file = fs.open(new_path, create=True)
    try:
        file.write_at(0, body + _TRAILER + b"%08x\n" % google_crc32c.value(body))
        file.sync()
    finally:
        file.close()
    fs.rename(new_path, path)


def read_whole(fs: FileSystem, path: str) -> bytes | None:
    """Return the body at `path`, None if there is no such file.

    Raises:
        CorruptBatchError: The body is not what was written.
    """
    try:
        file = fs.open(path)
    except FileNotFoundError:
        return None
    try:
        data = file.read_at(0, file.size_bytes())
    finally:
        file.close()
    body = data[:-_TRAILER_BYTES]
    if data[len(body) :] != _TRAILER + b"%08x\n" % google_crc32c.value(body):
        raise CorruptBatchError(
            "the file does not match its checksum",
            file=path,
            position=0,
            hint="restore the file from a backup of the log directory",
        )
    return body
