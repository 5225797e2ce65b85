"""`Serde`: values of one type to bytes and back, one by one and a whole column at a time.

A column is in one of three forms: encoded (bytes, None for null), objects, or a frame. This base converts row by row
from `encode` and `decode`, and lays scalars out as a frame of one column; a subclass overrides what it can do faster.
Each conversion of a column raises `RowError` for the first bad row, whatever the fast path found first.

Not here: the types themselves (`plain`, `json`, `rows`), which type gets which serde (`factory`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl

from streamkit.records import RowError

__all__ = ["Serde", "convert_each", "type_name"]


def type_name(type_: Any) -> str:
    """Return how a type is called in messages."""
    return type_.__name__ if isinstance(type_, type) else str(type_).replace("typing.", "")


def convert_each(
    convert: Callable[[Any], Any], rows: Iterable[Any], bad: Callable[[int, Exception], RowError]
) -> list[Any]:
    """Return `convert(row)` of each row.

    Raises:
        RowError: What `bad` makes of the index of the first bad row and the exception it raised.
    """
    made: list[Any] = []
    try:
        # `extend` keeps what was made before an exception, so its length is the index of the bad row.
        made.extend(map(convert, rows))
    except Exception as cause:
        raise bad(len(made), cause) from cause
    return made


class Serde(ABC):
    """Values of one type as bytes; satisfies `records.Decoder`.

    Args:
        what: What is encoded, "key" or "value": names the only column of a scalar's frame, and the errors.
        name: How the type is called in errors.
        dtype: Column type of a scalar; None lets Polars find one.
        nullable: Whether None is a value, encoded as null (no bytes).
    """

    def __init__(self, what: str, name: str, *, dtype: pl.DataType | None, nullable: bool) -> None:
        """Keep what all serdes need."""
        self.what, self.name, self.dtype, self.nullable = what, name, dtype, nullable

    def __repr__(self) -> str:
        """Return what it is for."""
        return f"<{type(self).__name__} of {self.what} {self.name}>"

    def encode(self, value: Any) -> bytes | None:
        """Return the bytes of one value; None is null.

        Raises:
            RowError: The value is not of the type.
        """
        return self.encoded_from_objects([value])[0]

    def decode(self, data: bytes | None) -> Any:
        """Return the value of some bytes.

        Raises:
            RowError: They are not of the type.
        """
        return self.objects_from_encoded([data])[0]

    def narrowed(self, columns: Iterable[str]) -> "Serde":
        """Return a serde whose frames made from bytes hold at least `columns`; every field is still checked."""
        del columns
        return self

    def objects_from_encoded(self, encoded: Sequence[bytes | None]) -> list[Any]:
        """Decode each row into a Python object."""
        if None not in encoded:
            return self._decode_present(encoded)  # type: ignore[arg-type]  # no None in it
        if not self.nullable:
            index = encoded.index(None)
            self._decode_present(encoded[:index])  # type: ignore[arg-type]  # an earlier bad row comes first
            raise self._null(index)
        return self._among_nulls(encoded, self._decode_present)

    def encoded_from_objects(self, objects: Sequence[Any]) -> list[bytes | None]:
        """Encode each object."""
        if type(None) not in set(map(type, objects)):
            return self._encode_present(objects)
        if not self.nullable:
            index = next(index for index, value in enumerate(objects) if value is None)
            self._encode_present(objects[:index])
            raise self._null(index)
        return self._among_nulls(objects, self._encode_present)

    def frame_from_encoded(self, encoded: Sequence[bytes | None]) -> pl.DataFrame:
        """Decode all rows into a frame."""
        return self.frame_from_objects(self.objects_from_encoded(encoded))

    def frame_from_objects(self, objects: Sequence[Any]) -> pl.DataFrame:
        """Lay objects out as a frame: of one column, named for what it is."""
        self.encoded_from_objects(objects)  # Finds the first object that is not of the type.
        return pl.DataFrame([pl.Series(self.what, objects, dtype=self.dtype)])

    def objects_from_frame(self, frame: pl.DataFrame) -> list[Any]:
        """Make each row of a frame an object."""
        column = frame.to_series(0)
        if not self.nullable and column.null_count():
            raise self._null(int(column.is_null().arg_max() or 0))
        return column.to_list()

    def encoded_from_frame(self, frame: pl.DataFrame) -> list[bytes | None]:
        """Encode each row of a frame."""
        return self.encoded_from_objects(self.objects_from_frame(frame))

    def rows_from_dicts(self, objects: list[Any]) -> list[Any]:
        """Make each dict a row, if rows of the type are objects of a class; whatever else is there stays."""
        return objects

    @abstractmethod
    def _decode_present(self, encoded: Sequence[bytes]) -> list[Any]:
        """Decode rows none of which is null."""

    @abstractmethod
    def _encode_present(self, objects: Sequence[Any]) -> list[bytes | None]:
        """Encode objects none of which is None."""

    def _null(self, index: int) -> RowError:
        return RowError(index, f"the {self.what} is null, and {self.name} is declared")

    def _undecodable(self, data: Sequence[bytes | None]) -> Callable[[int, Exception], RowError]:
        def bad(index: int, cause: Exception) -> RowError:
            return RowError(index, f"the {self.what} does not decode as {self.name}: {reason_of(cause)}", data[index])

        return bad

    def _unencodable(self, objects: Sequence[Any]) -> Callable[[int, Exception], RowError]:
        def bad(index: int, cause: Exception) -> RowError:
            return self._unfit(index, objects[index], reason_of(cause))

        return bad

    def _unfit(self, index: int, value: Any, reason: str) -> RowError:
        data = repr(value).encode("utf-8", "backslashreplace")
        return RowError(index, f"the {self.what} does not encode as {self.name}: {reason}", data)

    @staticmethod
    def _among_nulls(rows: Sequence[Any], convert: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        """Convert the rows that are not None and leave the others where they are."""
        places = [index for index, row in enumerate(rows) if row is not None]
        made: list[Any] = [None] * len(rows)
        try:
            converted = convert([rows[index] for index in places])
        except RowError as error:
            error.index = places[error.index]
            raise
        for index, value in zip(places, converted, strict=True):
            made[index] = value
        return made


def reason_of(cause: Exception) -> str:
    """Return an exception's message, or its type where it has none."""
    return str(cause) or type(cause).__name__
