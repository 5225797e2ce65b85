"""Builds the operators of one task from its sub-topology: the only place that knows which node runs as what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from streamkit.graph import (
    Aggregation,
    Columns,
    Filter,
    Join,
    KeyBy,
    Late,
    Latest,
    LogicalGraph,
    Map,
    MapValues,
    Merge,
    Node,
    Sink,
    Source,
    TableJoin,
    ToStream,
    Typed,
    Window,
)
from streamkit.graph.nodes import Process
from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.aggregates import FrameAggregates
from streamkit.runtime.blocks import BlockKind
from streamkit.runtime.channels import ChannelInput
from streamkit.runtime.context import TaskContext
from streamkit.runtime.groups import FrameGroups, Groups, RowGroups, fold_for
from streamkit.runtime.input import Input
from streamkit.runtime.inputs import SourceInput
from streamkit.runtime.operators.aggregate import AggregateOperator, AggregateSpec
from streamkit.runtime.operators.async_map import async_map
from streamkit.runtime.operators.base import Fan
from streamkit.runtime.operators.joining import RowByRow
from streamkit.runtime.operators.latest import LatestOperator
from streamkit.runtime.operators.merging import FactsOperator, MergeOperator
from streamkit.runtime.operators.process import ProcessOperator
from streamkit.runtime.operators.rows_shuffle import RowsWriter
from streamkit.runtime.operators.shuffle import CombineOperator, RepartitionWriter
from streamkit.runtime.operators.sink import SinkOperator, SinkSpec
from streamkit.runtime.operators.stateless import Chain, Step, TableFilter, step_for
from streamkit.runtime.operators.windowing import WindowOperator, last_window_ends
from streamkit.runtime.position import InputPosition, Position
from streamkit.runtime.processes import Processes
from streamkit.runtime.rows_input import RowsInput
from streamkit.runtime.tables import Tables
from streamkit.runtime.task_plan import TaskPlan
from streamkit.runtime.turns import Strand
from streamkit.serde import Serde, frame_serde, key_serde, value_serde
from streamkit.state import Digest
from streamkit.topology import NodePlan, Repartition
from streamkit.topology.absent import absent_nodes
from streamkit.topology.closings import closings_behind
from streamkit.topology.plans import filters_updates
from streamkit.topology.processing import inputs_row_by_row

__all__ = ["Parts", "build_parts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The operators that a task itself speaks to, and the digest of each store by its name, kept by who writes it.

    `strands` are those of all inputs, in the order of the inputs' topics, in which rows of the same turn come.
    """

    inputs: Mapping[TopicPartition, Input]
    digests: Mapping[str, Digest]
    aggregates: tuple[AggregateOperator, ...]
    latest: tuple[LatestOperator, ...]
    processes: tuple[ProcessOperator, ...]
    writers: tuple[RepartitionWriter | RowsWriter, ...]
    strands: tuple[Strand, ...]


def build_parts(plan: TaskPlan, position: Position, context: TaskContext) -> Parts:
    """Return the operators of one task, wired in the order of its nodes."""
    return _Builder(plan, position, context).build()


class _Builder:
    def __init__(self, plan: TaskPlan, position: Position, context: TaskContext) -> None:
        self._plan, self._position, self._context = plan, position, context
        self._graph: LogicalGraph = plan.topology.graph
        self._nodes = {node.name: node for node in self._graph.nodes}
        self._absent = absent_nodes(plan.topology, plan.sub, plan.partition, plan.partition_counts)
        self._outs: dict[str, Fan] = {}
        self._windows: dict[str, WindowOperator] = {}
        self._chained: dict[str, tuple[list[Step], Fan]] = {}
        self._inputs: dict[TopicPartition, Input] = {}
        self._aggregates: list[AggregateOperator] = []
        self._combines: dict[str, CombineOperator] = {}
        self._whole = {one.name for one in plan.topology.repartitions if one.whole}
        self._row_by_row = inputs_row_by_row(self._graph, self._whole)
        self._digests = {store.name: self._saved_digest(store.name) for store in plan.sub.stores}
        self._tables = Tables(plan.topology, plan.sub, plan.check, context, self._digests)
        self._processes = Processes(plan.sub.stores, self._digests, position.stream_times_ms, context)

    def build(self) -> Parts:
        self._add_shuffled_rows()
        for name in self._plan.sub.nodes:
            self._add(self._nodes[name])
        for name in self._plan.sub.combines:
            self._add_combine(self._aggregation(name))
        self._add_channels()
        by_topic = sorted(self._inputs.items(), key=lambda item: item[0].topic)
        strands = tuple(strand for _, reader in by_topic for strand in reader.strands)
        written = [name for name in self._plan.sub.repartitions_out if name not in self._absent]
        writers = tuple(self._writer(name, strands) for name in written)
        return Parts(
            inputs=self._inputs,
            digests=self._digests,
            aggregates=tuple(self._aggregates),
            latest=tuple(self._tables.latest),
            processes=tuple(self._processes.operators),
            writers=writers,
            strands=strands,
        )

    def _saved_digest(self, store: str) -> Digest:
        saved = self._position.digests.get(store)
        return Digest() if saved is None else Digest.from_text(saved)

    def _add(self, node: Node) -> None:  # noqa: C901  # one case a kind of node
        match node:
            case Source():
                self._add_source(node)
            case Merge():
                merge = MergeOperator()
                for name in node.inputs:
                    if name not in self._absent:
                        self._outs[name].add(merge.port())
                self._outs[node.name] = merge.out
            case Window():
                window = WindowOperator(node.window, self._context)
                self._outs[node.inputs[0]].add(window)
                self._windows[node.name] = window
            case Late():
                self._outs[node.name] = self._windows[node.inputs[0]].late
            case Aggregation():
                self._add_aggregate(node)
            case Latest():
                latest = self._tables.keep(node)
                self._outs[node.inputs[0]].add(latest)
                self._outs[node.name] = latest.out
            case Join():
                join = self._tables.join(node)
                self._outs[node.inputs[0]].add(join)
                self._outs[node.name] = join.out
            case TableJoin():
                tables = self._tables.join_tables(node)
                for name, side in zip(node.inputs, tables.sides, strict=True):
                    self._outs[name].add(side)
                self._outs[node.name] = tables.out
            case Sink():
                self._outs[node.inputs[0]].add(self._sink(node))
            case ToStream():
                facts = FactsOperator()
                self._outs[node.inputs[0]].add(facts)
                self._outs[node.name] = self._cut(node.name, facts.out)
            case Process():
                process = self._processes.make(node, self._plan_of(node.name))
                self._outs[node.inputs[0]].add(process)
                self._outs[node.name] = process.out
            case _:
                self._add_step(node)

    def _plan_of(self, name: str) -> NodePlan:
        return self._plan.topology.plans[name]

    def _aggregation(self, name: str) -> Aggregation:
        node = self._nodes[name]
        assert isinstance(node, Aggregation), "only aggregations combine"
        return node

    def _add_step(self, node: Node) -> None:
        """Add a stateless node: fused with the one before it, if both are of one chain."""
        step = self._step(node)
        if isinstance(node, Filter) and filters_updates(self._graph, node):
            fails = step_for(replace(node, negate=not node.negate), self._plan_of(node.name), self._plan.check)
            split = TableFilter(step, fails, Fan())
            self._outs[node.inputs[0]].add(split)
            self._outs[node.name] = split.out
            return
        chain = next((chain for chain in self._plan.sub.chains if node.name in chain), (node.name,))
        if node.name == chain[0]:
            self._chained[node.name] = ([step], Fan())
        else:
            self._chained[chain[0]][0].append(step)
        steps, out = self._chained[chain[0]]
        if node.name == chain[-1]:
            self._outs[self._nodes[chain[0]].inputs[0]].add(Chain(steps, out))
            self._outs[node.name] = out

    def _step(self, node: Node) -> Step:
        if isinstance(node, Map) and node.calls is not None:
            assert self._plan.coroutines is not None, "a worker has taken the task"
            return async_map(node, self._plan_of(node.name), self._plan.coroutines)
        return step_for(node, self._plan_of(node.name), self._plan.check)

    def _add_source(self, node: Source) -> None:
        plan, place = self._plan_of(node.name), TopicPartition(node.topic, self._plan.partition)
        if node.name in self._absent:
            self._outs[node.name] = Fan()
            return
        readers = self._graph.children(node.name)
        columnar = plan.schema is not None and any(self._wants_frame(reader) for reader in readers)
        values: Serde = value_serde(node.value_type)
        if columnar:
            needed = self._needed_columns(node)
            values = values if needed is None else values.narrowed(needed)
        source = SourceInput(
            node,
            (key_serde(node.key_type), values),
            self._plan.marks[node.topic],
            self._position.inputs.get(place, InputPosition()),
            self._context,
            columnar=columnar,
        )
        self._inputs[place] = source
        self._outs[node.name] = self._cut(node.name, source.out)

    def _cut(self, name: str, out: Fan) -> Fan:
        """Return what hands on the rows of an input: one at a time where a node would see how batches are cut."""
        if name not in self._row_by_row:
            return out
        rows = RowByRow()
        out.add(rows)
        return rows.out

    def _wants_frame(self, node: Node) -> bool:
        """Whether a node reads columns; nodes that look at no value ask the ones behind them."""
        if isinstance(node, Window | Merge | Late):
            return any(self._wants_frame(child) for child in self._graph.children(node.name))
        return not isinstance(node, Sink) and self._plan_of(node.name).spelling == "columns"

    def _needed_columns(self, source: Source) -> frozenset[str] | None:
        """Return the columns that the readers of a source use, None if one of them may use any."""
        needed: set[str] = set()
        field = source.event_time.field
        if callable(field):
            return None
        if field is not None:
            needed.add(field)
        waiting = list(self._graph.children(source.name))
        while waiting:
            node = waiting.pop()
            columns = None if node.name in self._whole else _columns_used(node)
            if columns is None:
                return None
            needed |= columns
            if not isinstance(node, Aggregation):
                waiting.extend(self._graph.children(node.name))
        return frozenset(needed)

    def _groups(self, node: Aggregation) -> Groups:
        source = node.inputs[0]
        keyed = self._plan_of(source)
        keys, results = key_serde(keyed.key_type), self._plan_of(node.name)
        values: Serde = value_serde(results.value_type)
        if results.spelling == "python":
            return RowGroups(node.name, fold_for(node), keys, keyed.key_type, values)
        assert isinstance(node.how, Columns)
        assert keyed.schema is not None, "a columnar aggregation has a schema"
        aggregates = FrameAggregates(node.how.aggregates, keyed.schema)
        scalar = next(iter(node.how.aggregates)) if node.how.scalar else None
        return FrameGroups(node.name, aggregates, keys, values, scalar)

    def _receive_from(self, node: Aggregation, folding: CombineOperator | AggregateOperator) -> None:
        upstream = node.inputs[0]
        if upstream in self._windows:
            self._windows[upstream].add(folding)
        else:
            self._outs[upstream].add(folding)

    def _add_combine(self, node: Aggregation) -> None:
        kind: BlockKind = "rows" if self._plan_of(node.name).spelling == "python" else "frame"
        combine = CombineOperator(node.name, kind, self._groups(node), self._context)
        self._combines[node.name] = combine
        self._receive_from(node, combine)

    def _shuffled(self, node: Aggregation) -> bool:
        repartitions = self._plan.topology.repartitions
        return any(node.name in one.aggregations for one in repartitions if not one.whole)

    def _add_aggregate(self, node: Aggregation) -> None:
        store = next(store for store in self._plan.sub.stores if store.name == node.name)
        upstream = self._nodes[node.inputs[0]]
        groups = self._groups(node)
        spec = AggregateSpec(
            node=node.name,
            store_index=store.index,
            window=upstream.window if isinstance(upstream, Window) else None,
            emit=node.emit,
            ordered=isinstance(groups, RowGroups) and not fold_for(node).mergeable,
            published_ms=self._published_ms(node),
        )
        operator = AggregateOperator(spec, groups, self._context, self._digests[store.name])
        self._aggregates.append(operator)
        self._tables.add(node.name, operator)
        self._outs[node.name] = operator.out
        if not self._shuffled(node):
            self._receive_from(node, operator)

    def _published_ms(self, node: Node) -> int:
        """Return how far an earlier bounded run published what goes out of a node.

        The run closed every window that had begun, and the result of one is stamped with the window's end - 1.
        """
        if isinstance(node, Source):
            mark = self._plan.marks.get(node.topic)
            return self._plan.run.published_ms if mark is None else mark.published_ms
        published_ms = max(self._published_ms(self._nodes[name]) for name in node.inputs)
        window = self._nodes[node.inputs[0]] if isinstance(node, Aggregation) else None
        if not isinstance(window, Window) or published_ms == NEVER_MS:
            return published_ms
        return int(last_window_ends(window.window, np.array([published_ms]))[0]) - 1

    def _repartitions_in(self, *, whole: bool) -> list[Repartition]:
        found = map(self._plan.topology.repartition, self._plan.sub.repartitions_in)
        return [repartition for repartition in found if repartition.whole == whole]

    def _add_shuffled_rows(self) -> None:
        for repartition in self._repartitions_in(whole=True):
            plan = self._plan_of(repartition.name)
            typed = plan.value_type is not None or plan.schema is None
            values: Serde = value_serde(plan.value_type) if typed else frame_serde(dict(plan.schema or {}))
            place = TopicPartition(repartition.topic, self._plan.partition)
            self._inputs[place] = rows = RowsInput(
                repartition,
                self._plan.channels[repartition.topic],
                (key_serde(plan.key_type), values),
                self._position.inputs.get(place, InputPosition()),
                self._context,
            )
            self._outs[repartition.name] = self._cut(repartition.name, rows.out)

    def _add_channels(self) -> None:
        readers = {aggregate.spec.node: aggregate for aggregate in self._aggregates}
        for repartition in self._repartitions_in(whole=False):
            place = TopicPartition(repartition.topic, self._plan.partition)
            self._inputs[place] = ChannelInput(
                place,
                self._plan.channels[repartition.topic],
                {name: readers[name] for name in repartition.aggregations},
                self._position.inputs.get(place, InputPosition()),
                self._context,
            )

    def _writer(self, name: str, strands: Sequence[Strand]) -> RepartitionWriter | RowsWriter:
        repartition = self._plan.topology.repartition(name)
        if repartition.whole:
            return self._rows_writer(repartition, strands)
        writer = RepartitionWriter(
            repartition.topic,
            self._plan.partition_counts[repartition.topic],
            self._plan.task_id,
            closings_behind(self._graph, repartition.aggregations),
            [self._combines[aggregation] for aggregation in repartition.aggregations],
            self._context,
        )
        self._outs[self._carrier(repartition.aggregations[0])].add(writer)
        return writer

    def _rows_writer(self, repartition: Repartition, strands: Sequence[Strand]) -> RowsWriter:
        writer = RowsWriter(
            repartition,
            self._plan.partition_counts[repartition.topic],
            self._plan.task_id,
            strands,
            self._context,
        )
        self._outs[repartition.name].add(writer)
        return writer

    def _carrier(self, aggregation: str) -> str:
        """Return the node whose watermark is the channel's: the last one before windows and folds."""
        upstream = self._nodes[self._aggregation(aggregation).inputs[0]]
        return upstream.inputs[0] if isinstance(upstream, Window) else upstream.name

    def _sink(self, node: Sink) -> SinkOperator:
        flat, own = self._origin(node)
        spec = SinkSpec(
            node=node.name,
            topic=node.topic,
            partition_count=self._plan.partition_counts[node.topic],
            message_bytes_max=self._plan.message_bytes_max[node.topic],
            own_partition=own,
            flat=flat,
        )
        return SinkOperator(spec, self._context)

    def _origin(self, node: Sink) -> tuple[bool, bool]:
        """Return whether a windowed value's columns stand side by side, and whether rows stay in this partition.

        They do where the key is still the one that the shuffle placed, and the topic has as many partitions.
        """
        upstream = self._nodes[node.inputs[0]]
        flat = True
        while isinstance(upstream, Filter | Typed | ToStream | MapValues):
            flat = flat and not isinstance(upstream, MapValues)
            upstream = self._nodes[upstream.inputs[0]]
        if not isinstance(upstream, Aggregation):
            return False, False
        flat = flat and isinstance(upstream.how, Columns) and not upstream.how.scalar
        for repartition in self._plan.topology.repartitions:
            if upstream.name in repartition.aggregations:
                shards = self._plan.partition_counts[repartition.topic]
                return flat, shards == self._plan.partition_counts[node.topic]
        return flat, False


def _columns_used(node: Node) -> set[str] | None:
    """Return the columns that one node reads, None if it may read any."""
    match node:
        case KeyBy(key=str() as name):
            return {name}
        case KeyBy(key=pl.Expr() as expression) | Filter(predicate=pl.Expr() as expression):
            return set(expression.meta.root_names())
        case Window() | Merge():
            return set()
        case Aggregation(how=Columns() as how):
            return {column for one in how.aggregates.values() for column in one.columns}
        case _:
            return None
