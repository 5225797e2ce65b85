"""The seam between operators: rows, watermarks and the end of input flow down a tree, in order."""

from typing import Protocol

from streamkit.records import NEVER_MS, Batch

__all__ = ["Fan", "Operator"]


class Operator(Protocol):
    """One step of a task. Calls come in the order of the log; a row is received before a watermark that covers it."""

    def receive(self, batch: Batch) -> None:
        """Take rows; an empty batch is never handed on."""
        ...

    def advance(self, watermark_ms: int) -> None:
        """Learn that no on-time row below `watermark_ms` is still to come. It never falls."""
        ...

    def end(self) -> None:
        """Learn that this run's input is over."""
        ...


class Fan:
    """Hands everything to several operators in their order, and knows the watermark that passed."""

    __slots__ = ("_children", "watermark_ms")

    def __init__(self) -> None:
        """Start without children, before all watermarks."""
        self._children: list[Operator] = []
        self.watermark_ms = NEVER_MS

    def add(self, child: Operator) -> None:
        """Add a receiver."""
        self._children.append(child)

    def receive(self, batch: Batch) -> None:
        """Hand on a batch that has rows."""
        if len(batch):
            for child in self._children:
                child.receive(batch)

    def advance(self, watermark_ms: int) -> None:
        """Hand on a watermark that moved."""
        if watermark_ms > self.watermark_ms:
            self.watermark_ms = watermark_ms
            for child in self._children:
                child.advance(watermark_ms)

    def end(self) -> None:
        """Hand on the end of input."""
        for child in self._children:
            child.end()
