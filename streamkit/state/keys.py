"""The layout of store keys: byte order is the wanted order.

A key begins with the index of its store, then, in a store of windows, the window's end, then the record's key::

    plain      store_index u16 | key
    windowed   store_index u16 | window_end_ms i64, sign bit flipped | key

All integers are big-endian. The window's end leads so that all pairs of one window lie side by side: closing it is one
range scan, dropping it one range delete. `POSITION_KEY` sorts behind every store. Format: `docs/formats/store_keys.md`.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "POSITION_KEY",
    "STORE_INDEX_MAX",
    "split_window_key",
    "store_key",
    "store_range",
    "window_key",
    "window_keys",
    "window_range",
]

_STORE: Final = struct.Struct(">H")
_WINDOW: Final = struct.Struct(">HQ")
_SIGN: Final = 1 << 63
"""Added to a window's end, so that negative ends sort before positive ones."""

POSITION_KEY: Final = b"\xff\xffposition"
"""The reserved key of the task's position; its first two bytes are no store index."""

STORE_INDEX_MAX: Final = 0xFFFE
"""The highest store index of a task."""


def store_key(store_index: int, key: bytes) -> bytes:
    """Return the store key of a record key.

    Args:
        store_index: Index of the store in its task, `[0, STORE_INDEX_MAX]`.
        key: The encoded record key; any bytes.
    """
    return _STORE.pack(_checked(store_index)) + key


def window_key(store_index: int, window_end_ms: int, key: bytes) -> bytes:
    """Return the store key of a record key in one window.

    Args:
        store_index: As in `store_key`.
        window_end_ms: End of the window, ms since the Unix epoch, a signed 64-bit integer.
        key: The encoded record key; any bytes.
    """
    return _WINDOW.pack(_checked(store_index), window_end_ms + _SIGN) + key


def window_keys(
    store_index: int, window_ends_ms: Sequence[int] | npt.NDArray[np.int64], keys: Sequence[bytes]
) -> list[bytes]:
    """Return the store keys of many record keys, each in its window.

    Cost: linear; each distinct window end is packed once.
    """
    ends: Iterable[int] = window_ends_ms.tolist() if isinstance(window_ends_ms, np.ndarray) else window_ends_ms
    ends = list(ends)
    prefixes = {end: window_key(store_index, end, b"") for end in set(ends)}
    return [prefixes[end] + key for end, key in zip(ends, keys, strict=True)]


def split_window_key(store_key_bytes: bytes) -> tuple[int, int, bytes]:
    """Return store index, window end (ms) and record key: what `window_key` put together."""
    store_index, shifted_end = _WINDOW.unpack_from(store_key_bytes)
    return store_index, shifted_end - _SIGN, store_key_bytes[_WINDOW.size :]


def store_range(store_index: int) -> tuple[bytes, bytes]:
    """Return the range `[begin, end)` of all keys of a store; `begin` is also their common prefix."""
    return _STORE.pack(_checked(store_index)), _STORE.pack(store_index + 1)


def window_range(store_index: int, window_end_ms: int) -> tuple[bytes, bytes]:
    """Return the range `[begin, end)` of all keys of one window; `begin` is also their common prefix."""
    begin = window_key(store_index, window_end_ms, b"")
    if window_end_ms == _SIGN - 1:
        return begin, store_range(store_index)[1]
    return begin, window_key(store_index, window_end_ms + 1, b"")


def _checked(store_index: int) -> int:
    assert 0 <= store_index <= STORE_INDEX_MAX, f"store index {store_index} is out of range"
    return store_index
