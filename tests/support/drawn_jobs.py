"""Jobs drawn from all operators: a list of steps is a job, whatever the steps are.

A step names an operator, and says by numbers what it works on and how. One that fits nothing there is is left out; so
is, of what it might do, all that the job would refuse. So a job can be written down, and made again with other shards.

An operator is added in `OPERATORS`: a function that finds what it fits, adds its nodes, and says what came of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import drawn_rows
import polars as pl
from drawn_parts import Choices, DrawnJob, DrawnStream, DrawnTable, Shape, SourceKind, Step
from drawn_rows import Row, Totals, fingerprint
from drawn_state import AGGREGATES, add_fold, add_join, add_process, add_table_join, keyed, new_key
from hypothesis import strategies as st

from streamkit import AsyncCalls, Job
from streamkit.errors import TopologyError
from streamkit.topology import compile_graph

__all__ = ["AGGREGATES", "OPERATORS", "DrawnJob", "SourceKind", "Step", "drawn_job", "source_kinds", "steps"]


def add_map(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        loose = step.how % 2 == 1
        stream = on.stream.map(drawn_rows.loosened if loose else drawn_rows.changed, name=name)
        drawn.streams.append(replace(on, stream=stream, shape="loose" if loose else "struct"))


def add_async_map(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        stream = on.stream.map(drawn_rows.awaited, calls=AsyncCalls(at_once=1 + step.how % 3), name=name)
        drawn.streams.append(replace(on, stream=stream, shape="struct"))


def add_flat_map(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        drawn.streams.append(replace(on, stream=on.stream.flat_map(drawn_rows.doubled, name=name), shape="struct"))


def predicate_for(framed: bool, how: int) -> Any:
    return [drawn_rows.few, pl.col("n") > 1, pl.col("m") > 2][how % 3 if framed else 0]


def add_filter(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        drawn.streams.append(replace(on, stream=on.stream.filter(predicate_for(on.framed, step.how), name=name)))


def add_branch(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        sides = on.stream.branch(predicate_for(on.framed, step.how), name=name)
        drawn.streams.extend(replace(on, stream=side) for side in sides)


def add_peek(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        drawn.streams.append(replace(on, stream=on.stream.peek(fingerprint, name=name)))


def add_map_batches(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step, lambda stream: stream.framed)) is not None:
        stream = on.stream.map_batches([drawn_rows.more_of, drawn_rows.some_of][step.how % 2], name=name)
        drawn.streams.append(replace(on, stream=stream, shape="loose"))


def add_select(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step, lambda stream: stream.framed)) is not None:
        stream = on.stream.select("shop", pl.col("n") * 2 - 1, pl.col("x") + 0.1, "m", "ts")
        drawn.streams.append(replace(on, stream=stream, shape="columns"))


def add_with_columns(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step, lambda stream: stream.framed)) is not None:
        stream = on.stream.with_columns(pl.when(pl.col("n") > 2).then(pl.col("n")).alias("m"))
        drawn.streams.append(replace(on, stream=stream, shape="columns"))


def add_typed(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        drawn.streams.append(replace(on, stream=on.stream.typed(Row), shape="struct"))


def add_merge(drawn: DrawnJob, step: Step, name: str) -> None:
    on = drawn.pick(step)
    others = [one for one in drawn.streams if on is not None and one.key == on.key and one.stream is not on.stream]
    if on is None or not others:
        return
    other = others[step.how % len(others)]
    alike = on.shape == other.shape and on.framed
    merged = replace(
        on,
        stream=on.stream.merge(other.stream),
        shape=on.shape if alike else "loose",
        keyed_by=on.keyed_by | other.keyed_by,
        merged=True,
        ranked=on.ranked or other.ranked,
    )
    drawn.streams.append(merged)


def add_key_by(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick(step)) is not None:
        key, type_ = new_key(on, Choices(step.how))
        drawn.streams.append(keyed(on, key, type_, name, drawn.shards))


def add_map_values(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick_table(step)) is not None:
        drawn.add_table(replace(on, table=on.table.map_values(fingerprint, name=name), columns=()))


def add_table_filter(drawn: DrawnJob, step: Step, name: str) -> None:
    if (on := drawn.pick_table(step, lambda table: table.final or not table.windowed)) is not None:
        framed = bool(on.columns) and on.after.framed
        predicate = pl.col("n") > 1 if framed and step.how % 2 else drawn_rows.passes
        drawn.add_table(replace(on, table=on.table.filter(predicate, name=name)))


def add_facts(drawn: DrawnJob, step: Step, name: str) -> None:
    """Take final results as rows, by expressions where their columns are known."""
    if (on := drawn.pick_table(step, lambda table: table.final)) is None:
        return
    stream, shape = on.table.to_stream(), "struct"
    if on.columns and on.after.framed and step.how % 2:
        n = pl.col("n")
        shop = pl.when(n > 1).then(pl.lit("a")).otherwise(pl.lit("b"))
        stream = stream.select(shop.alias("shop"), n, (n / 3).alias("x"), n.alias("m"), (n * 0).alias("ts"))
        shape = "columns"
    else:
        stream = stream.map(drawn_rows.row_of, name=name)
    facts = DrawnStream(stream=stream, shape=shape, key=on.after.key, ranked=on.after.shuffled)  # type: ignore[arg-type]  # it is one
    drawn.streams.append(facts)
    if step.how % 3 == 1:
        # Behind a shuffle of their own, facts have an order.
        drawn.streams.append(keyed(facts, drawn_rows.key_of, str, f"{name}_key", drawn.shards))


def add_typed_table(drawn: DrawnJob, step: Step, name: str) -> None:
    if (
        on := drawn.pick_table(step, lambda table: table.after.framed and set(table.columns) == {"n", "sum_x"})
    ) is not None:
        drawn.add_table(replace(on, table=on.table.typed(Totals)))


OPERATORS: Mapping[str, Callable[[DrawnJob, Step, str], None]] = {
    "fold": add_fold,
    "facts": add_facts,
    "map": add_map,
    "filter": add_filter,
    "flat_map": add_flat_map,
    "key_by": add_key_by,
    "merge": add_merge,
    "branch": add_branch,
    "map_values": add_map_values,
    "table_filter": add_table_filter,
    "typed_table": add_typed_table,
    "select": add_select,
    "with_columns": add_with_columns,
    "map_batches": add_map_batches,
    "typed": add_typed,
    "async_map": add_async_map,
    "peek": add_peek,
    "join": add_join,
    "table_join": add_table_join,
    "process": add_process,
}
"""Every operator there is; a new one comes here. Each leaves the job as it is where nothing fits it."""

OFTEN = ("fold", "fold", "fold", "facts", "facts", "join", "join", "process")

source_kinds = st.lists(
    st.builds(
        SourceKind,
        key=st.sampled_from([str, None, int]),
        typed=st.sampled_from([True, True, False]),
        time=st.sampled_from(["field", "slack", "function", "record"]),
        table=st.sampled_from([False, False, True]),
    ),
    min_size=1,
    max_size=2,
)
STATE = ("fold", "fold", "facts", "facts", "key_by", "merge", "join", "table_join", "process", "process")


def steps_of(operators: Sequence[str]) -> st.SearchStrategy[list[Step]]:
    one = st.builds(
        Step,
        operator=st.sampled_from(operators),
        at=st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5]),
        how=st.integers(0, 2**16),
    )
    return st.lists(one, min_size=1, max_size=9)


steps = st.one_of(steps_of([*OPERATORS, *OFTEN]), steps_of(STATE))
"""Of all operators, or of those that keep state alone."""

REFUSED = (
    "reads results of windows beside others",
    "leads back into the tasks that write it",
    "of what type they are is not known",
    "whose keys were not made by one node",
)
"""What a job says of drawn steps that do not go together; anything else is a bug."""


def drawn_job(kinds: Sequence[SourceKind], steps: Sequence[Step], shards: int) -> DrawnJob:
    """Return the job of some steps, without those that it would refuse."""
    try:
        return _job_of(kinds, steps, shards)
    except TopologyError as error:
        if not any(text in str(error) for text in REFUSED):
            raise
    # Which step it was nobody knows, so each is tried with those before it.
    kept: list[Step] = []
    for step in steps:
        try:
            _job_of(kinds, [*kept, step], shards)
        except TopologyError:
            kept.append(Step("none"))
        else:
            kept.append(step)
    return _job_of(kinds, kept, shards)


def _job_of(kinds: Sequence[SourceKind], steps: Sequence[Step], shards: int) -> DrawnJob:
    """Build and compile the job of some steps.

    Raises:
        TopologyError: They do not go together.
    """
    drawn = DrawnJob(job=Job("drawn"), shards=shards)
    for number, kind in enumerate(kinds):
        add_source(drawn, kind, f"source_{number}")
    for number, step in enumerate(steps):
        if step.operator in OPERATORS:
            OPERATORS[step.operator](drawn, step, f"{step.operator}_{number}")
    drawn.end()
    compile_graph(drawn.job.build())
    return drawn


def add_source(drawn: DrawnJob, kind: SourceKind, topic: str) -> None:
    """Read a topic as a stream, or as a table if it has keys."""
    value = Row if kind.typed else None
    shape: Shape = "struct" if kind.typed else "loose"
    if kind.table and kind.key is not None:
        table = drawn.job.table(topic, key=kind.key, value=value, timestamp=kind.timestamp)
        columns = Row.__struct_fields__ if kind.typed else ()
        after = DrawnStream(stream=None, shape=shape, key=kind.key)
        drawn.add_table(DrawnTable(table=table, columns=columns, windowed=False, final=False, after=after))
    else:
        stream = drawn.job.stream(topic, key=kind.key, value=value, timestamp=kind.timestamp)
        drawn.streams.append(DrawnStream(stream=stream, shape=shape, key=kind.key))
