"""Fetches record batches by position: one request to each leader, whole batches out of the raw bytes.

A request that finds nothing waits at the broker, and its connection with it, so a fetcher has connections of its own.
When one leader has answered, the requests that still wait at others are kept: the next call takes their answers if it
asks the same of them, and closes their connections if not.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka.protocol.fetch import FetchRequest

from streamkit.broker.kafka.client_thread import ClientThread, retried
from streamkit.broker.kafka.cluster import Cluster
from streamkit.broker.kafka.errors import NONE, OFFSET_OUT_OF_RANGE, error_of
from streamkit.broker.kafka.fetched import fetched_from
from streamkit.broker.kafka.offsets import out_of_range
from streamkit.broker.protocols import Fetched, Isolation
from streamkit.errors import BrokerError, BrokerUnavailableError
from streamkit.records import TopicPartition

__all__ = ["ISOLATION_LEVELS", "KafkaFetcher"]

ISOLATION_LEVELS: Final[Mapping[Isolation, int]] = {"read_uncommitted": 0, "read_committed": 1}
_WAIT_MS_MAX: Final = 500
"""How long a request waits at a broker at most: a new leader is noticed no later."""
_ANSWER_BYTES_MAX: Final = 50 * 2**20

_Positions = dict[TopicPartition, int]


class KafkaFetcher:
    """Reads record batches by position; see the `Fetcher` protocol."""

    def __init__(self, thread: ClientThread, cluster: Cluster, isolation: Isolation) -> None:
        """Connect when something is fetched."""
        self._thread, self._cluster, self._isolation = thread, cluster, isolation
        self._connection = cluster.new_connection()
        self._waiting: dict[int, tuple[_Positions, int, asyncio.Task[list[Fetched]]]] = {}
        self._turn = 0
        self._closed = False

    def fetch(self, positions: Mapping[TopicPartition, int], *, wait_ms: float, bytes_max: int) -> Sequence[Fetched]:
        """Return what lies at the positions; wait up to `wait_ms` if nothing does.

        Raises:
            OffsetOutOfRangeError: A position is before the log start or after the end.
            UnknownTopicError: A partition does not exist.
            BrokerUnavailableError: A leader does not answer within the deadline.
            CorruptBatchError: What a broker sent is damaged.
        """
        if self._closed:
            raise BrokerError("the fetcher is closed")
        if not positions:
            return []
        timeout_ms = self._cluster.settings.request_timeout_ms
        work = self._fetch(dict(positions), wait_ms, bytes_max)
        return self._thread.run(work, wait_ms + 2 * timeout_ms)

    def close(self) -> None:
        """Close the connections; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._thread.post(self._abandon)

    def _abandon(self) -> None:
        for _positions, _bytes_max, task in self._waiting.values():
            task.cancel()
        self._waiting.clear()
        self._cluster.drop_connection(self._connection)

    async def _fetch(self, positions: _Positions, wait_ms: float, bytes_max: int) -> list[Fetched]:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_ms / 1000

        async def attempt() -> list[Fetched]:
            remaining_ms = max(0.0, (end - loop.time()) * 1000)
            try:
                return await self._ask(positions, min(remaining_ms, _WAIT_MS_MAX), bytes_max)
            except BrokerUnavailableError:
                self._cluster.forget({tp.topic for tp in positions})
                raise

        while True:
            found = await retried(attempt, self._cluster.settings.request_timeout_ms)
            if found or loop.time() >= end:
                return found

    async def _ask(self, positions: _Positions, wait_ms: float, bytes_max: int) -> list[Fetched]:
        by_node = await self._cluster.leaders(self._rotated(positions))
        tasks = []
        for node_id, tps in by_node.items():
            tasks.append(self._task(node_id, {tp: positions[tp] for tp in tps}, wait_ms, bytes_max))
        for node_id in self._waiting.keys() - by_node.keys():
            self._drop(node_id)
        found: list[Fetched] = []
        pending = set(tasks)
        while pending and not found:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for node_id in [node_id for node_id, (_, _, task) in self._waiting.items() if task in done]:
                del self._waiting[node_id]
            for task in done:
                found += task.result()
        return found

    def _task(
        self, node_id: int, positions: _Positions, wait_ms: float, bytes_max: int
    ) -> "asyncio.Task[list[Fetched]]":
        """Return the request that waits at a node already, if it asks the same, or a new one."""
        if node_id in self._waiting:
            asked, asked_bytes, task = self._waiting[node_id]
            if asked == positions and asked_bytes == bytes_max and (wait_ms or task.done()):
                return task
            self._drop(node_id)
        task = asyncio.get_running_loop().create_task(self._request(node_id, positions, wait_ms, bytes_max))
        # One that nobody asks for again may fail: nobody is to hear of it.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._waiting[node_id] = positions, bytes_max, task
        return task

    def _drop(self, node_id: int) -> None:
        _positions, _bytes_max, task = self._waiting.pop(node_id)
        if not task.done():
            task.cancel()
            self._cluster.drop_connection(self._connection, node_id)

    def _rotated(self, positions: _Positions) -> list[TopicPartition]:
        """Return the partitions, another one first each time: a broker fills an answer in the order of the request."""
        tps = list(positions)
        self._turn = (self._turn + 1) % len(tps)
        return tps[self._turn :] + tps[: self._turn]

    async def _request(self, node_id: int, positions: _Positions, wait_ms: float, bytes_max: int) -> list[Fetched]:
        topics = defaultdict[str, list[tuple[int, int, int]]](list)
        for tp, offset in positions.items():
            topics[tp.topic].append((tp.partition, offset, bytes_max))
        request = FetchRequest(
            max_wait_time=int(wait_ms),
            min_bytes=1,
            max_bytes=min(bytes_max * len(positions), _ANSWER_BYTES_MAX),
            isolation_level=ISOLATION_LEVELS[self._isolation],
            topics=list(topics.items()),
        )
        response = await self._cluster.send(node_id, request, connection=self._connection)
        found = []
        for topic, partitions in response.topics:
            for partition in partitions:
                tp = TopicPartition(topic, partition[0])
                fetched = await self._fetched(tp, positions[tp], partition)
                if fetched.next_offset > positions[tp]:
                    found.append(fetched)
        return found

    async def _fetched(self, tp: TopicPartition, position: int, answer: tuple[Any, ...]) -> Fetched:
        _partition, code, end_offset, stable_offset, *_, data = answer
        if code == OFFSET_OUT_OF_RANGE:
            raise await out_of_range(self._cluster, tp, position)
        if code != NONE:
            raise error_of(code, f"{tp} could not be fetched")
        if self._isolation == "read_uncommitted":
            return fetched_from(tp, position, data or b"", None, end_offset)
        aborted = next((part for part in answer[4:-1] if isinstance(part, list)), None)
        return fetched_from(tp, position, data or b"", aborted, stable_offset)
