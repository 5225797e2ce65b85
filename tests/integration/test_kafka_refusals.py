"""What is said when a broker cannot be reached, or should not be; a TLS server on loopback stands for one."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError
from certificates import Authority

from streamkit.broker.kafka import KafkaSettings
from streamkit.broker.kafka.cluster import Cluster
from streamkit.broker.security import KafkaSecurity
from streamkit.errors import BrokerError, BrokerUnavailableError

pytestmark = [pytest.mark.process, pytest.mark.slow]

SILENCE_MS = 1500


class Client:
    """Knows one broker, to which there is no connection."""

    def __init__(self, port: int) -> None:
        broker = SimpleNamespace(host="127.0.0.1", port=port)
        self.cluster = SimpleNamespace(broker_metadata=lambda node_id: broker)

    async def send(self, node_id: int, request: Any, *, group: int) -> Any:
        raise NodeNotReadyError(f"Attempt to send a request to node {node_id} which is not ready")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


def served(authority: Authority, do: Callable[[int], Awaitable[None]]) -> None:
    """Do something while a server with a certificate of that authority listens."""
    certificate = authority.certify("IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    async def serve() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context) as server:
            await do(server.sockets[0].getsockname()[1])

    asyncio.run(serve())


def cluster(authority: Authority, port: int, request_timeout_ms: int = 30_000) -> Cluster:
    security = KafkaSecurity(security_protocol="SSL", ssl_ca_file=str(authority.file))
    settings = KafkaSettings(bootstrap=f"127.0.0.1:{port}", security=security, request_timeout_ms=request_timeout_ms)
    return Cluster(settings)


def test_a_broker_with_a_certificate_of_another_authority_is_no_silent_one(
    authority: Authority, tmp_path: Path
) -> None:
    """At the address to begin with, and at one that was advertised."""
    other = Authority(tmp_path / "other")

    async def ask(port: int) -> None:
        asking = cluster(other, port)
        with pytest.raises(BrokerError, match=f"the certificate .* at 127.0.0.1:{port} is not accepted") as caught:
            await asking.open()
        assert not caught.value.retriable
        assert "issuer certificate" in caught.value.detail
        asking._client = Client(port)
        with pytest.raises(BrokerError, match="is not accepted"):
            await asking.send(1, object())

    served(authority, ask)


def test_a_broker_that_has_answered_before_is_asked_again(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")

    async def ask(port: int) -> None:
        asking = cluster(other, port, SILENCE_MS)
        asking._client = Client(port)
        asking._reached.add(1)
        with pytest.raises(BrokerUnavailableError, match="did not answer"):
            await asking.send(1, object())

    served(authority, ask)


def test_a_broker_that_hangs_up_after_tls_is_one_that_does_not_answer(authority: Authority) -> None:
    async def ask(port: int) -> None:
        asking = cluster(authority, port, SILENCE_MS)
        with pytest.raises(BrokerUnavailableError, match="no Kafka broker answers"):
            await asking.open()
        asking._client = Client(port)
        with pytest.raises(BrokerUnavailableError, match="did not answer"):
            await asking.send(1, object())

    served(authority, ask)
