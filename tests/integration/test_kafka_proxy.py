"""The proxy of the fault suite, between sockets and a broker of a few lines that answers every request."""

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

import pytest
from kafka_proxy import END_TXN, FETCH, PRODUCE, KafkaProxy, Rule

SECONDS = 60.0


class Answering(socketserver.BaseRequestHandler):
    """Answers each request with its correlation id and its payload."""

    def handle(self) -> None:
        while (payload := received(self.request)) is not None:
            with self.server.changed:
                self.server.requests.append(payload)
                self.server.changed.notify_all()
            send(self.request, payload[4:8] + payload)


class TinyBroker(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.requests: list[bytes] = []
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that is reset is the test's doing."""

    def waits_for(self, *bodies: bytes) -> bool:
        """Wait until these requests, and no others, have come."""
        with self.changed:
            return self.changed.wait_for(lambda: [request[14:] for request in self.requests] == [*bodies], SECONDS)


def send(to: socket.socket, payload: bytes) -> None:
    to.sendall(struct.pack(">i", len(payload)) + payload)


def received(source: socket.socket) -> bytes | None:
    """Return the next frame, None at the end of the connection."""
    parts, wanted = b"", 4
    try:
        while len(parts) < wanted:
            part = source.recv(wanted - len(parts))
            if not part:
                return None
            parts += part
            if len(parts) == 4:
                wanted += struct.unpack(">i", parts)[0]
    except ConnectionError:
        return None
    return parts[4:]


def request(api: int, correlation: int, body: bytes = b"") -> bytes:
    return struct.pack(">hhih", api, 3, correlation, 4) + b"test" + body


def answer(api: int, correlation: int, body: bytes = b"") -> bytes:
    return struct.pack(">i", correlation) + request(api, correlation, body)


@pytest.fixture
def broker() -> Iterator[TinyBroker]:
    with TinyBroker() as broker:
        yield broker
        broker.shutdown()


@pytest.fixture
def proxy(broker: TinyBroker) -> Iterator[KafkaProxy]:
    proxy = KafkaProxy(1)
    proxy.serve([f"127.0.0.1:{broker.server_address[1]}"])
    yield proxy
    proxy.close()


def connected(proxy: KafkaProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.ports[0]), SECONDS)


def refused(proxy: KafkaProxy) -> bool:
    """Return whether a new connection is reset; the reset may be there before the connection is."""
    try:
        with connected(proxy) as client:
            return received(client) is None
    except ConnectionResetError:
        return True


def silent(client: socket.socket) -> bool:
    """Return whether the connection is open, and nothing comes for a moment."""
    client.settimeout(0.05)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(SECONDS)
    return False


def test_requests_and_answers_pass_unchanged_and_are_counted(proxy: KafkaProxy) -> None:
    with connected(proxy) as client:
        for number in range(3):
            send(client, request(PRODUCE, number, b"x" * 100_000))
        assert [received(client) for _ in range(3)] == [answer(PRODUCE, number, b"x" * 100_000) for number in range(3)]
    assert proxy.seen == {(PRODUCE, 3): 3}
    assert proxy.journal == []


@pytest.mark.parametrize("then", ["reset", "silence"])
def test_a_dropped_answer_is_one_to_a_request_that_the_broker_has_had(
    proxy: KafkaProxy, broker: TinyBroker, then: str
) -> None:
    rule = proxy.add(Rule(fate="drop_reply", api=END_TXN, then=then))
    with connected(proxy) as client:
        send(client, request(END_TXN, 7, b"commit"))
        assert rule.landed.wait(SECONDS)
        assert broker.waits_for(b"commit")
        if then == "reset":
            assert received(client) is None
        else:
            send(client, request(FETCH, 8, b"more"))
            assert silent(client)
    assert [one.correlation for one in rule.harmed] == [7]
    assert len(proxy.journal) == 1


@pytest.mark.parametrize("then", ["reset", "silence"])
def test_a_dropped_request_never_reaches_the_broker(proxy: KafkaProxy, broker: TinyBroker, then: str) -> None:
    rule = proxy.add(Rule(fate="drop_request", api=END_TXN, then=then))
    with connected(proxy) as client, connected(proxy) as other:
        send(client, request(END_TXN, 1, b"lost"))
        assert rule.landed.wait(SECONDS)
        assert received(client) is None if then == "reset" else silent(client)
        send(other, request(END_TXN, 1, b"later"))
        assert received(other) == answer(END_TXN, 1, b"later")
    assert broker.waits_for(b"later")


def test_a_held_request_reaches_the_broker_when_released_though_its_client_has_gone(
    proxy: KafkaProxy, broker: TinyBroker
) -> None:
    rule = proxy.add(Rule(fate="hold", api=END_TXN))
    with connected(proxy) as client:
        send(client, request(END_TXN, 1, b"late"))
        assert rule.landed.wait(SECONDS)
    with connected(proxy) as client:
        send(client, request(END_TXN, 1, b"next"))
        assert received(client) == answer(END_TXN, 1, b"next")
    assert broker.waits_for(b"next")
    proxy.release(rule)
    assert rule.answered.wait(SECONDS)
    assert broker.waits_for(b"next", b"late")


def test_what_follows_a_held_request_waits_behind_it(proxy: KafkaProxy, broker: TinyBroker) -> None:
    rule = proxy.add(Rule(fate="hold", api=END_TXN))
    with connected(proxy) as client:
        send(client, request(END_TXN, 1, b"one"))
        send(client, request(FETCH, 2, b"two"))
        assert rule.landed.wait(SECONDS)
        assert silent(client)
        assert broker.waits_for()
        proxy.release(rule)
        assert received(client) == answer(END_TXN, 1, b"one")
        assert received(client) == answer(FETCH, 2, b"two")


def test_a_duplicate_reaches_the_broker_twice_and_is_answered_once(proxy: KafkaProxy, broker: TinyBroker) -> None:
    proxy.add(Rule(fate="duplicate", api=PRODUCE))
    with connected(proxy) as client:
        send(client, request(PRODUCE, 1, b"one"))
        send(client, request(PRODUCE, 2, b"two"))
        assert received(client) == answer(PRODUCE, 1, b"one")
        assert received(client) == answer(PRODUCE, 2, b"two")
    assert broker.waits_for(b"one", b"one", b"two")


def test_a_delayed_request_and_a_trickling_answer_arrive_whole(proxy: KafkaProxy) -> None:
    delay = proxy.add(Rule(fate="delay", api=PRODUCE, seconds=0.01))
    trickle = proxy.add(Rule(fate="trickle", api=FETCH, seconds=0.0))
    with connected(proxy) as client:
        for api in (PRODUCE, FETCH):
            send(client, request(api, 1, b"body"))
            assert received(client) == answer(api, 1, b"body")
    assert delay.landed.is_set()
    assert trickle.landed.is_set()


def test_a_rule_harms_the_requests_that_it_describes_and_no_others(proxy: KafkaProxy) -> None:
    rule = proxy.add(Rule(fate="delay", api=END_TXN, skip=1, count=2, containing=b"task-3", seconds=0.0))
    with connected(proxy) as client:
        for number, body in enumerate([b"task-3", b"task-4", b"task-3", b"task-3", b"task-3"]):
            send(client, request(END_TXN, number, body))
            assert received(client) == answer(END_TXN, number, body)
    assert [one.correlation for one in rule.harmed] == [2, 3]


def test_a_rule_can_spare_those_who_come_later(proxy: KafkaProxy, broker: TinyBroker) -> None:
    with connected(proxy) as client:
        send(client, request(FETCH, 1))
        assert received(client) == answer(FETCH, 1)
        proxy.add(Rule(fate="drop_request", api=FETCH, connections_up_to=proxy.connection_count, then="silence"))
        with connected(proxy) as later:
            send(later, request(FETCH, 1))
            assert received(later) == answer(FETCH, 1)
        send(client, request(FETCH, 2, b"lost"))
        assert silent(client)
    assert broker.waits_for(b"", b"")


def test_a_removed_rule_harms_nothing(proxy: KafkaProxy) -> None:
    rule = proxy.add(Rule(fate="drop_request", api=END_TXN, count=None))
    proxy.remove(rule)
    with connected(proxy) as client:
        send(client, request(END_TXN, 1))
        assert received(client) == answer(END_TXN, 1)


@pytest.mark.parametrize(("way", "reached"), [("requests", []), ("replies", [b"one"])])
def test_a_black_hole_swallows_one_direction_until_it_is_healed(
    proxy: KafkaProxy, broker: TinyBroker, way: str, reached: list[bytes]
) -> None:
    proxy.black_hole(0, [way])
    with connected(proxy) as client:
        send(client, request(FETCH, 1, b"one"))
        assert broker.waits_for(*reached)
        assert silent(client)
        assert broker.waits_for(*reached)
        proxy.heal()
        assert received(client) == answer(FETCH, 1, b"one")


def test_connections_are_reset_and_refused_until_it_is_healed(proxy: KafkaProxy) -> None:
    with connected(proxy) as client:
        send(client, request(FETCH, 1))
        assert received(client) is not None
        assert proxy.reset() == 1
        assert received(client) is None
    proxy.refuse(0)
    assert refused(proxy)
    proxy.heal()
    with connected(proxy) as client:
        send(client, request(FETCH, 1))
        assert received(client) == answer(FETCH, 1)


def test_a_broker_that_is_not_there_is_a_reset_connection(proxy: KafkaProxy, broker: TinyBroker) -> None:
    broker.shutdown()
    broker.server_close()
    assert refused(proxy)
