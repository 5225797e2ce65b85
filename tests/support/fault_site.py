"""A cluster that can be harmed, with doors to it before and behind the proxy."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, CoordinationType
from kafka_cluster import KafkaCluster
from kafka_proxy import KafkaProxy, Rule
from torture import wait_until

from streamkit.broker import Broker
from streamkit.broker.kafka import KafkaBroker, KafkaSettings

REQUEST_TIMEOUT_MS: Final = 3000
"""Deadline of one call; an answer is waited for a third of it."""
PATIENT_MS: Final = 180_000
SESSION_TIMEOUT_MS: Final = 3000
TRANSACTION_TIMEOUT_MS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class FaultSite:
    """A cluster and the proxy before it."""

    cluster: KafkaCluster
    proxy: KafkaProxy
    rules: list[Rule] = field(default_factory=list)

    def broker(self, request_timeout_ms: int = REQUEST_TIMEOUT_MS) -> Broker:
        """Return a broker whose every request may be harmed."""
        return KafkaBroker(kafka_settings(self.proxy.bootstrap, request_timeout_ms))

    def patient(self) -> Broker:
        """Return one that waits for an answer longer than any test, as a process would that was stopped."""
        return self.broker(PATIENT_MS)

    @contextlib.contextmanager
    def direct(self) -> Iterator[Broker]:
        """A broker past the proxy, for those who feed and judge."""
        broker = KafkaBroker(kafka_settings(self.cluster.direct, REQUEST_TIMEOUT_MS))
        try:
            yield broker
        finally:
            broker.close()

    def harm(self, rule: Rule) -> Rule:
        """Let a rule hold until the test ends."""
        self.rules.append(rule)
        return self.proxy.add(rule)

    def spare(self, rule: Rule) -> None:
        """End a rule before the test does, and pass on what it holds."""
        self.rules.remove(rule)
        self.proxy.remove(rule)
        self.proxy.release(rule)

    @contextlib.contextmanager
    def healthy(self) -> Iterator[None]:
        """Take back every fault at the end."""
        try:
            yield
        finally:
            for rule in list(self.rules):
                self.spare(rule)
            self.proxy.heal()
            self.cluster.start(*self.cluster.down)

    def leader(self, topic: str, partition: int) -> int:
        """Return which broker leads a partition, counted from 0."""
        return self._index(self._topics()[topic][partition]["leader"])

    def coordinator(self, kind: CoordinationType, key: str) -> int:
        """Return which broker coordinates a group or a transactional id, counted from 0."""

        async def ask() -> int:
            client = AIOKafkaClient(bootstrap_servers=self.cluster.direct)
            try:
                await client.bootstrap()
                node_id: int = await client.coordinator_lookup(kind, key)
                return node_id
            finally:
                await client.close()

        return self._index(asyncio.run(ask()))

    def wait_for_replicas(self) -> None:
        """Wait until every replica of every partition is in sync, so that the next broker can be spared."""

        def in_sync() -> bool:
            parts = [part for topic in self._topics().values() for part in topic.values()]
            return all(len(part["isr"]) == len(part["replicas"]) for part in parts)

        wait_until(in_sync, "all replicas are in sync")

    def _index(self, node_id: int) -> int:
        return next(index for index in range(len(self.proxy.ports)) if self.cluster.node_id(index) == node_id)

    def _topics(self) -> dict[str, dict[int, dict[str, Any]]]:
        async def ask() -> list[dict[str, Any]]:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.direct)
            await admin.start()
            try:
                described: list[dict[str, Any]] = await admin.describe_topics()
                return described
            finally:
                await admin.close()

        return {
            topic["topic"]: {part["partition"]: part for part in topic["partitions"]} for topic in asyncio.run(ask())
        }


def kafka_settings(bootstrap: str, request_timeout_ms: int = REQUEST_TIMEOUT_MS) -> KafkaSettings:
    """Return settings with which a test need not wait long."""
    return KafkaSettings(
        bootstrap=bootstrap,
        request_timeout_ms=request_timeout_ms,
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        session_timeout_ms=SESSION_TIMEOUT_MS,
    )
