"""A topology: the graph cut into sub-topologies at repartition topics. Frozen data, made by `compile_graph`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import polars as pl

from streamkit.graph import LogicalGraph

__all__ = ["NodePlan", "Repartition", "Spelling", "StoreSpec", "SubTopology", "Topology"]

Spelling: TypeAlias = Literal["python", "columns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """What compilation found out about a node's output.

    `spelling` is how the node runs. `schema` is the frame's schema where it is known (a typed struct, or computed
    through expressions), else None. `key_type` and `value_type` are the declared types, None where unknown.
    `windowed` says that the key of the output is a window's.
    """

    spelling: Spelling
    schema: Mapping[str, pl.DataType] | None
    key_type: Any
    value_type: Any
    windowed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """A store: of the aggregation or the table of the same name, or of the `process` nodes that name it.

    `index` leads its keys: a hash of the name, unique within the job.
    """

    name: str
    index: int
    changelog_topic: str
    windowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Repartition:
    """A shuffle: made by the `KeyBy` node `name`.

    Where one reader needs the rows themselves, `whole`, all of them do, and every node behind the `KeyBy` runs
    downstream. Else partial results are shuffled, for the aggregations in `aggregations`. `ordered` says that the rows
    come to their readers in the order of the log. `facts` says that they are results of windows.

    `upstream` are the indexes of the sub-topologies that write it: each of their tasks is one channel, but for those
    that never get a row of it (`absent`).
    """

    name: str
    topic: str
    shards: int
    upstream: tuple[int, ...]
    downstream: int
    aggregations: tuple[str, ...]
    whole: bool = False
    ordered: bool = False
    facts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SubTopology:
    """One kind of task.

    `nodes` run here, inputs before users. An aggregation behind a shuffle is in `combines` of the upstream
    sub-topology (window, lateness and partial fold run there) and in `nodes` of the downstream one. `chains` are the
    runs of stateless nodes that are fused. A task exists for each partition of its inputs. One that is `ordered` takes
    the rows of all its inputs in the order of the log.
    """

    index: int
    nodes: tuple[str, ...]
    source_topics: tuple[str, ...]
    repartitions_in: tuple[str, ...]
    repartitions_out: tuple[str, ...]
    combines: tuple[str, ...]
    stores: tuple[StoreSpec, ...]
    sink_topics: tuple[str, ...]
    chains: tuple[tuple[str, ...], ...]
    ordered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """All sub-topologies of one job, and what is known about each node."""

    job: str
    graph: LogicalGraph
    sub_topologies: tuple[SubTopology, ...]
    repartitions: tuple[Repartition, ...]
    plans: Mapping[str, NodePlan]

    def repartition(self, name: str) -> Repartition:
        """Return the shuffle made by the node `name`."""
        return next(repartition for repartition in self.repartitions if repartition.name == name)

    def input_topics(self, sub: SubTopology) -> list[str]:
        """Return what the tasks of a sub-topology read: sources, then shuffles."""
        return [*sub.source_topics, *(self.repartition(name).topic for name in sub.repartitions_in)]
