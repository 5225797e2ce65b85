"""A topology as a graph for Graphviz: topics, nodes, stores, and what runs in one task."""

from collections.abc import Iterator
from typing import Final

from streamkit.topology.description import Description, NodeDescription

__all__ = ["to_dot"]

_HEAD: Final = """\
  rankdir=LR;
  node [shape=box, style=rounded, fontname="sans-serif"];
  edge [fontname="sans-serif"];"""


def to_dot(described: Description) -> str:
    """Return the graph in the language of Graphviz: a cluster a sub-topology, topics outside, stores beside their node.

    An aggregation behind a shuffle stands where its store is; the edge to its repartition topic is labelled with what
    is combined before it. Names are quoted, so any may stand in them.
    """
    return "\n".join(_lines(described)) + "\n"


def _lines(described: Description) -> Iterator[str]:
    yield f"digraph {_quoted(described.job)} {{"
    yield _HEAD
    topics = {topic for sub in described.sub_topologies for topic in (*sub.source_topics, *sub.sink_topics)}
    topics |= {one.topic for one in described.repartitions}
    for topic in sorted(topics):
        yield f"  {_topic(topic)} [shape=cylinder, style=solid, label={_quoted(topic)}];"
    for sub in described.sub_topologies:
        yield f"  subgraph cluster_{sub.index} {{"
        yield f"    label={_quoted(f'sub-topology {sub.index}')};"
        for name in sub.nodes:
            yield f"    {_node(name)} [label={_quoted(_label(described.nodes[name]))}];"
        for store in sub.stores:
            yield f"    {_store(store.name)} [shape=folder, style=solid, label={_quoted(f'store {store.name}')}];"
            for name in sub.nodes:
                if name == store.name or store.name in described.nodes[name].details.get("stores", ()):
                    yield f"    {_node(name)} -> {_store(store.name)} [dir=both];"
        yield "  }"
    yield from _edges(described)
    yield "}"


def _edges(described: Description) -> Iterator[str]:
    shuffles = {name: one for one in described.repartitions if not one.whole for name in one.aggregations}
    whole = {one.name: one for one in described.repartitions if one.whole}
    for one in whole.values():
        yield f"  {_node(one.name)} -> {_topic(one.topic)} [label={_quoted(f'rows, {one.shards} shards')}];"
    for node in described.nodes.values():
        if node.kind == "source":
            yield f"  {_topic(node.details['topic'])} -> {_node(node.name)};"
        if node.kind == "sink":
            yield f"  {_node(node.name)} -> {_topic(node.details['topic'])};"
        for upstream in node.inputs:
            shuffle = shuffles.get(node.name)
            if upstream in whole:
                yield f"  {_topic(whole[upstream].topic)} -> {_node(node.name)};"
                continue
            if shuffle is None:
                yield f"  {_node(upstream)} -> {_node(node.name)};"
                continue
            combined = _quoted(f"combine {node.name}, {shuffle.shards} shards")
            yield f"  {_node(upstream)} -> {_topic(shuffle.topic)} [label={combined}];"
            yield f"  {_topic(shuffle.topic)} -> {_node(node.name)};"


def _label(node: NodeDescription) -> str:
    return "\n".join([f"{node.kind} {node.name}", *([node.spelling] if node.spelling else [])])


def _topic(name: str) -> str:
    return _quoted(f"topic {name}")


def _node(name: str) -> str:
    return _quoted(f"node {name}")


def _store(name: str) -> str:
    return _quoted(f"store {name}")


def _quoted(text: str) -> str:
    r"""Return a string of Graphviz: quotes and backslashes are escaped, a line break is `\n`."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
