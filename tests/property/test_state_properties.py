"""Stores against a dict, keys against their order, digests against their definition."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128

from streamkit.state import (
    Changes,
    Digest,
    MemoryStore,
    RocksDBResources,
    RocksDBStore,
    StateStore,
    split_window_key,
    store_key,
    window_key,
    window_keys,
    window_range,
)

KEYS = st.binary(max_size=3)
"""Few and short, so that they meet."""
ENDS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3))
RANGES = st.tuples(KEYS, KEYS)
COMMITS = st.builds(
    lambda values, ranges: Changes(values=values, delete_ranges=ranges),
    st.dictionaries(KEYS, st.none() | st.binary(max_size=40), max_size=8),
    st.lists(RANGES, max_size=2),
)
STEPS = st.lists(st.one_of(COMMITS, st.sampled_from(["flush", "reopen"])), max_size=12)
RESOURCES = RocksDBResources(memory_bytes=1024 * 1024)


def apply(model: dict[bytes, bytes], changes: Changes) -> None:
    for begin, end in changes.delete_ranges:
        for key in [key for key in model if begin <= key < end]:
            del model[key]
    for key, value in changes.values.items():
        model.pop(key, None)
        if value is not None:
            model[key] = value


class Shelf:
    """Opens the store again after it was closed."""

    def __init__(self, kind: str, path: Path) -> None:
        self._path = path
        self._memory = MemoryStore() if kind == "memory" else None

    def open(self) -> StateStore:
        if self._memory is None:
            return RocksDBStore(str(self._path), resources=RESOURCES)
        self._memory = self._memory.survivor()
        return self._memory


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@given(steps=STEPS, asked=st.lists(KEYS, max_size=8), ranges=st.lists(RANGES, max_size=3))
def test_a_store_is_a_dict_in_byte_order(
    kind: str,
    steps: Sequence[Changes | str],
    asked: list[bytes],
    ranges: list[tuple[bytes, bytes]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        shelf, model = Shelf(kind, Path(directory) / "db"), dict[bytes, bytes]()
        store = shelf.open()
        for step in steps:
            if isinstance(step, Changes):
                store.write(step)
                apply(model, step)
            elif step == "flush":
                store.flush()
            else:
                store.close()
                store = shelf.open()
            assert store.get_many(asked) == [model.get(key) for key in asked]
            for begin, end in [(b"", b"\xff" * 4), *ranges]:
                inside = sorted((key, value) for key, value in model.items() if begin <= key < end)
                assert list(store.scan(begin, end)) == inside
        store.close()


@given(pairs=st.lists(st.tuples(st.integers(0, 3), ENDS, KEYS), max_size=20))
def test_the_byte_order_of_window_keys_is_store_then_end_then_key(pairs: list[tuple[int, int, bytes]]) -> None:
    encoded = [window_key(*pair) for pair in pairs]
    assert [split_window_key(key) for key in sorted(encoded)] == sorted(pairs)


@given(index=st.integers(0, 3), end=ENDS, other=st.tuples(st.integers(0, 3), ENDS, KEYS))
def test_a_window_range_holds_exactly_the_keys_of_its_window(
    index: int, end: int, other: tuple[int, int, bytes]
) -> None:
    low, high = window_range(index, end)
    assert (low <= window_key(*other) < high) == (other[:2] == (index, end))
    if other[0] != index:
        assert not low <= store_key(other[0], other[2]) < high


@given(pairs=st.lists(st.tuples(ENDS, KEYS), max_size=20))
def test_many_window_keys_are_the_same_as_one_by_one(pairs: list[tuple[int, bytes]]) -> None:
    ends, keys = [end for end, _ in pairs], [key for _, key in pairs]
    assert window_keys(5, ends, keys) == [window_key(5, end, key) for end, key in pairs]


WRITES = st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=6), max_size=10)


@given(history=WRITES)
def test_a_digest_depends_on_the_contents_alone_whatever_the_history(history: list[dict[bytes, bytes | None]]) -> None:
    digest, model = Digest(), dict[bytes, bytes]()
    for step in history:
        digest.replace(list(step), [model.get(key) for key in step], list(step.values()))
        for key, value in step.items():
            model.pop(key, None)
            if value is not None:
                model[key] = value
    rebuilt = Digest()
    rebuilt.add(sorted(model), [model[key] for key in sorted(model)])
    assert digest == rebuilt
    assert digest == Digest.from_text(digest.to_text())
    assert digest.pair_count == len(model)
    assert digest.total == sum(map(reference_hash, model, model.values())) % 2**128
    digest.remove(list(model), list(model.values()))
    assert digest == Digest()


def reference_hash(key: bytes, value: bytes) -> int:
    return int.from_bytes(xxh3_128(key + value, seed=len(key)).digest(), "big")
