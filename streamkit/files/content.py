"""The bytes of an input file by position, inflated if it is compressed, and where a line ends in them.

A file is looked at before each read: what changed under a run is refused, not read.
"""

import zlib
from collections.abc import Callable
from typing import Final, Protocol

from streamkit.errors import FileError
from streamkit.seams.user_files import FileFacts, UserFile

__all__ = ["CUT", "LINE_BYTES_MAX", "Content", "InflatedContent", "PlainContent", "line_end", "stretch"]

CUT: Final = "the file is cut: it ends before what is compressed in it"
"""What is said of a file with gzip that lacks its end."""

LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A line that is longer is no line: with a file that has no line feed in it, memory would be filled."""

_INPUT_BYTES: Final = 256 * 1024
_LOOK_BYTES: Final = 64 * 1024


class Content(Protocol):
    """Bytes by position."""

    def read_at(self, position: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from a position; fewer at the end.

        Raises:
            FileError: The file has changed, is damaged, or cannot be read.
        """
        ...


class PlainContent:
    """A file as it is; safe from several threads.

    Args:
        facts: What it was when the run began.
    """

    def __init__(self, facts: FileFacts) -> None:
        """Open it.

        Raises:
            FileError: It cannot be opened.
        """
        self._facts = facts
        try:
            self._file = UserFile(facts.path)
        except OSError as error:
            raise FileError(f"the input cannot be read: {error.strerror}", path=facts.path) from error

    def read_at(self, position: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from a position; fewer at the end."""
        try:
            now = self._file.facts()
            data = self._file.read_at(position, size_bytes)
        except OSError as error:
            raise FileError(
                f"the input cannot be read: {error.strerror}", path=self._facts.path, position=position
            ) from error
        if now != self._facts:
            raise FileError(
                f"the input has changed while it was read: it had {self._facts.size_bytes} bytes, now"
                f" {now.size_bytes}; modified at {self._facts.modified_ns} ns, now {now.modified_ns}",
                path=self._facts.path,
                hint="put the file back as it was, or begin anew",
            )
        return data


class InflatedContent:
    """What a file with gzip inflates to, from its beginning on; going back begins anew. For one thread at a time.

    Several members, one behind the other, are one content, as gzip itself has it.
    """

    def __init__(self, facts: FileFacts) -> None:
        """Open it.

        Raises:
            FileError: It cannot be opened.
        """
        self._path, self._content = facts.path, PlainContent(facts)
        self._begin()

    def _begin(self) -> None:
        self._read_bytes, self._left = 0, b""
        self._inflate: zlib._Decompress | None = None
        self._at, self._held = 0, bytearray()

    def read_at(self, position: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from a position; fewer at the end.

        Raises:
            FileError: The file ends in the middle, or is no gzip.
        """
        if position < self._at:
            self._begin()
        while self._at + len(self._held) < position + size_bytes:
            inflated = self._next()
            if inflated is None:
                break
            self._held += inflated
            gone = min(position - self._at, len(self._held))
            if gone > 0:
                del self._held[:gone]
                self._at += gone
        begin = position - self._at
        return bytes(self._held[begin : begin + size_bytes])

    def _next(self) -> bytes | None:
        """Return some more bytes, None at the end."""
        if not self._left:
            self._left = self._content.read_at(self._read_bytes, _INPUT_BYTES)
            self._read_bytes += len(self._left)
        if self._inflate is None:
            # Zeros behind a member fill up a tape's block.
            self._left = self._left.lstrip(b"\0")
            if not self._left:
                return None if not self._content.read_at(self._read_bytes, 1) else b""
            self._inflate = zlib.decompressobj(wbits=31)
        if not self._left:
            raise FileError(CUT, path=self._path, position=self._read_bytes)
        try:
            inflated = self._inflate.decompress(self._left, _INPUT_BYTES * 4)
        except zlib.error as error:
            position = self._read_bytes - len(self._left)
            raise FileError(
                f"the file is no gzip, or a damaged one: {error}", path=self._path, position=position
            ) from error
        self._left = self._inflate.unconsumed_tail or self._inflate.unused_data
        if self._inflate.eof:
            self._inflate = None
        return inflated


def line_end(content: Content, path: str, position: int, wanted: int, end: int) -> int:
    """Return the end of the last line that ends at or before `wanted`, or of the first one where none does.

    Args:
        content: Of the file.
        path: For errors.
        position: Where a line begins.
        wanted: About where to stop, beyond `position`.
        end: Where the last line ends, with a line feed or without.

    Raises:
        FileError: A line is longer than `LINE_BYTES_MAX`.
    """
    if wanted >= end:
        return end
    look = wanted
    while look > position:
        begin = max(position, look - _LOOK_BYTES)
        found = content.read_at(begin, look - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        look = begin
    while wanted < min(end, position + LINE_BYTES_MAX):
        data = content.read_at(wanted, _LOOK_BYTES)
        found = data.find(b"\n")
        if found >= 0:
            return min(wanted + found + 1, end)
        assert data, "a file of that size was opened, and has it still"
        wanted += len(data)
    if wanted < end:
        raise FileError(f"a line is longer than {LINE_BYTES_MAX} bytes", path=path, position=position)
    return end


def stretch(
    content: Content, path: str, position: int, wanted_bytes: int, whole_bytes: Callable[[bytes], int]
) -> tuple[bytes, bool]:
    """Return whole records from the begin of one on, and whether the content ends with them.

    Args:
        content: Read forwards alone.
        path: For errors.
        position: Where a record begins.
        wanted_bytes: About how much, at least 1.
        whole_bytes: Says how many of some bytes are whole records.

    Raises:
        FileError: A record is longer than `LINE_BYTES_MAX`.
    """
    while True:
        data = content.read_at(position, wanted_bytes + 1)
        if len(data) <= wanted_bytes:
            return data, True
        whole = whole_bytes(data)
        if whole:
            return data[:whole], False
        if wanted_bytes >= LINE_BYTES_MAX:
            raise FileError(f"a record is longer than {LINE_BYTES_MAX} bytes", path=path, position=position)
        wanted_bytes = min(2 * wanted_bytes, LINE_BYTES_MAX)
