"""The Kafka broker: thin doors over one client of a cluster."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from streamkit.broker.coordinator import check_text
from streamkit.broker.kafka.admin import KafkaAdmin
from streamkit.broker.kafka.client_thread import ClientThread
from streamkit.broker.kafka.cluster import Cluster
from streamkit.broker.kafka.fetcher import KafkaFetcher
from streamkit.broker.kafka.groups import KafkaGroup
from streamkit.broker.kafka.membership import KafkaMembership
from streamkit.broker.kafka.producer import KafkaProducer
from streamkit.broker.kafka.record_fetcher import RecordFetcher
from streamkit.broker.kafka.settings import KafkaSettings
from streamkit.broker.kafka.shapes import unknown_shape
from streamkit.broker.protocols import (
    Admin,
    Assign,
    Fetcher,
    Group,
    Isolation,
    Member,
    Membership,
    Producer,
)
from streamkit.errors import StreamkitError

__all__ = ["KafkaBroker"]

_log = logging.getLogger(__name__)

_GIVE_UP_MS: Final = 2000
_CLOSE_MS: Final = 5000
_PRODUCER_CONNECTIONS: Final = 4
"""How many connections to a broker all producers share: as many as commits run at once."""


class KafkaBroker:
    """A Kafka cluster; see the `Broker` protocol.

    Where Kafka promises less than the embedded log: a commit and the offsets in it are seen a few ms after it
    returned; the transaction of a producer that was lost ends by its timeout; a fence is noticed when a broker
    answers, `commit` at the latest; what was sent may be seen before `flush`, being replicated by then.
    """

    def __init__(self, settings: KafkaSettings, *, by_record: bool | None = None) -> None:
        """Find the cluster.

        Args:
            settings: Where it is.
            by_record: Whether fetchers go the slow way, over aiokafka's public consumer; None if they must, because
                its inside is not the one that is known.

        Raises:
            BrokerUnavailableError: None of the addresses answers.
            BrokerError: TLS or the login failed.
        """
        unknown = unknown_shape() if by_record is None else None
        self._by_record, self._untold = by_record or unknown is not None, unknown
        self._thread = ClientThread()
        self._cluster = Cluster(settings)
        try:
            self._thread.run(self._cluster.open(), 2 * settings.request_timeout_ms)
        except BaseException:
            self._close_client()
            raise
        self._admin = KafkaAdmin(self._thread, self._cluster)
        self._connections = [self._cluster.new_connection() for _ in range(_PRODUCER_CONNECTIONS)]
        self._producers: list[KafkaProducer] = []
        self._fetchers: list[RecordFetcher] = []
        self._memberships: list[KafkaMembership] = []
        self._closed = False

    @property
    def admin(self) -> Admin:
        """Topics and their offsets."""
        return self._admin

    def fetcher(self, isolation: Isolation = "read_committed") -> Fetcher:
        """Return a new fetcher, with connections of its own; the first that must go the slow way is logged."""
        if self._untold is not None:
            untold, self._untold = self._untold, None
            _log.warning(
                "records are fetched from Kafka one by one, at a multiple of the cost: aiokafka %s is not as known"
                " inside, %s; install the aiokafka that this streamkit requires, or a newer streamkit",
                version("aiokafka"),
                untold,
            )
        if self._by_record:
            fetcher = RecordFetcher(self._thread, self._cluster, isolation)
            self._fetchers.append(fetcher)
            return fetcher
        return KafkaFetcher(self._thread, self._cluster, isolation)

    def producer(self, transactional_id: str | None = None) -> Producer:
        """Return a new producer; with an id, fence the predecessor and wait until its transaction has ended.

        Raises:
            BrokerUnavailableError: No coordinator answers within the deadline.
        """
        if transactional_id is not None:
            check_text("a transactional id", transactional_id)
        # Requests on one connection are answered one after the other.
        self._connections.append(self._connections.pop(0))
        producer = KafkaProducer(self._thread, self._cluster, transactional_id, self._connections[-1])
        self._producers = [other for other in self._producers if not other.closed]
        self._producers.append(producer)
        return producer

    def group(self, name: str) -> Group:
        """Return the consumer group of that name (it need not exist)."""
        check_text("a group's name", name)
        return KafkaGroup(self._thread, self._cluster, name)

    def join(self, group: str, topics: Sequence[str], member: Member, assign: Assign) -> Membership:
        """Become a member of a group; the first assignment comes when all its members have joined anew."""
        check_text("a group's name", group)
        membership = KafkaMembership(self._thread, self._cluster, group, topics, member, assign)
        self._memberships.append(membership)
        return membership

    def close(self) -> None:
        """Abort open transactions and close the connections; never hangs. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(StreamkitError):
            self._thread.run(self._give_up(), _GIVE_UP_MS)
        for producer in self._producers:
            producer.closed = True
        self._close_client()

    async def _give_up(self) -> None:
        ends = [producer.give_up() for producer in self._producers] + [fetcher.stop() for fetcher in self._fetchers]
        ends += [membership.stop() for membership in self._memberships]
        await asyncio.gather(*ends, return_exceptions=True)

    def _close_client(self) -> None:
        try:
            with contextlib.suppress(StreamkitError):
                self._thread.run(self._cluster.close(), _CLOSE_MS)
        finally:
            self._thread.close()
