"""Waking those who wait for partitions to change."""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping

from streamkit.records import TopicPartition

__all__ = ["News"]


class News:
    """Who waits for which partitions. A waiter subscribes, looks, then waits, so that no change is missed."""

    def __init__(self) -> None:
        """Start with nobody waiting."""
        self._lock = threading.Lock()
        self._waiting: dict[threading.Event, Mapping[TopicPartition, object]] = {}

    @contextlib.contextmanager
    def about(self, partitions: Mapping[TopicPartition, object]) -> Iterator[threading.Event]:
        """Give an event that is set whenever one of the partitions changes; the waiter clears it."""
        event = threading.Event()
        with self._lock:
            self._waiting[event] = partitions
        try:
            yield event
        finally:
            with self._lock:
                del self._waiting[event]

    def announce(self, changed: Iterable[TopicPartition]) -> None:
        """Wake who waits for one of these partitions."""
        with self._lock:
            if not self._waiting:
                return
            names = list(changed)
            for event, partitions in self._waiting.items():
                if any(name in partitions for name in names):
                    event.set()
