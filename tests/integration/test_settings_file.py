"""`streamkit.toml`: where it is looked for, whose secrets it may hold, and what of them an error shows."""

import subprocess
import sys
from pathlib import Path

import pytest

from streamkit.broker.security import KafkaSecurity, Secret
from streamkit.broker.settings_file import kafka_connection
from streamkit.errors import ConfigError

PASSWORD = "correct-horse"
LOGIN = """[kafka]
security_protocol = "SASL_SSL"
sasl_mechanism = "SCRAM-SHA-512"
sasl_username = "alice"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_without_a_file_the_environment_says_all(here: Path) -> None:
    assert kafka_connection({}).security == KafkaSecurity()
    assert kafka_connection({"STREAMKIT_KAFKA_SECURITY_PROTOCOL": "SSL"}).security.encrypted


def test_the_file_of_this_directory_is_read_unless_another_is_named(here: Path) -> None:
    written(here / "streamkit.toml", '[kafka]\nsecurity_protocol = "SSL"\n', 0o644)
    other = written(here / "other.toml", "[kafka]\nallow_insecure_transport = true\n", 0o644)
    assert kafka_connection({}).security == KafkaSecurity(security_protocol="SSL")
    assert kafka_connection({"STREAMKIT_CONFIG": str(other)}).security == KafkaSecurity(allow_insecure_transport=True)
    with pytest.raises(ConfigError, match=r"missing\.toml cannot be read"):
        kafka_connection({"STREAMKIT_CONFIG": "missing.toml"})


def test_files_are_named_as_seen_from_the_file_that_names_them(here: Path) -> None:
    written(here / "etc" / "streamkit.toml", LOGIN + 'sasl_password_file = "password"\nssl_ca_file = "ca.pem"\n', 0o644)
    written(here / "etc" / "password", PASSWORD + "\n")
    security = kafka_connection({"STREAMKIT_CONFIG": "etc/streamkit.toml"}).security
    assert (security.sasl_password, security.ssl_ca_file) == (Secret(PASSWORD), "etc/ca.pem")
    written(here / "here", "other\r\n", 0o400)
    again = kafka_connection(
        {"STREAMKIT_CONFIG": "etc/streamkit.toml", "STREAMKIT_KAFKA_SASL_PASSWORD_FILE": "here"}
    ).security
    assert again.sasl_password == Secret("other")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610])
@pytest.mark.parametrize("inside", [True, False])
def test_a_secret_that_others_can_read_or_write_is_refused_with_the_fix(here: Path, mode: int, inside: bool) -> None:
    if inside:
        file = written(here / "streamkit.toml", LOGIN + f'sasl_password = "{PASSWORD}"\n', mode)
    else:
        file = written(here / "password", PASSWORD, mode)
        written(here / "streamkit.toml", LOGIN + 'sasl_password_file = "password"\n', 0o644)
    with pytest.raises(ConfigError, match=f"its mode is {mode:04o}") as caught:
        kafka_connection({})
    assert caught.value.hint == f"chmod 600 {file.name}"
    assert PASSWORD not in str(caught.value)
    file.chmod(0o600)
    assert kafka_connection({}).security.sasl_password == Secret(PASSWORD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'[kafka]\nsasl_password = "{PASSWORD}', "is no TOML"),
        (f"[kafka]\nsasl_password = {PASSWORD}\n", "is no TOML, see line 2"),
        (f'[kafka]\nsasl_password = "{PASSWORD}"\nsasl_password = "{PASSWORD}"\n', "is no TOML, see line 3"),
        (f'sasl_password = "{PASSWORD}"\n', "'sasl_password', which is not known"),
        (f'[kafak]\nsasl_password = "{PASSWORD}"\n', "'kafak', which is not known"),
        (f'kafka = "{PASSWORD}"\n', "is no table"),
        (f'[kafka]\nsasl_password = ["{PASSWORD}"]\n', "takes a text"),
        (f'[kafka]\nsasl_pasword = "{PASSWORD}"\n', "'sasl_pasword' is not known"),
        (f'[kafka]\nsasl_password = "{PASSWORD}'.encode() + b'\xff"\n', "is no UTF-8"),
        (f'[kafka]\nx = "{PASSWORD}"\n' + "#" * (1 << 20), "is larger than"),
    ],
)
def test_a_file_that_does_not_read_is_refused_without_showing_what_it_holds(
    here: Path, text: str | bytes, message: str
) -> None:
    written(here / "streamkit.toml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        kafka_connection({})
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in str(error)
        error = error.__cause__


def test_an_empty_secret_is_refused(here: Path) -> None:
    written(here / "password", "\n")
    with pytest.raises(ConfigError, match="password is empty"):
        kafka_connection({"STREAMKIT_KAFKA_SASL_PASSWORD_FILE": "password"})


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "url", "message"),
    [
        (LOGIN + f'sasl_password = "{PASSWORD}"\n', "kafka://127.0.0.1:1", "no Kafka broker answers"),
        (
            LOGIN.replace("SASL_SSL", "SASL_PLAINTEXT") + f'sasl_password = "{PASSWORD}"\n',
            "kafka://10.0.0.1",
            "encrypted",
        ),
        (LOGIN + f'sasl_pasword = "{PASSWORD}"\n', "kafka://127.0.0.1:1", "did you mean sasl_password?"),
        (
            LOGIN + 'sasl_password = "other"\n',
            f"kafka://alice:{PASSWORD}@kafka.example",
            "takes no user and no password",
        ),
    ],
)
def test_the_command_line_refuses_and_shows_no_secret(here: Path, settings: str, url: str, message: str) -> None:
    written(here / "streamkit.toml", settings)
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-m", "streamkit", "topics", "list", "--broker", url],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode in {1, 2}
    assert message in ended.stderr
    assert PASSWORD not in ended.stdout + ended.stderr
