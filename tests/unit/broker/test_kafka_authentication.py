"""What aiokafka's client is told; the contract tests fail when an aiokafka no longer uses what is relied on."""

import asyncio
import base64
import hashlib
import hmac
import ssl
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection

from streamkit.broker.kafka.authentication import ITERATION_COUNT_MIN, CheckedScram, client_arguments
from streamkit.broker.security import KafkaSecurity, Secret
from streamkit.errors import ConfigError

NAMED: dict[str, Any] = {"sasl_username": "alice", "sasl_password": Secret("pencil")}


def test_without_security_nothing_but_the_protocol_is_said() -> None:
    assert client_arguments(KafkaSecurity()) == {"security_protocol": "PLAINTEXT"}


def test_tls_is_1_2_or_later_and_checks_certificate_and_host_name() -> None:
    context = client_arguments(KafkaSecurity(security_protocol="SSL"))["ssl_context"]
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_user_and_password_are_handed_over(mechanism: str) -> None:
    arguments = client_arguments(KafkaSecurity(security_protocol="SASL_PLAINTEXT", sasl_mechanism=mechanism, **NAMED))
    assert arguments == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "alice",
        "sasl_plain_password": "pencil",
    }


def test_a_token_is_given_to_each_connection() -> None:
    security = KafkaSecurity(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_token=Secret("the token")
    )
    provider = client_arguments(security)["sasl_oauth_token_provider"]
    assert asyncio.run(provider.token()) == "the token"
    assert "the token" not in repr(vars(provider))


def scram(mechanism: str) -> Any:
    """Return the authenticator that a connection of aiokafka makes with our arguments."""
    arguments = client_arguments(KafkaSecurity(security_protocol="SASL_PLAINTEXT", sasl_mechanism=mechanism, **NAMED))

    async def connected() -> Any:
        return AIOKafkaConnection("localhost", 9092, **arguments).authenticator_scram()

    return asyncio.run(connected())


@pytest.mark.parametrize("count", [0, 1, ITERATION_COUNT_MIN - 1, 1_000_001, 2**63])
def test_contract_a_server_that_asks_for_few_or_countless_iterations_gets_no_proof(count: int) -> None:
    authenticator = scram("SCRAM-SHA-256")
    assert isinstance(authenticator, CheckedScram)
    nonce = authenticator.first_message().rpartition("r=")[2]
    with pytest.raises(ConfigError, match=f"asks for {count} SCRAM iterations"):
        authenticator.process_server_first_message(f"r={nonce}server,s=c2FsdA==,i={count}")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_contract_the_proof_is_that_of_rfc_5802_and_the_servers_is_checked(mechanism: str) -> None:
    name = mechanism.removeprefix("SCRAM-").replace("-", "").lower()
    authenticator = scram(mechanism)
    first = authenticator.first_message()
    nonce = first.rpartition("r=")[2] + "server"
    server_first = f"r={nonce},s=c2FsdA==,i={ITERATION_COUNT_MIN}"
    authenticator.process_server_first_message(server_first)

    salted = hashlib.pbkdf2_hmac(name, b"pencil", b"salt", ITERATION_COUNT_MIN)
    client_key = hmac.digest(salted, b"Client Key", name)
    said = f"{first.removeprefix('n,,')},{server_first},c=biws,r={nonce}".encode()
    signature = hmac.digest(hashlib.new(name, client_key).digest(), said, name)
    proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
    assert authenticator.final_message() == f"c=biws,r={nonce},p={base64.b64encode(proof).decode()}"

    server = hmac.digest(hmac.digest(salted, b"Server Key", name), said, name)
    authenticator.process_server_final_message(f"v={base64.b64encode(server).decode()}")
    with pytest.raises(ValueError, match="signature"):
        authenticator.process_server_final_message(f"v={base64.b64encode(server[:-1] + b'x').decode()}")


def test_contract_a_nonce_that_is_not_ours_is_refused() -> None:
    authenticator = scram("SCRAM-SHA-256")
    authenticator.first_message()
    with pytest.raises(ValueError, match="nonce"):
        authenticator.process_server_first_message(f"r=other,s=c2FsdA==,i={ITERATION_COUNT_MIN}")
