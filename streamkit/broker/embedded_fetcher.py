"""The embedded log's fetcher: reads what is there, or waits for news of it."""

from collections.abc import Mapping, Sequence
from typing import Final

from streamkit.broker.log_directory import LogDirectory
from streamkit.broker.protocols import Fetched, Isolation
from streamkit.errors import BrokerError
from streamkit.records import TopicPartition

__all__ = ["EmbeddedFetcher"]

ABANDONED_CHECK_MS: Final = 500.0


class EmbeddedFetcher:
    """Reads record batches by position; see the `Fetcher` protocol."""

    def __init__(self, directory: LogDirectory, isolation: Isolation) -> None:
        """Hold no position and no file."""
        self._directory, self._isolation = directory, isolation
        self._closed = False

    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        """Return what lies at the positions; wait up to `wait_ms` (by the broker's clock) if nothing does.

        A transaction that holds a read-committed reader back, and whose producer is gone, is ended on the way.

        Raises:
            OffsetOutOfRangeError: A position is before the log start or after the end.
            UnknownTopicError: A partition does not exist.
        """
        if self._closed:
            raise BrokerError("the fetcher is closed")
        clock = self._directory.clock
        deadline_ms = clock.monotonic_ms() + wait_ms
        with self._directory.news.about(positions) as news:
            while True:
                news.clear()
                found = self._read(positions, bytes_max)
                if not found and self._isolation == "read_committed" and self._directory.end_abandoned(positions):
                    continue
                remaining_ms = deadline_ms - clock.monotonic_ms()
                if found or remaining_ms <= 0:
                    return found
                clock.wait(news, min(remaining_ms, ABANDONED_CHECK_MS))

    def close(self) -> None:
        """Refuse further fetches; closing twice does nothing."""
        self._closed = True

    def _read(self, positions: Mapping[TopicPartition, int], bytes_max: int) -> list[Fetched]:
        fetched = [
            self._directory.partition(tp).fetch(offset, self._isolation, bytes_max) for tp, offset in positions.items()
        ]
        return [one for one in fetched if one.next_offset > positions[one.topic_partition]]
