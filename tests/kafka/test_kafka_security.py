"""A secured Kafka: whoever is right gets in, whoever is wrong is refused, and no secret is seen anywhere."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from secured_kafka import PASSWORD, USER, SecuredKafka, secured_kafka

pytestmark = [pytest.mark.kafka, pytest.mark.java, pytest.mark.process, pytest.mark.slow]

WRONG = "wrong-horse-battery"
SCRAM_512 = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "SCRAM-SHA-512", "SASL_USERNAME": USER}


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredKafka]:
    with secured_kafka() as started:
        yield started


class Streamkit:
    """The command, with settings in its environment and everything it says kept."""

    def __init__(self, secured: SecuredKafka, directory: Path) -> None:
        self._secured, self._directory = secured, directory

    def __call__(
        self, listener: str, settings: Mapping[str, str], *arguments: str, trusted: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        authority = self._secured.authority if trusted else self._secured.other_authority
        environment = {name: text for name, text in os.environ.items() if not name.startswith("STREAMKIT_")}
        environment |= {f"STREAMKIT_KAFKA_{name}": text for name, text in settings.items()}
        if settings.get("SECURITY_PROTOCOL", "").endswith("SSL"):
            environment["STREAMKIT_KAFKA_SSL_CA_FILE"] = str(authority.file)
        command = [sys.executable, "-m", "streamkit", *(arguments or ("topics", "list"))]
        ended = subprocess.run(
            [*command, "--broker", self._secured.url(listener)],
            cwd=self._directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            input=stdin,
        )
        shown = ended.stdout + ended.stderr
        assert PASSWORD not in shown
        assert WRONG not in shown
        return ended


@pytest.fixture
def streamkit(secured: SecuredKafka, tmp_path: Path) -> Streamkit:
    return Streamkit(secured, tmp_path)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("listener", ["LOGIN", "CLEARLOGIN"])
def test_the_right_password_gets_in(streamkit: Streamkit, listener: str, mechanism: str) -> None:
    protocol = "SASL_SSL" if listener == "LOGIN" else "SASL_PLAINTEXT"
    settings = {**SCRAM_512, "SECURITY_PROTOCOL": protocol, "SASL_MECHANISM": mechanism, "SASL_PASSWORD": PASSWORD}
    ended = streamkit(listener, settings)
    assert ended.returncode == 0, ended.stderr


def test_records_go_both_ways_through_tls_and_scram(streamkit: Streamkit, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n", encoding="utf-8")
    secret.chmod(0o600)
    settings = {**SCRAM_512, "SASL_PASSWORD_FILE": str(secret)}
    for arguments in (("topics", "create", "lines", "--config", "compression.type=zstd"), ("produce", "lines")):
        ended = streamkit("LOGIN", settings, *arguments, stdin="to be\nor not\n")
        assert ended.returncode == 0, ended.stderr
    ended = streamkit("LOGIN", settings, "consume", "lines", "--until-end")
    assert ended.returncode == 0, ended.stderr
    assert "to be" in ended.stdout
    assert "or not" in ended.stdout


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_wrong_password_is_refused(streamkit: Streamkit, mechanism: str) -> None:
    ended = streamkit("LOGIN", {**SCRAM_512, "SASL_MECHANISM": mechanism, "SASL_PASSWORD": WRONG})
    assert ended.returncode == 1
    assert "refused the login" in ended.stderr
    assert "Kafka answered [Error 58] SaslAuthenticationFailed: Authentication failed" in ended.stderr
    assert "hint: see sasl_mechanism, sasl_username and the password" in ended.stderr


@pytest.mark.parametrize(
    ("listener", "trusted", "reason"),
    [
        ("TLS", False, "unable to get local issuer certificate"),
        ("EXPIRED", True, "certificate has expired"),
        ("ELSEWHERE", True, "IP address mismatch"),
    ],
)
def test_a_broker_whose_certificate_is_not_right_is_refused(
    streamkit: Streamkit, listener: str, trusted: bool, reason: str
) -> None:
    assert streamkit("TLS", {"SECURITY_PROTOCOL": "SSL"}).returncode == 0
    ended = streamkit(listener, {"SECURITY_PROTOCOL": "SSL"}, trusted=trusted)
    assert ended.returncode == 1
    assert "is not accepted\n" in ended.stderr
    assert f"  {reason}" in ended.stderr
    assert "hint: see ssl_ca_file, and whether the certificate names this address" in ended.stderr


def test_a_client_certificate_gets_in_and_none_does_not(streamkit: Streamkit, secured: SecuredKafka) -> None:
    mine = secured.authority.certify("DNS:client")
    files = {"SSL_CERTIFICATE_FILE": str(mine.certificate), "SSL_KEY_FILE": str(mine.key)}
    assert streamkit("MUTUAL", {"SECURITY_PROTOCOL": "SSL", **files}).returncode == 0
    without = streamkit("MUTUAL", {"SECURITY_PROTOCOL": "SSL"})
    assert without.returncode == 1
    assert "the broker may want a client certificate: ssl_certificate_file" in without.stderr


def test_a_broker_that_says_it_is_elsewhere_is_refused_in_clear(streamkit: Streamkit) -> None:
    ended = streamkit("AWAY", {})
    assert ended.returncode == 2
    assert "the connection to kafka.example would not be encrypted" in ended.stderr


@pytest.mark.parametrize(("listener", "protocol"), [("LOGIN", "PLAINTEXT"), ("PLAINTEXT", "SSL")])
def test_the_wrong_protocol_does_not_fall_back_to_another(streamkit: Streamkit, listener: str, protocol: str) -> None:
    assert streamkit(listener, {"SECURITY_PROTOCOL": protocol}).returncode != 0
