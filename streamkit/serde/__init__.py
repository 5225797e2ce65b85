"""Values to bytes and back, row by row and column by column; pure."""

from streamkit.serde.factory import UserSerde, frame_serde, key_serde, value_serde
from streamkit.serde.nested import taken_apart
from streamkit.serde.schema import admits_none, dtype_of, schema_of
from streamkit.serde.serde import Serde

__all__ = [
    "Serde",
    "UserSerde",
    "admits_none",
    "dtype_of",
    "frame_serde",
    "key_serde",
    "schema_of",
    "taken_apart",
    "value_serde",
]
