"""A TCP proxy between Kafka's clients and brokers that knows where a request begins, and can harm one of its choice.

Brokers advertise its ports (`KafkaCluster(advertised_ports=...)`), so that every client stays behind it whatever
address it learns. A `Rule` says which requests meet which fate; what it did is kept, so that a test can prove that
the fault landed. Whole brokers can be cut off, in one direction or in both, and connections reset.

A broker answers the requests of one connection in order, and so does the proxy: while one request waits, those behind
it wait too. After a request or a reply was swallowed the connection is of no use to its client, which would take the
next reply for a wrong one: it is reset, or goes silent.

It runs on a thread of its own; its methods may be called from any other.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from kafka_cluster import KafkaCluster, kafka_cluster

PRODUCE: Final = 0
FETCH: Final = 1
METADATA: Final = 3
OFFSET_COMMIT: Final = 8
OFFSET_FETCH: Final = 9
FIND_COORDINATOR: Final = 10
JOIN_GROUP: Final = 11
HEARTBEAT: Final = 12
INIT_PRODUCER_ID: Final = 22
ADD_PARTITIONS: Final = 24
ADD_OFFSETS: Final = 25
END_TXN: Final = 26
TXN_OFFSET_COMMIT: Final = 28

Fate = Literal["drop_request", "drop_reply", "hold", "delay", "duplicate", "trickle"]
Direction = Literal["requests", "replies"]
BOTH: Final[tuple[Direction, ...]] = ("requests", "replies")

_FRAME_MAX: Final = 128 * 1024 * 1024
_HEADER: Final = struct.Struct(">hhi")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it came by."""

    api: int
    version: int
    correlation: int
    broker: int
    connection: int
    payload: bytes = field(repr=False)

    @classmethod
    def read(cls, payload: bytes, *, broker: int, connection: int) -> "Request":
        """Read the header that all requests begin with."""
        api, version, correlation = _HEADER.unpack_from(payload)
        return cls(
            api=api, version=version, correlation=correlation, broker=broker, connection=connection, payload=payload
        )


@dataclass(eq=False, slots=True, kw_only=True)
class Rule:
    """Which requests meet which fate.

    Args:
        fate: `drop_request` and `hold` keep the request from the broker, one for good, the other until `release`;
            `drop_reply` lets the broker do it and keeps the answer; `delay` waits before it is passed on; `duplicate`
            passes it on twice and the first answer back; `trickle` passes its answer on byte by byte.
        api: Kafka's number of the request.
        skip: How many that match go through first.
        count: How many that match after those are harmed; None for all, until `remove`.
        broker: Only those to this broker, counted from 0.
        connections_up_to: Only those of connections that are no newer than this one; see `connection_count`.
        containing: Only those with these bytes in them, such as a transactional id.
        then: What the connection does after a request or a reply was dropped: it is reset, or it goes silent.
        seconds: How long a delay is, and the time from byte to byte of a trickle.
    """

    fate: Fate
    api: int
    skip: int = 0
    count: int | None = 1
    broker: int | None = None
    connections_up_to: int | None = None
    containing: bytes = b""
    then: Literal["reset", "silence"] = "reset"
    seconds: float = 1.0
    harmed: list[Request] = field(default_factory=list)
    landed: threading.Event = field(default_factory=threading.Event)
    """Set when the fault has had its effect: for `drop_reply`, when the broker has done what was asked."""
    answered: threading.Event = field(default_factory=threading.Event)
    """Set when the broker has answered a request that was harmed, also if the client no longer hears it."""
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, request: Request) -> bool:
        """Return whether this request is one to harm, and count it."""
        if request.api != self.api or self.broker not in (None, request.broker):
            return False
        if self.connections_up_to is not None and request.connection > self.connections_up_to:
            return False
        if self.containing not in request.payload:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.count is not None:
            if not self.count:
                return False
            self.count -= 1
        self.harmed.append(request)
        return True


@dataclass(eq=False, slots=True)
class _Connection:
    """A client's connection and the one to the broker that belongs to it."""

    number: int
    broker: int
    client_in: asyncio.StreamReader
    client_out: asyncio.StreamWriter
    broker_in: asyncio.StreamReader
    broker_out: asyncio.StreamWriter
    waiting: dict[int, Rule | None] = field(default_factory=dict)
    """Rules of the requests that are not answered, by correlation id."""
    silent: bool = False
    ended: bool = False
    """Whether the client has gone. The broker is not told before it has answered: then it has done what was asked."""

    def reset(self) -> None:
        """End both sides without a goodbye."""
        for writer in (self.client_out, self.broker_out):
            _reset(writer)


class KafkaProxy:
    """Stands before one broker or more.

    Args:
        broker_count: How many.
    """

    def __init__(self, broker_count: int) -> None:
        """Take the ports; nobody is served before `serve`."""
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(broker_count)]
        self.ports: tuple[int, ...] = tuple(one.getsockname()[1] for one in self._sockets)
        self.seen: Counter[tuple[int, int]] = Counter()
        """How many requests came by, by API and version."""
        self.journal: list[str] = []
        """What was done to whom, in order."""
        self._upstreams: list[tuple[str, int]] = []
        self._rules: list[Rule] = []
        self._connections: dict[int, _Connection] = {}
        self.connection_count = 0
        """How many connections there were; each has the count as its number."""
        self._open = {(broker, way): asyncio.Event() for broker in range(broker_count) for way in BOTH}
        self._refused: set[int] = set()
        for gate in self._open.values():
            gate.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-proxy", daemon=True)
        self._thread.start()

    @property
    def bootstrap(self) -> str:
        """The addresses that clients are given."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def serve(self, addresses: Sequence[str]) -> None:
        """Pass on to these brokers from now on, one for each port."""
        places = [(host, int(port)) for host, _, port in (address.rpartition(":") for address in addresses)]
        self._call(self._serve(places))

    def add(self, rule: Rule) -> Rule:
        """Let a rule hold from now on; an earlier one goes first."""
        self._soon(lambda: self._rules.append(rule))
        return rule

    def remove(self, rule: Rule) -> None:
        """Let a rule go; what it holds stays held until `release`."""
        self._soon(lambda: self._rules.remove(rule))

    def release(self, rule: Rule) -> None:
        """Pass on what the rule holds, though its client may have gone."""
        self._soon(rule.released.set)

    def black_hole(self, broker: int, ways: Iterable[Direction] = BOTH) -> None:
        """Pass nothing on any more; connections stay, and new ones are taken, and nothing comes out of them."""
        chosen = tuple(ways)

        def close() -> None:
            for way in chosen:
                self._open[broker, way].clear()
            self._note(f"broker {broker}: black hole for {' and '.join(chosen)}")

        self._soon(close)

    def heal(self) -> None:
        """End all black holes and refusals: what waited is passed on."""

        def let_through() -> None:
            self._refused.clear()
            for gate in self._open.values():
                gate.set()
            self._note("healed")

        self._soon(let_through)

    def reset(self, broker: int | None = None) -> int:
        """Reset the connections to a broker, or all; return how many there were."""

        def cut() -> int:
            chosen = [one for one in self._connections.values() if broker in (None, one.broker)]
            for one in chosen:
                one.reset()
            self._note(f"reset {len(chosen)} connections")
            return len(chosen)

        return self._soon(cut)

    def refuse(self, broker: int) -> None:
        """Reset each new connection to a broker until `heal`."""
        self._soon(lambda: self._refused.add(broker))

    def close(self) -> None:
        """Close every connection and end the thread."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _soon(self, act: Callable[[], _T]) -> _T:
        """Do something on the proxy's thread, and wait for it."""

        async def acting() -> _T:
            return act()

        return asyncio.run_coroutine_threadsafe(acting(), self._loop).result()

    def _note(self, what: str) -> None:
        self.journal.append(f"{self._loop.time():.3f} {what}")

    async def _serve(self, upstreams: list[tuple[str, int]]) -> None:
        self._upstreams = upstreams
        for broker, taken in enumerate(self._sockets):

            def accept(client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter, broker: int = broker) -> None:
                task = self._loop.create_task(self._accept(broker, client_in, client_out))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            self._servers.append(await asyncio.start_server(accept, sock=taken))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for one in self._connections.values():
            one.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, broker: int, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        if broker in self._refused:
            _reset(client_out)
            return
        try:
            broker_in, broker_out = await asyncio.open_connection(*self._upstreams[broker])
        except OSError:
            _reset(client_out)
            return
        self.connection_count += 1
        connection = _Connection(self.connection_count, broker, client_in, client_out, broker_in, broker_out)
        self._connections[connection.number] = connection
        try:
            await asyncio.gather(_until_closed(self._requests(connection)), _until_closed(self._replies(connection)))
        finally:
            del self._connections[connection.number]
            connection.reset()

    async def _requests(self, connection: _Connection) -> None:
        """Pass requests on until the client ends."""
        try:
            while True:
                payload = await _frame(connection.client_in)
                await self._open[connection.broker, "requests"].wait()
                request = Request.read(payload, broker=connection.broker, connection=connection.number)
                self.seen[request.api, request.version] += 1
                if connection.silent:
                    continue
                await self._pass_on(connection, request)
        finally:
            connection.ended = True
            if not connection.waiting:
                connection.broker_out.close()

    async def _pass_on(self, connection: _Connection, request: Request) -> None:
        rule = next((one for one in self._rules if one.takes(request)), None)
        connection.waiting[request.correlation] = rule
        fate = rule.fate if rule is not None else None
        if rule is not None:
            self._note(f"{fate} api {request.api} of connection {request.connection} to broker {request.broker}")
        match fate:
            case "drop_request":
                self._end(connection, rule)
                return
            case "hold":
                rule.landed.set()
                # The client may go away meanwhile; the broker is to get it all the same.
                await rule.released.wait()
            case "delay":
                rule.landed.set()
                await asyncio.sleep(rule.seconds)
            case "duplicate":
                _write(connection.broker_out, request.payload)
                rule.landed.set()
        _write(connection.broker_out, request.payload)
        await connection.broker_out.drain()

    async def _replies(self, connection: _Connection) -> None:
        """Pass answers back until the broker ends; then the client is told the same."""
        try:
            while True:
                payload = await _frame(connection.broker_in)
                (correlation,) = struct.unpack_from(">i", payload)
                if correlation not in connection.waiting:
                    continue  # the second answer to a duplicate
                rule = connection.waiting.pop(correlation)
                await self._open[connection.broker, "replies"].wait()
                if rule is not None:
                    rule.answered.set()
                if connection.ended and not connection.waiting:
                    connection.broker_out.close()
                if connection.silent:
                    continue
                if rule is not None and rule.fate == "drop_reply":
                    self._end(connection, rule)
                elif rule is not None and rule.fate == "trickle":
                    rule.landed.set()
                    await _trickle(connection.client_out, payload, rule.seconds)
                else:
                    # A client that is gone does not keep the broker from finishing.
                    with contextlib.suppress(ConnectionError):
                        _write(connection.client_out, payload)
                        await connection.client_out.drain()
        finally:
            connection.client_out.close()

    def _end(self, connection: _Connection, rule: Rule) -> None:
        """Do to the connection what the rule says, now that something of it is lost."""
        if rule.then == "silence":
            connection.silent = True
        else:
            connection.reset()
        rule.landed.set()


@contextlib.contextmanager
def proxied_cluster(
    *, broker_count: int = 1, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[KafkaCluster, KafkaProxy]]:
    """A cluster all of whose clients are behind a proxy, but for those of `cluster.direct`."""
    proxy = KafkaProxy(broker_count)
    try:
        with kafka_cluster(broker_count=broker_count, settings=settings, advertised_ports=proxy.ports) as cluster:
            proxy.serve([cluster.address(index) for index in range(broker_count)])
            yield cluster, proxy
    finally:
        proxy.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    assert 0 <= length <= _FRAME_MAX, "this is no frame of Kafka's"
    return await reader.readexactly(length)


def _write(writer: asyncio.StreamWriter, payload: bytes) -> None:
    writer.write(struct.pack(">i", len(payload)) + payload)


async def _trickle(writer: asyncio.StreamWriter, payload: bytes, seconds: float) -> None:
    for byte in struct.pack(">i", len(payload)) + payload:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(seconds)


async def _until_closed(passing: Awaitable[None]) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await passing


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        # With this the system sends a reset, not an end.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
