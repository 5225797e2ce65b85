"""The TLS of a Kafka connection, against servers that should not be trusted; both ends in memory."""

import ssl
import subprocess
import warnings
from pathlib import Path

import pytest
from certificates import PAST, Authority, Certificate

from streamkit.broker.kafka.authentication import client_arguments
from streamkit.broker.security import KafkaSecurity, Secret
from streamkit.errors import ConfigError

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def good(authority: Authority) -> Certificate:
    return authority.certify("DNS:localhost", "IP:127.0.0.1")


def server(certificate: Certificate, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if version is not None:
        # OpenSSL 3 speaks the old versions at its lowest level alone.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
    return context


def client(authority: Authority, **more: object) -> ssl.SSLContext:
    security = KafkaSecurity(security_protocol="SSL", ssl_ca_file=str(authority.file), **more)
    context = client_arguments(security)["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    return context


def shake_hands(client_context: ssl.SSLContext, server_context: ssl.SSLContext, host: str = "localhost") -> str | None:
    """Return the version that both agreed on."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_context.wrap_bio(to_client, to_server, server_hostname=host),
        server_context.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            return ends[0].version()
    raise AssertionError("the handshake did not end")


def test_a_trusted_server_is_spoken_to(authority: Authority, good: Certificate) -> None:
    for host in ("localhost", "127.0.0.1"):
        assert shake_hands(client(authority), server(good), host) == "TLSv1.3"
    assert shake_hands(client(authority), server(good, ssl.TLSVersion.TLSv1_2)) == "TLSv1.2"


def test_a_server_of_another_authority_is_refused(authority: Authority, good: Certificate, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        shake_hands(client(other), server(good))
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        shake_hands(client_arguments(KafkaSecurity(security_protocol="SSL"))["ssl_context"], server(good))


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(client(authority), server(authority.certify("DNS:localhost", valid=PAST)))


def test_a_certificate_for_another_host_is_refused(authority: Authority, good: Certificate) -> None:
    for host in ("kafka.example", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
            shake_hands(client(authority), server(good), host)


def test_tls_1_1_is_refused(authority: Authority, good: Certificate) -> None:
    """A client that allows it shows that this server does speak it."""
    old = server(good, ssl.TLSVersion.TLSv1_1)
    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        shake_hands(client(authority), old)
    careless = client(authority)
    careless.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        careless.minimum_version = ssl.TLSVersion.TLSv1_1
    assert shake_hands(careless, old) == "TLSv1.1"


def test_a_client_certificate_is_shown_to_a_server_that_asks(authority: Authority, good: Certificate) -> None:
    asking = server(good)
    asking.verify_mode = ssl.CERT_REQUIRED
    asking.load_verify_locations(authority.file)
    asking.maximum_version = ssl.TLSVersion.TLSv1_2  # a client of 1.3 is done before the server has looked
    mine = authority.certify("DNS:client")
    known = {"ssl_certificate_file": str(mine.certificate), "ssl_key_file": str(mine.key)}
    assert shake_hands(client(authority, **known), asking) == "TLSv1.2"
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        shake_hands(client(authority), asking)


def test_a_key_that_others_can_read_is_refused(authority: Authority) -> None:
    mine = authority.certify("DNS:client")
    mine.key.chmod(0o640)
    with pytest.raises(ConfigError, match="its mode is 0640"):
        client(authority, ssl_certificate_file=str(mine.certificate), ssl_key_file=str(mine.key))


def test_what_does_not_load_is_named(authority: Authority, good: Certificate) -> None:
    with pytest.raises(ConfigError, match="no such file does not load"):
        client_arguments(KafkaSecurity(security_protocol="SSL", ssl_ca_file="no such file"))
    other = authority.certify("DNS:client")
    with pytest.raises(ConfigError, match="does not load"):
        client(authority, ssl_certificate_file=str(good.certificate), ssl_key_file=str(other.key))


def test_an_encrypted_key_needs_its_password_and_asks_nobody(authority: Authority, tmp_path: Path) -> None:
    mine = authority.certify("DNS:client")
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-aes256", "-in", str(mine.key), "-passout", "pass:open sesame", "-out", str(locked)]
    subprocess.run(command, check=True)
    locked.chmod(0o600)
    known = {"ssl_certificate_file": str(mine.certificate), "ssl_key_file": str(locked)}
    assert client(authority, **known, ssl_key_password=Secret("open sesame"))
    for wrong in (None, Secret("wrong")):
        with pytest.raises(ConfigError, match="does not load") as caught:
            client(authority, **known, ssl_key_password=wrong)
        assert "wrong" not in str(caught.value)
