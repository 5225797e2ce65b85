"""Values of a table's topic, of which a null one deletes its key: it is None as an object, whatever the type."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from streamkit.records import Decoder, RowError

__all__ = ["Deletable"]


class Deletable:
    """Decodes values as another decoder does, and leaves nulls alone; there are no frames with nulls.

    Args:
        decoder: Of the values there are.
    """

    def __init__(self, decoder: Decoder) -> None:
        """Wrap."""
        self._decoder = decoder

    def objects_from_encoded(self, encoded: Sequence[bytes | None]) -> list[Any]:
        """Decode each row that is not null."""
        return _but_nulls(encoded, self._decoder.objects_from_encoded)

    def encoded_from_objects(self, objects: Sequence[Any]) -> list[bytes | None]:
        """Encode each object that is not None."""
        return _but_nulls(objects, self._decoder.encoded_from_objects)

    def frame_from_encoded(self, encoded: Sequence[bytes | None]) -> pl.DataFrame:
        """Decode all rows; none may be null."""
        return self._decoder.frame_from_encoded(encoded)

    def frame_from_objects(self, objects: Sequence[Any]) -> pl.DataFrame:
        """Lay objects out; none may be None."""
        return self._decoder.frame_from_objects(objects)

    def objects_from_frame(self, frame: pl.DataFrame) -> list[Any]:
        """Make each row an object."""
        return self._decoder.objects_from_frame(frame)

    def encoded_from_frame(self, frame: pl.DataFrame) -> list[bytes | None]:
        """Encode each row."""
        return self._decoder.encoded_from_frame(frame)


def _but_nulls(rows: Sequence[Any], convert: Callable[[list[Any]], list[Any]]) -> list[Any]:
    present = [index for index, row in enumerate(rows) if row is not None]
    if len(present) == len(rows):
        return convert(list(rows))
    made: list[Any] = [None] * len(rows)
    try:
        for index, value in zip(present, convert([rows[index] for index in present]), strict=True):
            made[index] = value
    except RowError as error:
        raise RowError(present[error.index], error.reason, error.data) from error
    return made
