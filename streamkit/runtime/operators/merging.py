"""Streams out of other nodes: several merged into one, and the results of a table taken as facts."""

from dataclasses import replace

from streamkit.records import NEVER_MS, Batch
from streamkit.runtime.operators.base import Fan

__all__ = ["FactsOperator", "MergeOperator"]


class _Port:
    """One input of a merge."""

    __slots__ = ("_merge", "ended", "watermark_ms")

    def __init__(self, merge: "MergeOperator") -> None:
        self._merge, self.watermark_ms, self.ended = merge, NEVER_MS, False

    def receive(self, batch: Batch) -> None:
        self._merge.out.receive(batch)

    def advance(self, watermark_ms: int) -> None:
        self.watermark_ms = watermark_ms
        self._merge.advanced()

    def end(self) -> None:
        self.ended = True
        self._merge.advanced()


class MergeOperator:
    """Joins several inputs into one stream; an input that ended holds no watermark back."""

    def __init__(self) -> None:
        """Start without inputs."""
        self._ports: list[_Port] = []
        self.out = Fan()

    def port(self) -> _Port:
        """Return the receiver of one more input."""
        self._ports.append(_Port(self))
        return self._ports[-1]

    def advanced(self) -> None:
        """Hand on what the inputs agree on."""
        running = [port.watermark_ms for port in self._ports if not port.ended]
        if running:
            self.out.advance(min(running))
        else:
            self.out.advance(min(port.watermark_ms for port in self._ports))
            self.out.end()


class FactsOperator:
    """Takes a table's final results as facts: plain key, timestamp window end - 1, no window any more."""

    def __init__(self) -> None:
        """Start without receivers."""
        self.out = Fan()

    def receive(self, batch: Batch) -> None:
        """Forget the windows."""
        self.out.receive(Batch(replace(batch.origin, windows=None), batch.keys, batch.values, batch.rows))

    def advance(self, watermark_ms: int) -> None:
        """Pass the watermark on."""
        self.out.advance(watermark_ms)

    def end(self) -> None:
        """Pass the end on."""
        self.out.end()
