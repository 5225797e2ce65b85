"""Built-in aggregates: both spellings and a reference of their own agree, whatever the cut and the order of merging."""

import decimal
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.graph import Aggregate
from streamkit.runtime.aggregates import AggregateOverflow, FrameAggregates, RowAggregates, source_order
from streamkit.runtime.blocks import decode_frame_block, decode_row_block, encode_frame_block, encode_row_block

INTS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.sampled_from([-(2**63), 2**63 - 1, 2**62, -(2**62), 2**53 + 1, 2**32 - 1, 2**32]),
)
FLOATS = st.one_of(
    st.floats(),
    st.floats(-10, 10),
    st.sampled_from([0.0, -0.0, 0.1, 0.2, 1e308, -1e308, 5e-324, 1e16, 1.0, math.nan, math.inf, -math.inf]),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
COLUMNS: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "int": (pl.Int64(), INTS),
    "small": (pl.Int64(), st.integers(-5, 5)),
    "byte": (pl.Int8(), st.integers(-128, 127)),
    "unsigned": (pl.UInt64(), st.integers(0, 2**63 - 1)),
    "float": (pl.Float64(), FLOATS),
    "single": (pl.Float32(), st.floats(width=32)),
    "text": (pl.String(), TEXTS),
    "flag": (pl.Boolean(), st.booleans()),
    "data": (pl.Binary(), st.binary(max_size=3)),
    "list": (pl.List(pl.Int64()), st.lists(st.none() | INTS, max_size=2)),
    "row": (
        pl.Struct({"x": pl.Int64(), "y": pl.String()}),
        st.tuples(INTS, st.none() | TEXTS).map(lambda pair: {"x": pair[0], "y": pair[1]}),
    ),
}
OF_NUMBERS = {
    "sum": Aggregate("sum", "v"),
    "mean": Aggregate("mean", "v"),
    "var": Aggregate("var", "v", ddof=1),
    "std": Aggregate("std", "v", ddof=1),
    "var of all": Aggregate("var", "v"),
    "std of all": Aggregate("std", "v"),
}
OF_ORDERED = {
    "min": Aggregate("min", "v"),
    "max": Aggregate("max", "v"),
    "top_k": Aggregate("top_k", "v", limit=3),
    "distinct": Aggregate("distinct", "v", limit=10),
    "approx": Aggregate("approx_distinct", "v"),
}
OF_ANY = {"count": Aggregate("count"), "first": Aggregate("first", "v"), "last": Aggregate("last", "v")}
OF_ANY |= {"collect": Aggregate("collect", "v", limit=10)} | {
    kind: Aggregate(kind, "v", by="w") for kind in ("arg_min", "arg_max")
}  # type: ignore[arg-type]  # literals
NUMBERS = ("int", "small", "byte", "unsigned", "float", "single")
TOPICS = ("a", "a.b", "b")
PLACES = st.tuples(st.integers(-2, 2), st.sampled_from(TOPICS), st.sampled_from([0, 2, 10]), st.integers(0, 5))


def aggregates_of(column: str) -> dict[str, Aggregate]:
    """Return every built-in that takes a column, by its name."""
    return {
        **OF_ANY,
        **(OF_NUMBERS if column in NUMBERS else {}),
        **(OF_ORDERED if column not in ("list", "row") else {}),
    }


@st.composite
def drawn_rows(draw: st.DrawFn) -> tuple["Schema", list["Placed"]]:
    """Draw kinds of columns, and rows of two keys, each at a place of its own: rows of one record are numbered."""
    column = draw(st.sampled_from(sorted(COLUMNS)))
    by = draw(st.sampled_from(sorted(COLUMNS.keys() - {"list", "row"})))
    values = st.fixed_dictionaries({"v": st.none() | COLUMNS[column][1], "w": st.none() | COLUMNS[by][1]})
    rows = st.tuples(st.sampled_from(["k", "l"]), PLACES, values)
    counts: defaultdict[tuple[str, int, int], int] = defaultdict(int)
    made = []
    for key, (timestamp_ms, topic, partition, offset), value in draw(st.lists(rows, max_size=10)):
        row = counts[topic, partition, offset]
        counts[topic, partition, offset] += 1
        made.append((key, (timestamp_ms, topic, partition, offset, row), value))
    return Schema(column, {"v": COLUMNS[column][0], "w": COLUMNS[by][0]}), made


class Schema(NamedTuple):
    """The kind of the column that is aggregated, and the types of all columns."""

    column: str
    dtypes: dict[str, pl.DataType]


Placed = tuple[str, tuple[int, str, int, int, int], dict[str, Any]]
"""Key, place (timestamp, topic, partition, offset, row) and value of a row."""


def float_of(value: Fraction) -> float:
    """Round a fraction once: a second, independent reference beside `math.fsum`."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def root_of(value: Fraction) -> float:
    """Return the float whose square lies nearest: of the neighbours of a first guess, by fractions alone."""
    if not value:
        return 0.0
    # The context has digits enough that the root of a decimal is within a hair of the true one.
    with decimal.localcontext(prec=2000, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN):
        exact = (decimal.Decimal(value.numerator) / decimal.Decimal(value.denominator)).sqrt()
        return float(exact)


def spread(values: list[Any], *, ddof: int, root: bool) -> float | None:
    """Return a variance by its definition: squared distances from the mean, in fractions."""
    if len(values) <= ddof:
        return None
    if not all(map(math.isfinite, values)):
        return math.nan
    numbers = list(map(Fraction, values))
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / (len(numbers) - ddof)
    return root_of(variance) if root else float_of(variance)


def rank(value: Any) -> tuple[Any, float]:
    """Return what sorts as values do: -0.0 before 0.0."""
    return value, math.copysign(1, value) if isinstance(value, float) else 0


def chosen(rows: list[dict[str, Any]], *, greatest: bool) -> Any:
    """Return the value of the first row in which `w` is least or greatest."""
    found = [row for row in rows if row["w"] is not None]
    numbers = [row for row in found if not (isinstance(row["w"], float) and math.isnan(row["w"]))] or found[:1]
    choose = max if greatest else min
    return choose(numbers, key=lambda row: rank(row["w"]))["v"] if numbers else None


def listed(aggregate: Aggregate, present: list[Any]) -> Any:
    """Return what an aggregate that keeps a list makes of values in their order."""
    if aggregate.kind == "collect":
        return present
    if aggregate.kind == "top_k":
        return sorted(present, key=lambda value: (value == value, rank(value)), reverse=True)[: aggregate.limit]
    return len({value for value in present if value == value}) + any(value != value for value in present)


def total_of(kind: str, present: list[Any]) -> Any:
    """Return the sum or the mean of values of which there are some."""
    special = [value for value in present if not math.isfinite(value)] if isinstance(present[0], float) else []
    if special:
        return math.nan if any(map(math.isnan, special)) or len(set(special)) == 2 else special[0]
    total = sum(map(Fraction, present))
    if kind == "mean":
        return float_of(total / len(present))
    if isinstance(present[0], float):
        return float_of(total)
    return int(total) if -(2**63) <= total < 2**63 else OverflowError


def reference(aggregate: Aggregate, rows: list[dict[str, Any]]) -> Any:
    """Return what an aggregate of rows (in the order of first and last) is by its definition."""
    kind, values = aggregate.kind, [row["v"] for row in rows]
    if aggregate.by is not None:
        return chosen(rows, greatest=kind == "arg_max")
    present = [value for value in values if value is not None]
    if kind == "count":
        return len(values)
    if kind in ("var", "std"):
        return spread(present, ddof=aggregate.ddof, root=kind == "std")
    if aggregate.kind in ("collect", "top_k", "distinct", "approx_distinct"):
        return listed(aggregate, present)
    if not present:
        return None
    if kind in ("first", "last"):
        return present[0 if kind == "first" else -1]
    if kind in ("min", "max"):
        numbers = [value for value in present if not (isinstance(value, float) and math.isnan(value))] or present
        choose = min if kind == "min" else max
        return choose(numbers, key=rank)
    return total_of(kind, present)


def expected(rows: Sequence[Placed], aggregates: dict[str, Aggregate]) -> dict[str, dict[str, Any]]:
    groups: defaultdict[str, list[Placed]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row[1]):
        groups[row[0]].append(row)
    return {
        key: {name: reference(one, [value for _, _, value in some]) for name, one in aggregates.items()}
        for key, some in groups.items()
    }


def told_apart(groups: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return groups so that `==` tells 0.0 from -0.0 and 1 from 1.0 and True, and NaN equals NaN."""
    return {key: repr(some) for key, some in groups.items()}


def frame_of(rows: Sequence[Placed], dtypes: dict[str, pl.DataType]) -> pl.DataFrame:
    places = [place for _, place, _ in rows]
    return pl.DataFrame(
        [
            pl.Series("key", [key for key, _, _ in rows], dtype=pl.String),
            *(pl.Series(name, [value[name] for _, _, value in rows], dtype=dtype) for name, dtype in dtypes.items()),
            pl.Series("$timestamp", [place[0] for place in places], dtype=pl.Int64),
            pl.Series("$source", [source_order(place[1], place[2]) for place in places], dtype=pl.String),
            pl.Series("$offset", [place[3] for place in places], dtype=pl.Int64),
            pl.Series("$row", [place[4] for place in places], dtype=pl.Int64),
        ]
    )


def draw_cuts(data: st.DataObject, rows: Sequence[Placed]) -> list[list[Placed]]:
    """Cut the rows, in an order of their own, into batches."""
    shuffled = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    return [shuffled[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


def draw_merged(data: st.DataObject, parts: list[Any], merge: Any) -> Any:
    """Merge parts two at a time, in a drawn order, until one is left."""
    while len(parts) > 1:
        one = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        other = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts.append(merge(one, other))
    return parts[0]


def through_frames(
    data: st.DataObject, rows: Sequence[Placed], dtypes: dict[str, pl.DataType], aggregates: FrameAggregates
) -> pl.DataFrame:
    """Fold each batch, send it through a block or through the store or neither, and merge."""

    def travelled(partial: pl.DataFrame) -> pl.DataFrame:
        way = data.draw(st.sampled_from(["block", "store", "none"]))
        if way == "block" and partial.height:
            return pl.concat(map(decode_frame_block, encode_frame_block(partial)))
        if way == "store":
            decoded = aggregates.decode(aggregates.encode(partial))
            return pl.concat([partial.select("key"), decoded], how="horizontal")
        return partial

    parts = [travelled(aggregates.partial(frame_of(some, dtypes), ["key"])) for some in draw_cuts(data, rows)]
    return draw_merged(data, parts, lambda one, other: travelled(aggregates.merge(pl.concat([one, other]), ["key"])))


def through_rows(data: st.DataObject, rows: Sequence[Placed], aggregates: RowAggregates) -> dict[str, list[Any]]:
    def travelled(groups: dict[str, list[Any]]) -> dict[str, list[Any]]:
        way = data.draw(st.sampled_from(["block", "store", "none"]))
        if way == "block":
            encoded = [(None, key.encode(), aggregates.encode(some)) for key, some in groups.items()]
            sent = [row for block in encode_row_block(encoded) for row in decode_row_block(block)]
            return {key.decode(): aggregates.decode(some) for _, key, some in sent}
        if way == "store":
            return {key: aggregates.decode(aggregates.encode(some)) for key, some in groups.items()}
        return groups

    def fold(some: Sequence[Placed]) -> dict[str, list[Any]]:
        groups: dict[str, list[Any]] = {}
        for key, place, value in some:
            aggregates.add(groups.setdefault(key, aggregates.initial()), value, place)
        return groups

    def merge(one: dict[str, list[Any]], other: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return travelled(
            {
                key: aggregates.merge(one.get(key, aggregates.initial()), other.get(key, aggregates.initial()))
                for key in one.keys() | other.keys()
            }
        )

    return draw_merged(data, [travelled(fold(some)) for some in draw_cuts(data, rows)], merge)


@given(drawn_rows(), st.data())
def test_both_spellings_are_what_the_definition_says(drawn: tuple[Schema, list[Placed]], data: st.DataObject) -> None:
    (column, dtypes), rows = drawn
    aggregates = aggregates_of(column)
    wanted = expected(rows, aggregates)
    if any(some.get("sum") is OverflowError for some in wanted.values()):
        del aggregates["sum"]
        wanted = {key: {name: some[name] for name in aggregates} for key, some in wanted.items()}

    frames = FrameAggregates(aggregates, dtypes)
    final = frames.final(through_frames(data, rows, dtypes, frames))
    assert dict(final.drop("key").schema) == frames.result_schema
    found = {some.pop("key"): some for some in final.to_dicts()}
    assert told_apart(found) == told_apart(wanted)

    by_row = RowAggregates(aggregates)
    groups = through_rows(data, rows, by_row)
    assert told_apart({key: by_row.final(some) for key, some in groups.items()}) == told_apart(wanted)


@given(drawn_rows(), st.data())
def test_equal_groups_are_stored_as_equal_bytes(drawn: tuple[Schema, list[Placed]], data: st.DataObject) -> None:
    """However rows are cut and merged, a group's accumulator is one sequence of bytes: digests depend on it."""
    (column, dtypes), rows = drawn
    aggregates = aggregates_of(column)
    frames, by_row = FrameAggregates(aggregates, dtypes), RowAggregates(aggregates)

    def by_frames() -> dict[str, bytes]:
        partial = through_frames(data, rows, dtypes, frames)
        return dict(zip(partial.get_column("key").to_list(), frames.encode(partial), strict=True))

    def by_rows() -> dict[str, bytes]:
        return {key: by_row.encode(some) for key, some in through_rows(data, rows, by_row).items()}

    assert by_frames() == by_frames()
    assert by_rows() == by_rows()


@given(st.lists(INTS, min_size=1, max_size=6), st.data())
def test_an_integer_sum_that_leaves_64_bits_fails_at_the_end_in_both_spellings(
    values: list[int], data: st.DataObject
) -> None:
    """Partial sums may leave them and come back."""
    rows = [("k", (0, "t", 0, offset, 0), {"v": value}) for offset, value in enumerate(values)]
    aggregates = {"total": Aggregate("sum", "v")}
    frames, by_row = FrameAggregates(aggregates, {"v": pl.Int64()}), RowAggregates(aggregates)
    batches = [
        pl.DataFrame({"key": ["k"] * len(some), "v": pl.Series([value["v"] for _, _, value in some], dtype=pl.Int64)})
        for some in draw_cuts(data, rows)
    ]
    partial = draw_merged(
        data,
        [frames.partial(batch, ["key"]) for batch in batches if batch.height],
        lambda one, other: frames.merge(pl.concat([one, other]), ["key"]),
    )
    accumulator = through_rows(data, rows, by_row)["k"]
    if -(2**63) <= sum(values) < 2**63:
        assert frames.final(partial).to_dicts() == [{"key": "k", "total": sum(values)}]
        assert by_row.final(accumulator) == {"total": sum(values)}
    else:
        with pytest.raises(AggregateOverflow, match="'total' of key 'k'"):
            frames.final(partial)
        with pytest.raises(AggregateOverflow, match="'total'"):
            by_row.final(accumulator)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40), st.integers(1, 9))
def test_a_float_sum_is_what_fsum_says_however_it_is_cut(values: list[float], size: int) -> None:
    try:
        wanted = math.fsum(values)
    except OverflowError:
        # fsum gives up when a partial sum leaves the range; a fraction does not.
        wanted = float_of(sum(map(Fraction, values), Fraction()))
    frames = FrameAggregates({"total": Aggregate("sum", "v")}, {"v": pl.Float64()})
    frame = pl.DataFrame({"key": ["k"] * len(values), "v": values})
    parts = [frames.partial(part, ["key"]) for part in frame.iter_slices(size)]
    assert frames.final(frames.merge(pl.concat(parts), ["key"])).get_column("total").to_list() == [wanted]


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | FLOATS), max_size=30), st.integers(0, sys.maxsize))
def test_groups_do_not_touch_each_other(pairs: list[tuple[int, float | None]], seed: int) -> None:
    frames = FrameAggregates(
        OF_NUMBERS | OF_ORDERED,
        {"v": pl.Float64()},
    )
    frame = pl.DataFrame(
        {"key": [key for key, _ in pairs], "v": [value for _, value in pairs]},
        schema={"key": pl.Int64, "v": pl.Float64},
    ).sample(fraction=1, shuffle=True, seed=seed)
    together = frames.final(frames.partial(frame, ["key"])).sort("key")
    alone = [frames.final(frames.partial(some, ["key"])) for some in frame.sort("key").partition_by("key")]
    assert list(map(repr, together.rows())) == [repr(some.row(0)) for some in alone]
