"""Values that are not JSON: raw bytes, UTF-8 text, and keys that are integers in decimal."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import polars as pl

from streamkit.records import Lines, RowError
from streamkit.serde.ranges import INT_MAX, INT_MIN
from streamkit.serde.serde import Serde, convert_each

__all__ = ["AnyKeySerde", "BytesSerde", "DecimalSerde", "TextSerde"]

_int_from_json = msgspec.json.Decoder(int).decode
_int_to_json = msgspec.json.Encoder().encode


class BytesSerde(Serde):
    """Bytes as they are."""

    def __init__(self, what: str, *, nullable: bool) -> None:
        """Encode keys or values."""
        super().__init__(what, "bytes", dtype=pl.Binary(), nullable=nullable)

    def _decode_present(self, encoded: Sequence[bytes]) -> list[Any]:
        return list(encoded)

    def _encode_present(self, objects: Sequence[Any]) -> list[bytes | None]:
        if set(map(type, objects)) <= {bytes}:
            return list(objects)
        return convert_each(_bytes, objects, self._unencodable(objects))


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes, got {type(value).__name__}")
    return value


class TextSerde(Serde):
    """Text as UTF-8."""

    def __init__(self, what: str, *, nullable: bool) -> None:
        """Encode keys or values."""
        super().__init__(what, "str", dtype=pl.String(), nullable=nullable)

    def encoded_from_frame(self, frame: pl.DataFrame) -> list[bytes | None]:
        """Encode the only column, without a Python string in between."""
        column = frame.to_series(0)
        if column.dtype != pl.String or (column.null_count() and not self.nullable):
            return super().encoded_from_frame(frame)
        return column.cast(pl.Binary).to_list()

    def frame_from_encoded(self, encoded: Sequence[bytes | None]) -> pl.DataFrame:
        """Decode all rows into the only column, without a Python string in between."""
        try:
            if isinstance(encoded, Lines):
                whole = pl.Series(self.what, [encoded.text], dtype=pl.Binary).cast(pl.String)
                return pl.DataFrame([whole.str.split("\n").explode()])
            column = pl.Series(self.what, encoded, dtype=pl.Binary).cast(pl.String)
        except pl.exceptions.ComputeError:
            # Some row is no UTF-8: which one is found row by row.
            return super().frame_from_encoded(encoded)
        return super().frame_from_encoded(encoded) if column.null_count() else pl.DataFrame([column])

    def _decode_present(self, encoded: Sequence[bytes]) -> list[Any]:
        if isinstance(encoded, Lines):
            # A cut character is as wrong before a line feed as anywhere, so a text of good lines is a good text.
            with contextlib.suppress(UnicodeDecodeError):
                return encoded.text.decode().split("\n")
        return convert_each(bytes.decode, encoded, self._undecodable(encoded))

    def _encode_present(self, objects: Sequence[Any]) -> list[bytes | None]:
        return convert_each(str.encode, objects, self._unencodable(objects))


class DecimalSerde(Serde):
    """Integers of 64 bits as decimal text in its one spelling: no sign but minus, no leading zero, no space."""

    def __init__(self, what: str) -> None:
        """Encode keys."""
        super().__init__(what, "int", dtype=pl.Int64(), nullable=False)

    def encoded_from_frame(self, frame: pl.DataFrame) -> list[bytes | None]:
        """Encode the only column, without a Python integer in between."""
        column = frame.to_series(0)
        if column.null_count() or column.dtype != pl.Int64:
            return super().encoded_from_frame(frame)
        return column.cast(pl.String).cast(pl.Binary).to_list()

    def _decode_present(self, encoded: Sequence[bytes]) -> list[Any]:
        keys: list[Any] = []
        # The rows before a bad one are judged below: a key in another spelling comes first.
        with contextlib.suppress(ValueError, msgspec.MsgspecError):
            keys.extend(map(_int_from_json, encoded))
        spelled: list[bytes] = list(map(_int_to_json, keys))
        if spelled == encoded and max(keys, default=0) <= INT_MAX and min(keys, default=0) >= INT_MIN:
            return keys
        index = next(
            index
            for index, data in enumerate(encoded)
            if index == len(keys) or spelled[index] != data or not INT_MIN <= keys[index] <= INT_MAX
        )
        raise RowError(index, f"the {self.what} is no integer of 64 bits in plain decimal", encoded[index])

    def _encode_present(self, objects: Sequence[Any]) -> list[bytes | None]:
        if (
            set(map(type, objects)) <= {int}
            and max(objects, default=0) <= INT_MAX
            and min(objects, default=0) >= INT_MIN
        ):
            return list(map(_int_to_json, objects))
        return convert_each(_decimal, objects, self._unencodable(objects))


def _decimal(value: Any) -> bytes:
    if type(value) is not int:
        raise TypeError(f"expected int, got {type(value).__name__}")
    if not INT_MIN <= value <= INT_MAX:
        raise OverflowError("the integer leaves 64 bits")
    return b"%d" % value


class AnyKeySerde(Serde):
    """Keys without a declared type: `bytes | None` when read.

    When written, text is UTF-8 and an integer decimal too, so that a key computed by an expression or by a function
    without annotations looks the same as one with a type.
    """

    def __init__(self, what: str) -> None:
        """Encode keys."""
        super().__init__(what, "bytes", dtype=pl.Binary(), nullable=True)

    def frame_from_objects(self, objects: Sequence[Any]) -> pl.DataFrame:
        """Lay the encoded keys out as one column."""
        return pl.DataFrame([pl.Series(self.what, self.encoded_from_objects(objects), dtype=self.dtype)])

    def encoded_from_frame(self, frame: pl.DataFrame) -> list[bytes | None]:
        """Encode the only column by its type."""
        column = frame.to_series(0)
        if column.dtype.is_integer():
            column = column.cast(pl.String)
        if column.dtype == pl.String:
            column = column.cast(pl.Binary)
        if column.dtype == pl.Binary:
            return column.to_list()
        return super().encoded_from_frame(frame)

    def _decode_present(self, encoded: Sequence[bytes]) -> list[Any]:
        return list(encoded)

    def _encode_present(self, objects: Sequence[Any]) -> list[bytes | None]:
        if set(map(type, objects)) <= {bytes}:
            return list(objects)
        return convert_each(_any_key, objects, self._unencodable(objects))


_ENCODERS: dict[type, Callable[[Any], bytes]] = {bytes: _bytes, str: str.encode, int: _decimal}


def _any_key(value: Any) -> bytes:
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        raise TypeError(f"a key without a declared type is bytes, str or int, not {type(value).__name__}")
    return encoder(value)
