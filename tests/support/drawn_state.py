"""The operators of drawn jobs that keep state or look it up: folds, joins, and `process`."""

import operator
from dataclasses import replace
from typing import Any

import drawn_rows
import polars as pl
from drawn_parts import Choices, DrawnJob, DrawnStream, DrawnTable, Step
from drawn_rows import ms

from streamkit import Hopping, Tumbling, agg

__all__ = ["AGGREGATES", "add_fold", "add_join", "add_process", "add_table_join", "keyed", "new_key"]


def keyed(on: DrawnStream, key: Any, type_: Any, name: str, shards: int) -> DrawnStream:
    stream = on.stream.key_by(key, type=type_, name=name, shards=shards)
    return replace(on, stream=stream, key=type_, keyed_by=frozenset({name}))


def new_key(on: DrawnStream, choices: Choices) -> tuple[Any, Any]:
    """Return a key and its type, None for what a function says itself."""
    ways: list[tuple[Any, Any]] = [
        (drawn_rows.shop_of, str),
        (drawn_rows.remainder_of, int),
        (drawn_rows.pair_of, tuple[str, int]),
    ]
    if on.framed:
        ways += [("shop", str), ("n", int), (pl.col("n") % 3, int)]
    return choices.of(ways)


AGGREGATES = {
    "sum_n": agg.sum("n"),
    "sum_x": agg.sum("x"),
    "mean": agg.mean("x"),
    "std": agg.std("x"),
    "var": agg.var("m", ddof=0),
    "min": agg.min("x"),
    "max": agg.max("shop"),
    "max_m": agg.max("m"),
    "top": agg.top_k("x", 2),
    "kinds": agg.distinct("x"),
    "about": agg.distinct("shop", approx=True),
    "first": agg.first("m"),
    "last": agg.last("x"),
    "least": agg.arg_min("shop", by="x"),
    "most": agg.arg_max("x", by="m"),
    "all": agg.collect("n"),
}
ORDERED = {"first", "last", "least", "most", "all"}


def folded(drawn: DrawnJob, group: Any, on: DrawnStream, choices: Choices, name: str) -> tuple[Any, list[str]]:
    """Fold a group; return the table, and the columns that it has."""
    kinds = [
        "agg",
        "count",
        "merge",
        "dict",
        "set",
        "reduce",
        "listed",
        "latest",
        "woven",
    ]
    kind = choices.of(kinds)
    if kind in ("listed", "latest", "woven"):
        drawn.one_shard_count |= on.ranked
    match kind:
        case "agg":
            names = {choices.of(list(AGGREGATES)) for _ in range(1 + choices.of(range(3)))}
            drawn.keeps_offsets |= bool(names & ORDERED)
            drawn.one_shard_count |= on.ranked and bool(names & ORDERED)
            columns = {"n": agg.count(), **{name: AGGREGATES[name] for name in sorted(names)}}
            return group.agg(columns, name=name), list(columns)
        case "count":
            return group.count(name=name), []
        case "merge":
            return group.aggregate(drawn_rows.total, initial=int, merge=operator.add, name=name), []
        case "dict":
            return group.aggregate(drawn_rows.by_shop, initial=dict[str, int], merge=drawn_rows.both, name=name), []
        case "set":
            return group.aggregate(drawn_rows.shops, initial=set[str], merge=operator.or_, name=name), []
        case "reduce":
            return group.reduce(drawn_rows.larger, name=name), []
        case "latest":
            return group.aggregate(drawn_rows.latest, initial=dict[str, int], name=name), []
        case "listed":
            return group.aggregate(drawn_rows.listed, initial=list[int], name=name), []
        case _:
            return group.reduce(drawn_rows.woven, commutative=False, name=name), []


WINDOWS = (
    None,
    Tumbling(ms(20), grace=ms(10)),
    Hopping(ms(20), advance=ms(7), grace=ms(10)),
    Tumbling(ms(30), grace=ms(0)),
)


def add_fold(drawn: DrawnJob, step: Step, name: str) -> None:
    """Group, by a new key or the one there is, or what was grouped before; cut into windows; fold."""
    choices = Choices(step.how)
    on, group = drawn.pick(step), None
    if on is None:
        return
    match choices.of(["new", "own", "again"]):
        case "own" if on.one_key:
            group = on.stream.group_by_key()
        case "again" if drawn.groups:
            group, on = drawn.groups[step.at % len(drawn.groups)]
    if group is None:
        key, type_ = new_key(on, choices)
        group = on.stream.group_by(key, type=type_, name=f"{name}_key", shards=drawn.shards)
        on = replace(on, key=type_, keyed_by=frozenset({f"{name}_key"}))
    drawn.groups.append((group, on))
    window, emit = choices.of(WINDOWS), choices.of(["final", "final", "update"])
    if window is not None:
        group = group.window(window, emit=emit)
        if choices.of([True, False]):
            drawn.streams.append(replace(on, stream=group.late))
    table, columns = folded(drawn, group, on, choices, name)
    final = window is not None and emit == "final"
    drawn.add_table(DrawnTable(table=table, columns=columns, windowed=window is not None, final=final, after=on))


def add_join(drawn: DrawnJob, step: Step, name: str) -> None:
    """Look a table up, be it of a topic, a fold or a join, by the key there is or a new one."""
    choices = Choices(step.how)
    table = drawn.pick_table(step, lambda table: table.joins(table.after.key))
    if table is None:
        return
    some = [stream for stream in drawn.streams if stream.one_key and table.joins(stream.key)]
    if some and choices.of([True, False]):
        on = choices.of(some)
    elif drawn.streams and table.after.key in drawn_rows.KEYS:
        key = choices.of(drawn_rows.KEYS[table.after.key])
        on = keyed(choices.of(drawn.streams), key, table.after.key, f"{name}_key", drawn.shards)
    else:
        return
    drawn.one_shard_count |= on.ranked or table.after.ranked
    drawn.streams.append(on.in_turn(on.stream.join(table.table, drawn_rows.enriched, name=name)))


def add_table_join(drawn: DrawnJob, step: Step, name: str) -> None:
    on = drawn.pick_table(step, lambda table: table.joins(table.after.key))
    some = [] if on is None else [table for table in drawn.tables if table.joins(on.after.key)]
    if on is not None and some:
        other = some[step.how % len(some)]
        drawn.one_shard_count |= on.after.ranked or other.after.ranked
        after = replace(on.after, ranked=on.after.shuffled or other.after.shuffled)
        table = on.table.join(other.table, drawn_rows.told, name=name)
        drawn.add_table(replace(on, table=table, columns=(), after=after))


def add_process(drawn: DrawnJob, step: Step, name: str) -> None:
    """Process with a store, which now and then another one has too, with a punctuation, or with neither."""
    choices = Choices(step.how)
    on = drawn.pick(step, lambda stream: stream.one_key)
    if on is None:
        return
    way = choices.of(["own", "shared", "ticking", "shared", "plain"])
    if way == "plain":
        stream = on.stream.process(drawn_rows.passed_on, name=name)
        drawn.streams.append(replace(on, stream=stream, shape="struct"))
        return
    shared = [store for store, key in drawn.stores if key == on.key and way == "shared"]
    if shared:
        store = choices.of(shared)
    else:
        store = drawn.job.store(f"store_{len(drawn.stores)}", key=on.key, value=int)
        drawn.stores.append((store, on.key))
    stream = on.stream.process(drawn_rows.counted_in(store), stores=[store], name=name)
    drawn.one_shard_count |= on.ranked
    if way != "own" and choices.of([True, False, True]):
        stream.punctuate(drawn_rows.told_of(store), every=ms(15))
        # It sees all keys of its task.
        drawn.one_shard_count |= on.shuffled
    drawn.streams.append(on.in_turn(stream))
