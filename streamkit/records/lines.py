"""`Lines`: encoded rows that lie in one piece of memory, so that what converts a column reads them where they lie."""

from collections.abc import Iterator, Sequence
from typing import overload

__all__ = ["Lines"]


class Lines(Sequence[bytes | None]):
    """Encoded rows with a line feed between any two; no row is null, and none holds a line feed.

    Args:
        text: The rows, without a line feed behind the last.
        row_count: How many there are, at least 1.
    """

    __slots__ = ("_rows", "row_count", "text")

    def __init__(self, text: bytes, row_count: int) -> None:
        """Hold the bytes; they are cut only when somebody asks for a row."""
        self.text, self.row_count = text, row_count
        self._rows: list[bytes] | None = None

    def rows(self) -> list[bytes]:
        """Return each row by itself."""
        if self._rows is None:
            self._rows = self.text.split(b"\n")
            assert len(self._rows) == self.row_count, "a line feed too many"
        return self._rows

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self.row_count

    def __contains__(self, row: object) -> bool:
        """Return whether a row is there; null is not."""
        return row is not None and row in self.rows()

    def __iter__(self) -> Iterator[bytes | None]:
        """Go through the rows."""
        return iter(self.rows())

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | None]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes | None] | None:
        """Return one row or several."""
        return self.rows()[index]
