"""Certificates for tests, made by the `openssl` command."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

PAST = ("20200101000000Z", "20200201000000Z")
NOW = ("20200101000000Z", "20991231000000Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate with its key, in PEM files; `both` holds key and certificate, as Kafka wants them."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates for host names and addresses."""

    def __init__(self, directory: Path) -> None:
        """Make its key and its own certificate in a directory."""
        directory.mkdir()
        self._directory, self._count = directory, 0
        self.file = directory / "ca.pem"
        self._key = directory / "ca.key"
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=test authority"),
            *("-keyout", str(self._key), "-out", str(self.file)),
        )
        (directory / "index").touch()

    def certify(self, *names: str, valid: tuple[str, str] = NOW) -> Certificate:
        """Return a certificate for names such as `DNS:localhost` or `IP:127.0.0.1`."""
        self._count += 1
        stem = self._directory / f"{self._count}"
        key, request, certificate = (stem.with_suffix(suffix) for suffix in (".key", ".csr", ".pem"))
        config = stem.with_suffix(".cnf")
        config.write_text(
            f"[ca]\ndefault_ca = own\n[own]\ndatabase = {self._directory}/index\nnew_certs_dir = {self._directory}\n"
            "default_md = sha256\npolicy = any\nunique_subject = no\nrand_serial = yes\nx509_extensions = names\n"
            f"[any]\ncommonName = supplied\n[names]\nsubjectAltName = {','.join(names)}\n",
            encoding="utf-8",
        )
        _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(key))
        _openssl("req", "-new", "-key", str(key), "-subj", "/CN=test", "-out", str(request))
        _openssl(
            *("ca", "-batch", "-notext", "-config", str(config), "-startdate", valid[0], "-enddate", valid[1]),
            *("-cert", str(self.file), "-keyfile", str(self._key), "-in", str(request), "-out", str(certificate)),
        )
        key.chmod(0o600)
        both = stem.with_suffix(".both.pem")
        both.write_bytes(key.read_bytes() + certificate.read_bytes())
        return Certificate(certificate=certificate, key=key, both=both)


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
