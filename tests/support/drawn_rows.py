"""The rows of drawn jobs, and the functions that such a job calls: of a row, of two, and of a result."""

import asyncio
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl

from streamkit import Context, Record
from streamkit.graph.stores import Store


class Row(msgspec.Struct):
    """What all rows have; `m` may be null, sums of `x` lose digits unless they are exact."""

    shop: str
    n: int
    x: float
    m: int | None
    ts: int


class Totals(msgspec.Struct):
    n: int
    sum_x: float


def ms(count: int) -> timedelta:
    return timedelta(milliseconds=count)


def get(row: Any, name: str) -> Any:
    return row[name] if isinstance(row, dict) else getattr(row, name)


encoded = msgspec.json.Encoder(order="deterministic").encode
"""Equal values, equal bytes."""


def fingerprint(value: Any) -> int:
    """Return a small number that says what a value is."""
    return zlib.crc32(encoded(value)) % 1000


def changed(row: Any) -> Row:
    m = get(row, "m")
    return Row(get(row, "shop"), get(row, "n") + 1, -get(row, "x"), 3 if m is None else None, get(row, "ts"))


def loosened(row: Any) -> Any:
    return {name: get(row, name) for name in Row.__struct_fields__}


def doubled(row: Any) -> list[Row]:
    return [changed(row), changed(changed(row))][: get(row, "n") % 3]


async def awaited(row: Any) -> Row:
    await asyncio.sleep(get(row, "n") % 3 / 1000)
    return changed(row)


def few(row: Any) -> bool:
    return get(row, "n") % 3 != 0


def row_of(value: Any) -> Row:
    """Make a row of any result."""
    number = fingerprint(value)
    return Row("abc"[number % 3], number % 10, number / 8, None if number % 2 else number, 0)


def shop_of(row: Any) -> str:
    return str(get(row, "shop"))


def remainder_of(row: Any) -> int:
    return int(get(row, "n") % 3)


def pair_of(row: Any) -> tuple[str, int]:
    return get(row, "shop"), get(row, "n") % 2


def key_of(row: Any) -> str:
    """Make a key as the records of a source have them."""
    return f"k{get(row, 'n')}"


KEYS: dict[Any, list[Any]] = {str: [shop_of, key_of], int: [remainder_of], tuple[str, int]: [pair_of]}
"""Functions that make keys of a type."""


def more_of(frame: pl.DataFrame) -> Any:
    return frame.with_columns(pl.col("n") + 2)


def some_of(frame: pl.DataFrame) -> Any:
    return frame.filter(pl.col("n") % 2 == 0)


def listed(values: list[int], row: Any) -> list[int]:
    return [*values, get(row, "n")]


def total(so_far: int, row: Any) -> int:
    return so_far + int(get(row, "n"))


def by_shop(counts: dict[str, int], row: Any) -> dict[str, int]:
    return {**counts, get(row, "shop"): counts.get(get(row, "shop"), 0) + 1}


def both(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {shop: one.get(shop, 0) + other.get(shop, 0) for shop in sorted(one.keys() | other.keys())}


def shops(so_far: set[str], row: Any) -> set[str]:
    return so_far | {get(row, "shop"), f"{get(row, 'shop')}{get(row, 'n')}"}


def larger(one: Any, other: Any) -> Any:
    return max(one, other, key=encoded)


def latest(so_far: dict[str, int], row: Any) -> dict[str, int]:
    """Keep the two shops that came last, the later one last: the order of a dict says something."""
    shop = get(row, "shop")
    kept = {name: n for name, n in so_far.items() if name != shop} | {shop: get(row, "n")}
    return dict(list(kept.items())[-2:])


def woven(one: Any, other: Any) -> Any:
    """Depends on the order of its rows."""
    return one if (get(one, "n") * 31 + get(other, "n")) % 3 else other


def passes(value: Any) -> bool:
    return fingerprint(value) % 3 != 0


def enriched(row: Any, value: Any) -> Row:
    """Bring a row together with what a table has."""
    return Row(get(row, "shop"), get(row, "n") + fingerprint(value) % 5, get(row, "x"), get(row, "m"), get(row, "ts"))


def told(one: Any, other: Any) -> list[int]:
    return [fingerprint(one), fingerprint(other)]


def passed_on(ctx: Context, record: Record[Any, Any]) -> Iterator[Record[Any, Row]]:
    """Process without state."""
    for row in doubled(record.value):
        yield record.with_value(row)


def counted_in(store: Store[Any, int]) -> Callable[[Context, Record[Any, Any]], Iterator[Record[Any, Row]]]:
    """Return a process that keeps a number for each key, which depends on the order of the rows."""

    def counted(ctx: Context, record: Record[Any, Any]) -> Iterator[Record[Any, Row]]:
        row = record.value
        number = ((ctx.store(store).get(record.key) or 0) * 3 + int(get(row, "n")) + 1) % 101
        if number % 5:
            ctx.store(store).put(record.key, number)
        else:
            ctx.store(store).delete(record.key)
        if number % 4:
            yield record.with_value(Row(get(row, "shop"), number, get(row, "x"), get(row, "m"), get(row, "ts")))

    return counted


def told_of(store: Store[Any, int]) -> Callable[[Context, int], Iterator[Record[Any, Row]]]:
    """Return a punctuation that says all numbers, and forgets some."""

    def told_now(ctx: Context, at_ms: int) -> Iterator[Record[Any, Row]]:
        for key, number in list(ctx.store(store).items()):
            yield Record(key=key, value=Row("abc"[number % 3], number, at_ms / 4, None, at_ms))
            if number % 3 == 0:
                ctx.store(store).delete(key)

    return told_now
