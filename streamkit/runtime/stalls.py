"""Notices a fetcher that has gone silent: asked again and again, it gives nothing of what the log has.

A client's fetcher can stall without an error, after a broker's restart or a lost connection. Whether there is something
to give is asked of the log itself, for a silent fetcher's own idea of the end is as old as its last answer.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from streamkit.broker import LAST_STABLE, Admin, Fetched
from streamkit.errors import StreamkitError
from streamkit.records import TopicPartition
from streamkit.seams import Clock

__all__ = ["StallWatch"]

_SILENT_MS: Final = 30_000.0
_LOOK_MS: Final = 10_000.0


class StallWatch:
    """Looks at what one fetcher was asked and what it gave.

    Args:
        admin: Says where partitions end.
        clock: For the silence.
    """

    def __init__(self, admin: Admin, clock: Clock) -> None:
        """Begin with a fetcher that was not asked yet."""
        self._admin, self._clock = admin, clock
        self._silent_since_ms: dict[TopicPartition, float] = {}
        self._looked_ms = clock.monotonic_ms()

    def stalled(self, asked: Mapping[TopicPartition, int], fetched: Iterable[Fetched]) -> list[TopicPartition]:
        """Take note of one fetch; return the partitions that were silent for half a minute though the log has more.

        They count as new after that: give the next fetcher half a minute too. A partition that is not asked for at
        some fetch (its task computes, or it is paused) is not silent.

        Cost: nothing, but for a look at the ends of silent partitions every ten seconds.
        """
        now_ms = self._clock.monotonic_ms()
        given = {part.topic_partition for part in fetched}
        silent = {place: self._silent_since_ms.get(place, now_ms) for place in asked if place not in given}
        self._silent_since_ms = silent
        long = [place for place, since_ms in silent.items() if now_ms - since_ms >= _SILENT_MS]
        if not long or now_ms - self._looked_ms < _LOOK_MS:
            return []
        self._looked_ms = now_ms
        try:
            ends = self._admin.list_offsets(dict.fromkeys(long, LAST_STABLE))
        except StreamkitError:
            # Whoever cannot say where a partition ends cannot say that its fetcher stalled.
            return []
        stalled = [place for place in long if ends[place] > asked[place]]
        if stalled:
            self._silent_since_ms = {}
        return stalled
