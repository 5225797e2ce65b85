"""Every field of every node shows in the node's text, or is a function: a field that is new is looked at by itself.

One job has each kind of node and value. Each field that holds something is changed in each node that has it, by what it
holds; a field that holds nothing anywhere is a failure, and so is a kind of value that nobody knows how to change.
"""

import functools
import itertools
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta
from types import FunctionType, NoneType
from typing import Any, Literal

import msgspec
import polars as pl
import pytest

from streamkit import AsyncCalls, Context, EventTime, Hopping, Job, Record, Tumbling, agg
from streamkit.errors import StreamkitError
from streamkit.graph import AnyWindow, LogicalGraph, Node, Source, nodes
from streamkit.topology import compile_graph
from streamkit.topology.node_texts import node_texts

pytestmark = pytest.mark.slow

SECOND = timedelta(seconds=1)
LEFT_OUT = {
    (Node, "name"): "texts are found by it",
    (Node, "doc"): "says nothing of what is computed",
    (Source, "on_error"): "what is left of a run may be done with another policy",
}


class Place(msgspec.Struct, frozen=True):
    country: str
    town: str


class Sale(msgspec.Struct):
    shop: str
    till: str
    place: Place
    price: int
    cost: int
    at: int


def other_struct(struct: type[msgspec.Struct], *left_out: str, **more: type) -> type[msgspec.Struct]:
    """Return a struct of the same name: a type shows with what is in it."""
    kept = [(name, type_) for name, type_ in typing.get_type_hints(struct).items() if name not in left_out]
    return msgspec.defstruct(struct.__name__, [*kept, *more.items()], frozen=struct.__struct_config__.frozen)


OTHERS: dict[type, list[type]] = {
    Place: [other_struct(Place, street=str)],
    Sale: [other_struct(Sale, when=int), other_struct(Sale, "cost")],
    int: [str],
    str: [bytes],
}


async def looked_up(sale: Sale) -> Sale:
    return sale


def place_of(sale: Sale) -> Place:
    return sale.place


def counted(ctx: Context, record: Record[Place, Sale]) -> Iterable[Record[Place, Sale]]:
    yield record


def largest(one: Sale, other: Sale) -> Sale:
    return max(one, other, key=lambda sale: sale.price)


def add(total: int, sale: Sale) -> int:
    return total + sale.price


def nothing() -> int:
    return 0


def both(one: int, other: int) -> int:
    return one + other


def joined(sale: Sale, other: Sale) -> Sale:
    return sale if sale.at > other.at else other


def look(sale: Sale) -> None:
    assert sale


def same(sale: Sale) -> Sale:
    return sale


def every_node() -> LogicalGraph:
    job = Job("sales")
    at = EventTime("at", out_of_orderness=SECOND)
    sales = job.stream("sales", key=Place, value=Sale, timestamp=at, on_error="skip")
    more = job.stream("more", key=Place, value=Sale, timestamp=lambda sale: sale.at)
    merged = sales.merge(more)
    calls = AsyncCalls(attempts=3)
    merged.map(same).map(looked_up, calls=calls).flat_map(lambda sale: [sale]).peek(look).to("copies")
    job.stream("others", key=Place, value=Sale).to("taken_over")
    dear = merged.filter(pl.col("price") > 1).filter(lambda sale: sale.cost > 1)
    dear.map_batches(lambda frame: frame).typed(Sale).to("frames")
    dear.with_columns((pl.col("price") * 2).alias("double")).to("doubled")
    dear.select("shop", (pl.col("price") - pl.col("cost")).alias("profit")).to("profits")
    _folds(dear)
    _low_level(job, sales)
    _tables(job, sales)
    return job.build()


def _folds(dear: Any) -> None:
    by_shop = dear.group_by("shop", type=str, name="by_shop", shards=3)
    by_shop.aggregate(add, initial=nothing, merge=both, name="totals").to("totals")
    by_shop.count(name="counts").to("counts")
    by_place = dear.key_by(place_of, name="by_place", shards=3).group_by_key()
    by_place.reduce(largest, name="largest").to("largest")
    by_price = dear.group_by(pl.col("price") + 1, type=int, name="by_price")
    windows = by_price.window(Hopping(10 * SECOND, advance=5 * SECOND, grace=SECOND))
    columns = {
        "best": agg.max("price"),
        "at": agg.arg_max("shop", by="price"),
        "top": agg.top_k("price", k=3),
        "spread": agg.var("price", ddof=1),
    }
    windows.agg(columns, name="best").to_stream().to("best")
    windows.late.to("late")
    by_shop.window(Tumbling(10 * SECOND, grace=SECOND), emit="update").count(name="shops").to("shops")


def _low_level(job: Job, sales: Any) -> None:
    seen = job.store("seen", key=Place, value=Sale)
    again = sales.process(counted, stores=[seen], name="seen_sales")
    again.punctuate(lambda ctx, at: None, every=SECOND, on="event_time")
    again.to("seen_sales")


def _tables(job: Job, sales: Any) -> None:
    prices = job.table("prices", key=Place, value=Sale, timestamp="at")
    dear = prices.filter(pl.col("price") > 1).map_values(same, name="shown")
    sales.join(prices, joined, name="priced").to("priced")
    prices.join(dear, joined, name="both").to("both")


GRAPH = every_node()
CLASSES = sorted(
    {
        each
        for each in (*vars(nodes).values(), *typing.get_args(AnyWindow))
        if is_dataclass(each) and isinstance(each, type) and each is not LogicalGraph
    },
    key=lambda each: each.__name__,
)
STRINGS = {"shop": "till", "price": "cost", "at": "cost"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A value with one field changed, anywhere within it; `shown` says whether that is to be seen.

    `around` are the fields that hold the value with the field.
    """

    owner: type
    field: str
    shown: bool
    value: Any
    around: tuple[tuple[type, str], ...] = ()


def owner_of(class_: type, name: str) -> type:
    """Return the class that a field was written in."""
    return next(base for base in reversed(class_.__mro__) if name in getattr(base, "__dataclass_fields__", ()))


def changes_of(value: Any) -> Iterator[Change]:
    """Yield a dataclass with one field changed after the other, down to the values that are no dataclass."""
    for each in fields(value):
        owner, held = owner_of(type(value), each.name), getattr(value, each.name)
        none = Change(owner=owner, field=each.name, shown=True, value=None)
        may_be_none = NoneType in typing.get_args(typing.get_type_hints(owner)[each.name])
        made_none = [none] if held is not None and may_be_none else []
        for change in (*changes_within(held, owner, each.name), *made_none):
            yield replace(change, value=replace(value, **{each.name: change.value}))


def changes_within(value: Any, owner: type, name: str) -> Iterator[Change]:
    if is_dataclass(value) and not isinstance(value, type):
        for change in changes_of(value):
            yield replace(change, around=((owner, name), *change.around))
    elif isinstance(value, tuple):
        for change in changes_among(dict(enumerate(value)), owner, name):
            yield replace(change, value=tuple(change.value.values()))
        if value:
            yield Change(owner=owner, field=name, shown=True, value=value[:-1])
    elif isinstance(value, Mapping):
        yield from changes_among(value, owner, name)
        yield Change(owner=owner, field=name, shown=True, value={f"{key}_2": one for key, one in value.items()})
    else:
        for other, shown in others(value, typing.get_type_hints(owner)[name]):
            yield Change(owner=owner, field=name, shown=shown, value=other)


def changes_among(values: Mapping[Any, Any], owner: type, name: str) -> Iterator[Change]:
    for key, one in values.items():
        for change in changes_within(one, owner, name):
            yield replace(change, value={**values, key: change.value})


def others(value: Any, hint: Any) -> list[tuple[Any, bool]]:
    """Return what could stand where a value stands, and whether its text must be another one then."""
    if isinstance(value, FunctionType):
        return [(functools.wraps(value)(lambda *args: value(*args)), False)]
    return [(other, True) for other in other_data(value, hint)]


def other_data(value: Any, hint: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, pl.Expr):
        return [pl.coalesce(value, value)]
    if isinstance(value, type):
        assert value in OTHERS, f"say what could stand for the type {value}"
        return OTHERS[value]
    if not value:
        return []
    if isinstance(value, int | timedelta):
        return [value * 2]
    assert isinstance(value, str), f"change {value!r} as its kind is changed"
    if typing.get_origin(hint) is Literal:
        members = typing.get_args(hint)
        return [members[(members.index(value) + 1) % len(members)]]
    return [STRINGS.get(value, f"{value}_2")]


def with_other_inputs(node: Node) -> Iterator[tuple[Node, ...]]:
    """Yield what stands for a node that reads something else: copies of what it reads, and itself."""
    for index, name in enumerate(node.inputs):
        copy = replace(GRAPH.node(name), name="copy")
        yield copy, replace(node, inputs=(*node.inputs[:index], "copy", *node.inputs[index + 1 :]))


def graph_with(node: Node, *instead: Node) -> LogicalGraph:
    return replace(GRAPH, nodes=tuple(itertools.chain(*(instead if one is node else (one,) for one in GRAPH.nodes))))


@functools.cache
def texts_before() -> Mapping[str, str]:
    return node_texts(compile_graph(GRAPH))


def texts_of(graph: LogicalGraph) -> Mapping[str, str] | None:
    """Return the texts of a graph, None if it cannot be compiled."""
    try:
        return node_texts(compile_graph(graph))
    except StreamkitError:
        return None


FIELDS = [
    (class_, each.name)
    for class_ in CLASSES
    for each in fields(class_)
    if owner_of(class_, each.name) is class_ and (class_, each.name) not in LEFT_OUT and each.name != "inputs"
]


@pytest.mark.parametrize(("owner", "field"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_whatever_a_field_holds_shows_unless_it_is_a_function(owner: type, field: str) -> None:
    was, compiled = texts_before(), 0
    for node in GRAPH.nodes:
        for change in changes_of(node):
            if (change.owner, change.field) == (owner, field):
                now = texts_of(graph_with(node, change.value))
                if now is not None:
                    compiled += 1
                    assert (now[node.name] != was[node.name]) == change.shown, (change.value, now[node.name])
            # What holds values that are changed themselves is held by them.
            compiled += (owner, field) in change.around
    assert compiled, "no node has something in the field that could be something else"


@pytest.mark.parametrize("class_", [each for each in CLASSES if issubclass(each, Node) and each is not Node])
def test_what_a_node_reads_shows(class_: type[Node]) -> None:
    was = texts_before()
    found = [node for node in GRAPH.nodes if type(node) is class_]
    assert found
    for node in found:
        for instead in with_other_inputs(node):
            now = texts_of(graph_with(node, *instead))
            assert now is None or now[node.name] != was[node.name]
