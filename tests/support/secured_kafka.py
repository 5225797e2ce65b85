"""A real Kafka with one listener for each way to be secured, right and wrong."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from certificates import PAST, Authority
from kafka_cluster import KafkaCluster
from kafka_tools import JARS
from ports import free_ports, is_free

USER, PASSWORD = "alice", "correct-horse-battery"
PLAIN_LOGIN = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'
)
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
MECHANISMS = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuredKafka:
    """Where its listeners are, and the authority that signed their certificates."""

    ports: dict[str, int]
    authority: Authority
    other_authority: Authority

    def url(self, listener: str) -> str:
        """Return the URL of a listener."""
        return f"kafka://127.0.0.1:{self.ports[listener]}"


PROTOCOLS = {
    "PLAINTEXT": "PLAINTEXT",
    "TLS": "SSL",
    "EXPIRED": "SSL",
    "ELSEWHERE": "SSL",
    "LOGIN": "SASL_SSL",
    "CLEARLOGIN": "SASL_PLAINTEXT",
    "MUTUAL": "SSL",
    "AWAY": "PLAINTEXT",
}
"""Listeners with their protocols. AWAY listens here and says that it is elsewhere."""


@contextlib.contextmanager
def secured_kafka() -> Iterator[SecuredKafka]:
    """One broker on loopback; the user exists for every mechanism."""
    with tempfile.TemporaryDirectory(prefix="streamkit-secured-") as name:
        directory = Path(name)
        authority, other = Authority(directory / "authority"), Authority(directory / "other")
        good = authority.certify("IP:127.0.0.1")
        stores = {
            "TLS": good,
            "LOGIN": good,
            "MUTUAL": good,
            "EXPIRED": authority.certify("IP:127.0.0.1", valid=PAST),
            "ELSEWHERE": authority.certify("DNS:kafka.example"),
        }
        ports = dict(zip(PROTOCOLS, _ports(len(PROTOCOLS)), strict=True))
        listeners = ",".join(f"{listener}://127.0.0.1:{port}" for listener, port in ports.items())
        settings = {
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{ports['PLAINTEXT'] + 10_000}",
            "advertised.listeners": listeners.replace("AWAY://127.0.0.1", "AWAY://kafka.example"),
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(
                f"{listener}:{protocol}" for listener, protocol in {"CONTROLLER": "PLAINTEXT", **PROTOCOLS}.items()
            ),
        }
        for listener, certificate in stores.items():
            store = f"listener.name.{listener.lower()}.ssl."
            settings |= {f"{store}keystore.type": "PEM", f"{store}keystore.location": str(certificate.both)}
        settings |= {
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.mutual.ssl.truststore.type": "PEM",
            "listener.name.mutual.ssl.truststore.location": str(authority.file),
            "sasl.enabled.mechanisms": MECHANISMS,
        }
        for listener in ("login", "clearlogin"):
            settings[f"listener.name.{listener}.plain.sasl.jaas.config"] = PLAIN_LOGIN
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                settings[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = SCRAM_LOGIN
        cluster = KafkaCluster(directory / "kafka", first_port=ports["PLAINTEXT"], settings=settings)
        try:
            _add_user(cluster.bootstrap)
            yield SecuredKafka(ports=ports, authority=authority, other_authority=other)
        finally:
            cluster.close()


def _add_user(bootstrap: str) -> None:
    command = ["java", "-cp", f"{JARS}/*", "kafka.admin.ConfigCommand", "--bootstrap-server", bootstrap, "--alter"]
    for bits in (256, 512):
        login = f"SCRAM-SHA-{bits}=[iterations=4096,password={PASSWORD}]"
        done = subprocess.run(
            [*command, "--add-config", login, "--entity-type", "users", "--entity-name", USER],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _ports(count: int) -> list[int]:
    """Return free ports; the first has a free one 10,000 above it, for the controller."""
    ports = free_ports(count)
    while not is_free(ports[0] + 10_000):
        ports = free_ports(count)
    return ports
