"""Many rows of JSON by polars' reader of lines: it holds no GIL and uses every core.

That reader forgives what a declared type does not: a number where text is declared becomes text, a missing field a
null, of a field given twice the first counts. So the bytes are looked at as well, and the rows are taken only if it
is certain that each is an object of exactly the declared fields, each once, each of its type. Else they are read one by
one, which also finds the first bad row and says what is wrong.

Why it is certain. There is no backslash, so each quote begins or ends a string; no bracket, so there is no array; no
white space but blanks, and none before a colon, so the closing quote of a key is followed by its colon. Every declared
column has a value in every row, so there are at least `rows * fields` keys; the pairs of quote and colon are just as
many, so there are no more. The quotes that are left are those of `rows * strings` text values; they cannot stand in
other columns, which polars reads strictly, so every text column has text in every row.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

__all__ = ["ROWS_MIN", "LinesDecoder"]

ROWS_MIN: Final = 1000
"""Below, the reader's fixed cost of 0.3 ms is more than it saves."""

_DTYPES: Final[Mapping[Any, pl.DataType]] = {
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
    bool: pl.Boolean(),
}
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_BLANK, _QUOTE, _COLON, _BRACKET, _BACKSLASH = (ord(character) for character in ' ":[\\')


class LinesDecoder:
    """Decodes many rows of one struct type at once.

    Args:
        fields: Name, name in JSON and column type of each field.
    """

    def __init__(self, fields: Sequence[tuple[str, str, pl.DataType]]) -> None:
        """Keep what is declared."""
        self._names = [name for name, _, _ in fields]
        self._schema = {encoded_name: dtype for _, encoded_name, dtype in fields}
        self._text_count = sum(isinstance(dtype, pl.String) for _, _, dtype in fields)

    @classmethod
    def of(cls, type_: Any) -> "LinesDecoder | None":
        """Return the decoder of a type, None if it is no struct of plain numbers, texts and booleans alone."""
        if not (isinstance(type_, type) and issubclass(type_, msgspec.Struct)) or hasattr(type_, "__post_init__"):
            return None
        config, fields = type_.__struct_config__, msgspec.structs.fields(type_)
        if config.array_like or config.tag is not None or not fields:
            return None
        if any(field.type not in _DTYPES or not _PLAIN_NAME.fullmatch(field.encode_name) for field in fields):
            return None
        return cls([(field.name, field.encode_name, _DTYPES[field.type]) for field in fields])

    def decode(self, encoded: Sequence[bytes | None]) -> pl.DataFrame | None:
        """Return the rows as a frame, None if they must be read one by one.

        Cost: 0.4 us for a row of 127 bytes and six fields on two cores, 0.02 us of it with the GIL.
        """
        if None in encoded:
            return None
        lines = b"\n".join(encoded)  # type: ignore[arg-type]  # there is no null
        if not self._certain(np.frombuffer(lines, np.uint8), len(encoded)):
            return None
        try:
            frame = pl.read_ndjson(io.BytesIO(lines), schema=self._schema)
        except pl.exceptions.PolarsError:
            return None
        if frame.height != len(encoded) or any(column.null_count() for column in frame.get_columns()):
            return None
        frame.columns = self._names
        return frame

    def _certain(self, octets: "np.ndarray[Any, np.dtype[np.uint8]]", row_count: int) -> bool:
        """Return whether the counts are those of rows that have every field once; see the module's reasons."""
        if np.count_nonzero(octets < _BLANK) != row_count - 1:
            return False
        if (octets == _BACKSLASH).any() or (octets == _BRACKET).any():
            return False
        quotes, colons = octets == _QUOTE, octets[1:] == _COLON
        if np.count_nonzero(quotes) != 2 * row_count * (len(self._names) + self._text_count):
            return False
        if np.count_nonzero(quotes[:-1] & colons) != row_count * len(self._names):
            return False
        return not ((octets[:-1] == _BLANK) & colons).any()
