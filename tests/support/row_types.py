"""Types that values and keys may have, each with the values it admits, for the tests of serdes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
from hypothesis import strategies as st

INTS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3), st.sampled_from([-(2**63), 2**63 - 1]))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
BOOLS = st.booleans()
BYTES = st.binary(max_size=8)


class Point(msgspec.Struct):
    x: int
    y: float


class Flat(msgspec.Struct):
    number: int
    ratio: float
    text: str
    flag: bool
    data: bytes


class Optional(msgspec.Struct, frozen=True):
    number: int | None = None
    ratio: float | None = None
    text: str | None = "none given"
    flag: bool | None = None


class Nested(msgspec.Struct):
    point: Point
    maybe: Point | None
    points: list[Point]
    numbers: tuple[int, ...]
    texts: list[str | None] = []


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    point_of_view: Point


class Renaming(msgspec.Struct, rename={"plain": "other"}, kw_only=True, forbid_unknown_fields=True):
    plain: int
    more: str = "more"


class Tagged(msgspec.Struct, tag="tagged"):
    number: int


class Sparse(msgspec.Struct, omit_defaults=True):
    number: int = 7
    text: str = "seven"


class Array(msgspec.Struct, array_like=True):
    number: int
    text: str


class Checked(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number == 13:
            raise ValueError("thirteen is refused")


class Bounded(msgspec.Struct):
    number: Annotated[int, msgspec.Meta(ge=0)]
    text: Annotated[str, msgspec.Meta(max_length=3)] | None


class Tree(msgspec.Struct):
    value: int
    children: list["Tree"] = []


@dataclass
class Plain:
    number: int
    text: str | None = None
    numbers: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Outer:
    plain: Plain
    flag: bool


class Entry(TypedDict):
    text: str | None
    number: int


class Loose(TypedDict, total=False):
    number: int


class Pair(NamedTuple):
    number: int
    text: str


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


POINTS = st.builds(Point, INTS, FLOATS)
PLAINS = st.builds(Plain, INTS, st.none() | TEXTS, st.lists(INTS, max_size=2))

COLUMNAR: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "str": (str, TEXTS),
    "bytes": (bytes, BYTES),
    "int": (int, INTS),
    "float": (float, FLOATS),
    "bool": (bool, BOOLS),
    "str | None": (str | None, st.none() | TEXTS),
    "bytes | None": (bytes | None, st.none() | BYTES),
    "int | None": (int | None, st.none() | INTS),
    "float | None": (float | None, st.none() | FLOATS),
    "bool | None": (bool | None, st.none() | BOOLS),
    "list[int]": (list[int], st.lists(INTS, max_size=3)),
    "list[str | None]": (list[str | None], st.lists(st.none() | TEXTS, max_size=3)),
    "tuple[float, ...]": (tuple[float, ...], st.lists(FLOATS, max_size=3).map(tuple)),
    "list[Point]": (list[Point], st.lists(POINTS, max_size=2)),
    "Point": (Point, POINTS),
    "Flat": (Flat, st.builds(Flat, INTS, FLOATS, TEXTS, BOOLS, BYTES)),
    "Optional": (
        Optional,
        st.builds(Optional, st.none() | INTS, st.none() | FLOATS, st.none() | TEXTS, st.none() | BOOLS),
    ),
    "Nested": (
        Nested,
        st.builds(
            Nested,
            POINTS,
            st.none() | POINTS,
            st.lists(POINTS, max_size=2),
            st.lists(INTS, max_size=2).map(tuple),
            st.lists(st.none() | TEXTS, max_size=2),
        ),
    ),
    "Renamed": (Renamed, st.builds(Renamed, TEXTS, POINTS)),
    "Renaming": (Renaming, st.builds(Renaming, plain=INTS, more=TEXTS)),
    "Tagged": (Tagged, st.builds(Tagged, INTS)),
    "Sparse": (Sparse, st.builds(Sparse, INTS | st.just(7), TEXTS | st.just("seven"))),
    "Checked": (Checked, st.builds(Checked, INTS.filter(lambda number: number != 13))),
    "Bounded": (
        Bounded,
        st.builds(Bounded, st.integers(0, 2**63 - 1), st.none() | st.text("ab", max_size=3)),
    ),
    "Plain": (Plain, PLAINS),
    "Outer": (Outer, st.builds(Outer, PLAINS, BOOLS)),
    "Entry": (Entry, st.tuples(st.none() | TEXTS, INTS).map(lambda pair: {"text": pair[0], "number": pair[1]})),
}
"""Types with a columnar form."""

JSON_VALUES = st.recursive(
    st.none() | BOOLS | INTS | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)

OBJECTS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "untyped": (None, JSON_VALUES),
    "Any": (Any, JSON_VALUES),
    "dict[str, int]": (dict[str, int], st.dictionaries(TEXTS, INTS, max_size=3)),
    "dict[int, str]": (dict[int, str], st.dictionaries(INTS, TEXTS, max_size=3)),
    "dict": (dict, st.dictionaries(TEXTS, JSON_VALUES, max_size=3)),
    "set[int]": (set[int], st.sets(INTS, max_size=3)),
    "tuple[int, str]": (tuple[int, str], st.tuples(INTS, TEXTS)),
    "int | str": (int | str, INTS | TEXTS),
    "Literal": (Literal["a", "b"], st.sampled_from(["a", "b"])),
    "Colour": (Colour, st.sampled_from(Colour)),
    "Pair": (Pair, st.builds(Pair, INTS, TEXTS)),
    "Array": (Array, st.builds(Array, INTS, TEXTS)),
    "Tree": (
        Tree,
        st.recursive(
            st.builds(Tree, INTS),
            lambda inner: st.builds(Tree, INTS, st.lists(inner, max_size=2)),
            max_leaves=4,
        ),
    ),
    "Loose": (Loose, st.fixed_dictionaries({}, optional={"number": INTS})),
}
"""Types without a columnar form: their rows are Python objects only."""

ANY_TYPE: dict[str, tuple[Any, st.SearchStrategy[Any]]] = COLUMNAR | OBJECTS


def first_bad(decode: Any, encoded: Sequence[bytes | None]) -> int | None:
    """Return the first row that `decode` refuses when it is given rows one at a time."""
    for index, data in enumerate(encoded):
        try:
            decode(data)
        except Exception:  # noqa: BLE001  # any refusal counts here; its kind is what the tests look at
            return index
    return None
