"""A worker's place in a Kafka group: aiokafka's consumer for joining and heartbeats, an assignor of our own for tasks.

The consumer subscribes to the job's sources and is assigned none of their partitions, so it fetches and commits
nothing; what it carries are tasks, in the user data that Kafka hands on unread. A rebalance therefore interrupts
nobody: it only leaves another assignment behind, for the worker to find. A member that was out of reach for longer than
the session is put out of the group, and joins again by itself.

Everything but `assignment` runs on the client's loop.

Source: reliability rules D10, D11; Kafka's consumer protocol, version 0.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError

from streamkit.broker.assignment import distinct_members
from streamkit.broker.kafka.client_thread import ClientThread
from streamkit.broker.kafka.cluster import Cluster, client_options
from streamkit.broker.kafka.errors import translated
from streamkit.broker.protocols import Assign, Assignment, Member
from streamkit.errors import BrokerUnavailableError, StreamkitError

__all__ = ["ASSIGNOR", "KafkaMembership", "member_of", "tasks_of"]

ASSIGNOR: Final = "streamkit"

_VERSION: Final = 0
_NEVER_MS: Final = 2**31 - 1
_LEAVE_MS: Final = 5000
_RETRY_SECONDS: Final = 1.0


def member_of(metadata: bytes) -> Member:
    """Return the member that a subscription describes, with what it had when it joined."""
    data = orjson.loads(ConsumerProtocolMemberMetadata.decode(metadata).user_data)
    return Member(id=data["id"], weight=data["weight"], tasks=tuple(data["tasks"]), generation=data["generation"])


def tasks_of(assignment: bytes) -> tuple[str, ...]:
    """Return the tasks that an assignment carries."""
    user_data = ConsumerProtocolMemberAssignment.decode(assignment).user_data if assignment else b""
    return tuple(orjson.loads(user_data)) if user_data else ()


class KafkaMembership:
    """One member of a group; see the `Membership` protocol."""

    def __init__(
        self,
        thread: ClientThread,
        cluster: Cluster,
        group: str,
        topics: Sequence[str],
        member: Member,
        assign: Assign,
    ) -> None:
        """Begin to join; the assignment comes later."""
        self._thread, self._cluster, self._group, self._topics = thread, cluster, group, topics
        self._assignor = _TaskAssignor(member, assign)
        self._consumer: Any = None
        self._joining: asyncio.Task[None] | None = None
        self._failure: StreamkitError | None = None
        self._left = False
        thread.run(self._begin(), cluster.settings.request_timeout_ms)

    def assignment(self) -> Assignment | None:
        """Return the newest assignment; None before the first. Never waits.

        Raises:
            BrokerError: The group refuses this member, for lack of rights, say.
        """
        if self._failure is not None:
            raise self._failure
        return self._assignor.assignment

    def leave(self) -> None:
        """Leave the group; without an answer, the session's timeout does it. Leaving twice does nothing."""
        if not self._left:
            self._left = True
            with contextlib.suppress(StreamkitError):
                self._thread.run(self.stop(), _LEAVE_MS)

    async def stop(self) -> None:
        """Leave, on the client's loop; for the broker that closes."""
        self._left = True
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.wait([self._joining])
        await self._stop_consumer()

    async def _begin(self) -> None:
        self._joining = asyncio.get_running_loop().create_task(self._join())

    async def _join(self) -> None:
        """Start the consumer, which ends with the first assignment; again, while no broker answers."""
        while True:
            try:
                await self._start()
            except (KafkaError, OSError) as error:
                await self._stop_consumer()
                failure = translated(error, f"the group {self._group} could not be joined")
                if not isinstance(failure, BrokerUnavailableError):
                    self._failure = failure
                    return
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _start(self) -> None:
        settings = self._cluster.settings
        self._consumer = AIOKafkaConsumer(
            *self._topics,
            **client_options(settings),
            group_id=self._group,
            partition_assignment_strategy=(self._assignor,),
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(1, settings.session_timeout_ms // 4),
            # Nobody polls it: the worker's own progress is watched elsewhere.
            max_poll_interval_ms=_NEVER_MS,
            rebalance_timeout_ms=settings.session_timeout_ms,
        )
        self._assignor.consumer = self._consumer
        await self._consumer.start()

    async def _stop_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(KafkaError, OSError):
                await consumer.stop()


class _TaskAssignor(AbstractPartitionAssignor):
    """Tells the group of this member, assigns where this one leads, and keeps what it was assigned."""

    name = ASSIGNOR

    def __init__(self, member: Member, assign: Assign) -> None:
        self._member, self._assign = member, assign
        self._lock = threading.Lock()
        self._assignment: Assignment | None = None
        self.consumer: Any = None

    @property
    def assignment(self) -> Assignment | None:
        """The newest one; looked at from any thread."""
        with self._lock:
            return self._assignment

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:  # type: ignore[override]  # theirs is a class method, for want of state
        """Describe this member."""
        known = self.assignment
        data = {
            "id": self._member.id,
            "weight": self._member.weight,
            "tasks": sorted(known.tasks) if known else [],
            "generation": known.generation if known else 0,
        }
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), orjson.dumps(data))

    def assign(  # type: ignore[override]  # theirs is a class method, for want of state
        self,
        cluster: Any,  # noqa: ARG002  # tasks are known without it
        members: Mapping[str, ConsumerProtocolMemberMetadata],
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Assign tasks, and no partition, so that nothing is fetched."""
        named = distinct_members({key: member_of(metadata.encode()) for key, metadata in members.items()})
        placed = self._assign(list(named.values()))
        return {
            key: ConsumerProtocolMemberAssignment(_VERSION, [], orjson.dumps(sorted(placed.get(member.id, ()))))
            for key, member in named.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:  # type: ignore[override]  # as above
        """Record it, and nothing else: no heartbeat is sent meanwhile."""
        tasks = frozenset(tasks_of(assignment.encode()))
        generation = self.consumer._coordinator.generation  # noqa: SLF001  # it is told nowhere else
        with self._lock:
            self._assignment = Assignment(generation=generation, tasks=tasks)
