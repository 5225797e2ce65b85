"""Which type gets which serde."""

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, Final, Protocol, TypedDict, runtime_checkable

import msgspec
import polars as pl

from streamkit.errors import DefinitionError
from streamkit.serde.json_values import JsonSerde, UntypedSerde
from streamkit.serde.nested import parts_of
from streamkit.serde.plain import AnyKeySerde, BytesSerde, DecimalSerde, TextSerde
from streamkit.serde.rows import RowsSerde
from streamkit.serde.schema import schema_of
from streamkit.serde.serde import Serde, convert_each, type_name

__all__ = ["UserSerde", "frame_serde", "key_serde", "value_serde"]


@runtime_checkable
class UserSerde(Protocol):
    """What `key=` and `value=` take in place of a type: an object that encodes and decodes one value."""

    def encode(self, value: Any) -> bytes | None:
        """Return the bytes of a value; None is null."""
        ...

    def decode(self, data: bytes | None) -> Any:
        """Return the value of some bytes."""
        ...


def value_serde(type_: Any) -> Serde:
    """Return the serde of a record's value.

    `str` and `bytes` are raw, None is untyped JSON (what orjson returns), any other type is JSON that is checked
    against it. A null value is a bad record unless the type admits None.

    Args:
        type_: A class, a generic alias, None, or an object with `encode` and `decode`.

    Raises:
        DefinitionError: JSON cannot be decoded as the type.
    """
    return _user_serde(type_, "value") or _value_serde(type_)


def key_serde(type_: Any) -> Serde:
    """Return the serde of a record's key.

    `str` is UTF-8, `int` decimal text, `bytes` raw, any other type JSON. None leaves keys as they are
    (`bytes | None`). With a type, a null key is a bad record unless the type admits None.

    Args:
        type_: A class, a generic alias, None, or an object with `encode` and `decode`.

    Raises:
        DefinitionError: JSON cannot be decoded as the type.
    """
    return _user_serde(type_, "key") or _key_serde(type_)


def frame_serde(schema: Mapping[str, pl.DataType]) -> Serde:
    """Return the serde of rows that are known by their columns alone; as objects they are dicts.

    Any value may be null, in JSON and in a frame alike.
    """
    return _frame_serde(tuple(schema.items()))


@functools.lru_cache(maxsize=256)
def _value_serde(type_: Any) -> Serde:
    if type_ is None:
        return UntypedSerde("value")
    raw = _raw_serde(type_, "value")
    if raw is not None:
        return raw
    _refuse_unknown(type_, "value")
    schema = schema_of(type_)
    return JsonSerde(type_, "value") if schema is None else RowsSerde(type_, schema)


_TEXT_KEYS: Final = (msgspec.inspect.StrType, msgspec.inspect.AnyType)


@functools.lru_cache(maxsize=256)
def _key_serde(type_: Any) -> Serde:
    if type_ is None:
        return AnyKeySerde("key")
    if type_ is int:
        return DecimalSerde("key")
    raw = _raw_serde(type_, "key")
    if raw is not None:
        return raw
    _refuse_unknown(type_, "key")
    for part in parts_of(msgspec.inspect.type_info(type_)):
        if isinstance(part, msgspec.inspect.StructType) and part.cls.__struct_config__.omit_defaults:
            raise DefinitionError(
                f"key={type_name(type_)} leaves out defaults, so that one key has two spellings",
                hint="use structs without omit_defaults in a key",
            )
        if isinstance(part, msgspec.inspect.DictType) and not isinstance(part.key_type, _TEXT_KEYS):
            raise DefinitionError(
                f"key={type_name(type_)} holds a dict whose keys are no str, which has no order",
                hint="use dicts with str keys in a key",
            )
    return JsonSerde(type_, "key")


def _raw_serde(type_: Any, what: str) -> Serde | None:
    if type_ in (str, str | None):
        return TextSerde(what, nullable=type_ is not str)
    if type_ in (bytes, bytes | None):
        return BytesSerde(what, nullable=type_ is not bytes)
    return None


def _refuse_unknown(type_: Any, what: str) -> None:
    try:
        msgspec.json.Decoder(type_)
        parts = parts_of(msgspec.inspect.type_info(type_))
        strange = [type_name(part.cls) for part in parts if isinstance(part, msgspec.inspect.CustomType)]
        reason = f"{strange[0]} is no builtin, struct, dataclass or typed dict" if strange else ""
    except (TypeError, NameError) as cause:
        reason = str(cause)
    if reason:
        raise DefinitionError(
            f"{what}={type_name(type_)} cannot be read from JSON",
            detail=reason,
            hint=f"pass a msgspec.Struct, a dataclass, a builtin, or an object with encode and decode as {what}=",
        )


@functools.lru_cache(maxsize=256)
def _frame_serde(columns: tuple[tuple[str, pl.DataType], ...]) -> Serde:
    schema = dict(columns)
    if not schema:
        return UntypedSerde("value")
    return RowsSerde(_row_type(schema), schema)


_SCALARS: Final[dict[type[pl.DataType], type]] = {
    pl.String: str,
    pl.Boolean: bool,
    pl.Binary: bytes,
    pl.Datetime: datetime,
    pl.Date: date,
    pl.Time: time,
}


def _row_type(schema: Mapping[str, pl.DataType]) -> Any:
    return TypedDict("Row", {name: _type_of(dtype) | None for name, dtype in schema.items()})  # type: ignore[operator]  # made at run time


def _type_of(dtype: Any) -> Any:
    if dtype.is_integer():
        return int
    if dtype.is_float():
        return float
    if isinstance(dtype, pl.List):
        return list[_type_of(dtype.inner) | None]  # type: ignore[misc]  # made at run time
    if isinstance(dtype, pl.Struct):
        return _row_type({field.name: field.dtype for field in dtype.fields})  # type: ignore[misc]  # instances, as made
    return _SCALARS.get(type(dtype), Any)


def _user_serde(type_: Any, what: str) -> Serde | None:
    if isinstance(type_, Serde):
        return type_
    if isinstance(type_, type) or not isinstance(type_, UserSerde):
        return None
    return _WrappedSerde(type_, what)


class _WrappedSerde(Serde):
    """A user's serde, row by row; it decides itself what null means."""

    def __init__(self, user: UserSerde, what: str) -> None:
        super().__init__(what, type(user).__name__, dtype=None, nullable=True)
        self._user = user

    def _decode_present(self, encoded: Sequence[bytes]) -> list[Any]:
        return convert_each(self._user.decode, encoded, self._undecodable(encoded))

    @staticmethod
    def _among_nulls(rows: Sequence[Any], convert: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        return convert(rows)

    def _encode_present(self, objects: Sequence[Any]) -> list[bytes | None]:
        encoded = convert_each(self._user.encode, objects, self._unencodable(objects))
        if not set(map(type, encoded)) <= {bytes, type(None)}:
            index = next(index for index, data in enumerate(encoded) if data is not None and type(data) is not bytes)
            raise self._unfit(index, objects[index], f"encode returned {type(encoded[index]).__name__}, not bytes")
        return encoded
