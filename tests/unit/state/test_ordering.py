import random
from collections.abc import Callable

import pytest

from streamkit.state.entries import FlatEntries
from streamkit.state.ordering import in_order

Make = Callable[[random.Random], bytes]

SHAPES: dict[str, Make] = {
    "of one length": lambda rng: rng.randbytes(3),
    "of many lengths": lambda rng: rng.randbytes(rng.randrange(1, 12)),
    "that end in zeros": lambda rng: rng.choice((b"", b"a", b"ab")) + bytes(rng.randrange(3)),
    "that are one": lambda _: b"key",
    "that are empty": lambda _: b"",
    "longer than 32 bytes": lambda rng: bytes(30) + rng.randbytes(rng.randrange(5)),
}

VALUES: dict[str, Callable[[random.Random], bytes | None]] = {
    "of one length": lambda rng: rng.randbytes(20),
    "of about one length": lambda rng: rng.randbytes(rng.randrange(10, 20)) + b"\0",
    "of very different lengths": lambda rng: bytes(2000 if rng.random() < 0.01 else 1),
    "that are empty": lambda _: b"",
    "some of which are absent": lambda rng: None if rng.random() < 0.1 else b"here",
}


@pytest.mark.parametrize("count", [1, 50, 2_500])
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("keys", SHAPES)
def test_each_key_comes_once_in_order_with_its_last_value(keys: str, values: str, count: int) -> None:
    rng = random.Random(count)
    some_keys = [SHAPES[keys](rng) for _ in range(count)]
    some_values = [VALUES[values](rng) for _ in range(count)]
    cut = count // 3
    parts = [
        FlatEntries.of(some_keys[:cut], some_values[:cut]),
        FlatEntries.of([], []),
        FlatEntries.of(some_keys[cut:], some_values[cut:]),
    ]
    found = [pair for part in in_order(parts) for pair in zip(*part, strict=True)]
    assert found == sorted(dict(zip(some_keys, some_values, strict=True)).items())
