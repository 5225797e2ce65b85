"""What there is to say about a topology, as a frozen value, as JSON and as a page of plain text.

Not here: finding it out (`describing`), colours (`cli`).
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from streamkit.topology.model import Repartition, Spelling, SubTopology

__all__ = ["Description", "NodeDescription", "duration_text"]

_WIDTH: Final = 100
_NAME_WIDTH_MAX: Final = 24
_JOINT: Final = "\N{NO-BREAK SPACE}"
_UNITS_MS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1))
_LEGEND: Final = """\
python: one call of a function a record; columns: expressions on whole batches, no object a record.
┌│└ are fused: a batch goes through all of them in one pass.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription:
    """One node. `doc` is the first line of its docstring; `spelling` is None where a node looks at no value.

    `details` are what its kind has to say, each a scalar or a list of them; the name of a duration ends in `_ms`.
    """

    name: str
    kind: str
    spelling: Spelling | None
    inputs: tuple[str, ...]
    doc: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """All nodes by name, in definition order, and where they run."""

    job: str
    nodes: Mapping[str, NodeDescription]
    sub_topologies: tuple[SubTopology, ...]
    repartitions: tuple[Repartition, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the same as dicts, lists and scalars; each sub-topology holds the nodes that run in it."""
        made: dict[str, Any] = _plain(
            {
                "job": self.job,
                "sub_topologies": [
                    asdict(sub) | {"nodes": [asdict(self.nodes[name]) for name in sub.nodes]}
                    for sub in self.sub_topologies
                ],
                "repartitions": [asdict(one) for one in self.repartitions],
            }
        )
        return made

    def to_text(self) -> str:
        """Return a page of 100 columns: a paragraph a sub-topology, a line a node, in the order the data flows."""
        return "\n".join(_Page(self).lines()) + "\n\n" + _LEGEND


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


class _Page:
    """Lays the nodes out in columns: fused, kind, name, spelling, what is to say."""

    def __init__(self, description: Description) -> None:
        self._described = description
        nodes = description.nodes.values()
        self._kind_width = max(len("combine"), *(len(node.kind) for node in nodes))
        self._name_width = min(_NAME_WIDTH_MAX, max(len(node.name) for node in nodes))
        self._indent = len(self._head(" ", "", "", ""))

    def lines(self) -> Iterator[str]:
        """Yield the lines without the legend."""
        described = self._described
        stores = sum(len(sub.stores) for sub in described.sub_topologies)
        counts = [_count(len(described.sub_topologies), "sub-topology", "sub-topologies")]
        counts += [_count(len(described.repartitions), "shuffle", "shuffles"), _count(stores, "store", "stores")]
        yield f"{described.job}: {', '.join(counts)}"
        for sub in described.sub_topologies:
            yield ""
            yield from _wrapped(self._heading(sub), _WIDTH, indent=4)
            yield from self._nodes(sub)
            for repartition in described.repartitions:
                if sub.index in repartition.upstream:
                    yield from self._shuffle(repartition)

    def _heading(self, sub: SubTopology) -> str:
        shuffles = [one for one in self._described.repartitions if one.downstream == sub.index]
        read = " and ".join([*sub.source_topics, *(one.topic for one in shuffles)])
        turns = ", rows in the order of the log" if sub.ordered else ""
        if sub.source_topics:
            return f"Sub-topology {sub.index}: one task a partition of {read}{turns}"
        tasks = _count(max(one.shards for one in shuffles), "task", "tasks")
        return f"Sub-topology {sub.index}: {tasks}, one a shard of {read}{turns}"

    def _nodes(self, sub: SubTopology) -> Iterator[str]:
        previous = ""
        for mark, name in _in_flow_order(sub):
            node = self._described.nodes[name]
            # What an aggregation behind a shuffle reads is in another sub-topology, and said in the heading.
            near = [one for one in node.inputs if one in sub.nodes]
            said = [] if near in ([], [previous]) else [f"from {' and '.join(near)}"]
            said += [node.doc, _items(node.details)]
            yield from self._row(mark, node.kind, name, node.spelling or "", said)
            previous = name

    def _shuffle(self, repartition: Repartition) -> Iterator[str]:
        for name in () if repartition.whole else repartition.aggregations:
            spelling = self._described.nodes[name].spelling or ""
            yield from self._row(" ", "combine", name, spelling, ["Partial results, folded before the shuffle."])
        beside = self._described.sub_topologies[repartition.downstream].source_topics
        count = f"as many shards as {beside[0]}" if beside else _count(repartition.shards, "shard", "shards")
        rows = ", every row" if repartition.whole else ""
        yield f"    ══▶ {repartition.topic}, {count}{rows} ══▶ sub-topology {repartition.downstream}"

    def _head(self, mark: str, kind: str, name: str, spelling: str) -> str:
        return f"  {mark} {kind:<{self._kind_width}}  {name:<{self._name_width}}  {spelling:<7}  "

    def _row(self, mark: str, kind: str, name: str, spelling: str, said: Sequence[str]) -> Iterator[str]:
        head, texts = self._head(mark, kind, name, spelling), [""] * (len(name) > self._name_width)
        for one in said:
            texts += [line.replace(_JOINT, " ") for line in _wrapped(one, _WIDTH - self._indent)]
        yield (head + "".join(texts[:1])).rstrip()
        continued = "  │" if mark in "┌│" else "   "
        for text in texts[1:]:
            yield continued + " " * (self._indent - len(continued)) + text


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """Cut a text at blanks; its lines after the first are indented."""
    after = " " * indent
    return textwrap.wrap(text, width, subsequent_indent=after, break_on_hyphens=False, break_long_words=False)


def _count(count: int, one: str, many: str) -> str:
    return f"{count or 'no'} {one if count == 1 else many}"


def _in_flow_order(sub: SubTopology) -> Iterator[tuple[str, str]]:
    """Yield the nodes, each chain in one piece, with the mark that shows what is fused."""
    chains = {name: chain for chain in sub.chains for name in chain}
    for name in sub.nodes:
        chain = chains.get(name, (name,))
        if name == chain[0]:
            marks = " " if len(chain) == 1 else "┌" + "│" * (len(chain) - 2) + "└"
            yield from zip(marks, chain, strict=True)


def _items(details: Mapping[str, Any]) -> str:
    """Return details as one text that is wrapped between items, not inside them."""
    return " · ".join(_said(key, value).replace(" ", _JOINT) for key, value in details.items())


def _said(key: str, value: Any) -> str:
    if key == "combined_in":
        return (
            f"combined in sub-topology {', '.join(map(str, value))}" if value else "no combiner, as there is no shuffle"
        )
    if key.endswith("_ms"):
        return f"{key.removesuffix('_ms').replace('_', ' ')} {duration_text(value)}"
    return f"{key.replace('_', ' ')} {', '.join(map(str, value)) if isinstance(value, list) else value}"


def duration_text(duration_ms: int) -> str:
    """Return a duration in the largest unit that divides it."""
    unit, size = next((unit, size) for unit, size in _UNITS_MS if duration_ms % size == 0)
    return f"{duration_ms // size} {unit}" if duration_ms else "0 s"
