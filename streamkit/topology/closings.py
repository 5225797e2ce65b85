"""When the watermark of a shuffle closes windows: what those behind it must be told, wherever commits fall."""

from collections.abc import Sequence
from dataclasses import dataclass

from streamkit.graph import Aggregation, LogicalGraph, Window

__all__ = ["Closings", "closings_behind"]


@dataclass(frozen=True, slots=True)
class Closings:
    """Some windows close when the watermark comes to `first_ms`, and at every `advance_ms` before it and after."""

    advance_ms: int
    first_ms: int

    def between(self, after_ms: int, until_ms: int) -> bool:
        """Return whether windows close while the watermark goes from one time, where it was, to another."""
        return (until_ms - self.first_ms) // self.advance_ms > (after_ms - self.first_ms) // self.advance_ms


def closings_behind(graph: LogicalGraph, aggregations: Sequence[str]) -> tuple[Closings, ...]:
    """Return when windows behind a shuffle close: those of its aggregations, and of all that their results come to.

    Each level of windows holds the watermark back by its grace.

    Args:
        graph: Of the job.
        aggregations: What reads the shuffle.
    """
    found: dict[Closings, None] = {}
    seen: set[tuple[str, int]] = set()
    ahead = [(name, 0) for name in aggregations]
    while ahead:
        name, held_ms = ahead.pop()
        if (name, held_ms) in seen:
            continue
        seen.add((name, held_ms))
        node = graph.node(name)
        upstream = graph.node(node.inputs[0]) if isinstance(node, Aggregation) else None
        if isinstance(upstream, Window):
            window = upstream.window
            held_ms += window.grace_ms
            advance_ms = window.advance_ms
            found.setdefault(Closings(advance_ms, (window.size_ms + held_ms) % advance_ms))
        ahead += [(child.name, held_ms) for child in graph.children(name)]
    return tuple(found)
