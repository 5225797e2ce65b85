"""Settings of a Kafka connection: what fits together, what is refused, and what nobody is shown."""

import copy
import dataclasses
import json
import pickle
from typing import Any

import orjson
import pytest

from streamkit.broker.kafka import KafkaSettings
from streamkit.broker.security import SECRETS, KafkaSecurity, Secret, parse_security
from streamkit.errors import ConfigError

PASSWORD = "correct horse"
SCRAM: dict[str, object] = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "alice",
    "sasl_password": PASSWORD,
}


def parsed(table: dict[str, object] | None = None, **environment: str) -> KafkaSecurity:
    variables = {f"STREAMKIT_KAFKA_{name.upper()}": text for name, text in environment.items()}
    return parse_security(table or {}, variables, lambda path: Secret(f"read from {path}"))


def test_without_settings_the_connection_is_plain() -> None:
    assert parsed() == KafkaSecurity()
    assert parse_security({}, {"PATH": "x", "STREAMKIT_BROKER": "y", "STREAMKIT_KAFKA_SASL_PASSWORD": ""}, Secret) == (
        KafkaSecurity()
    )


def test_a_secret_is_shown_by_nothing_but_reveal() -> None:
    secret = Secret(PASSWORD)
    settings = KafkaSettings(bootstrap="host:1", security=parsed(SCRAM))
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", repr([secret]), repr(settings)]
    shown += [str(dataclasses.replace(settings)), str(hash(secret) == hash(Secret("other")))]
    assert PASSWORD not in "".join(shown)
    assert "Secret(...)" in repr(settings)
    assert secret.reveal() == PASSWORD
    for show in (json.dumps, orjson.dumps, pickle.dumps, copy.deepcopy, vars):
        with pytest.raises(TypeError) as caught:
            show(secret)
        assert PASSWORD not in str(caught.value)
    assert secret == Secret(PASSWORD)
    assert secret != Secret("other")
    assert secret != PASSWORD


def test_the_environment_wins_over_the_file() -> None:
    assert parsed(SCRAM, sasl_username="bob").sasl_username == "bob"
    assert parsed({"allow_insecure_transport": True}, allow_insecure_transport="false") == KafkaSecurity()
    assert parsed({"allow_insecure_transport": False}, allow_insecure_transport="true").allow_insecure_transport


@pytest.mark.parametrize("form", ["sasl_password", "sasl_password_file"])
def test_a_secret_in_the_environment_replaces_either_form_of_it_in_the_file(form: str) -> None:
    table = (
        {**SCRAM, form: "of the file"}
        if form == "sasl_password"
        else {**{name: value for name, value in SCRAM.items() if name != "sasl_password"}, form: "of the file"}
    )
    assert parsed(table, sasl_password="new").sasl_password == Secret("new")
    assert parsed(table, sasl_password_file="/new").sasl_password == Secret("read from /new")


def test_a_token_file_is_kept_as_a_path_because_its_token_is_renewed() -> None:
    security = parsed(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", sasl_token_file="/run/token")
    assert (security.sasl_token_file, security.sasl_token) == ("/run/token", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"security_protocol": "TLS"}, "security_protocol cannot be 'TLS'"),
        ({"security_protocol": "sasl_ssl"}, "security_protocol cannot be"),
        ({"sasl_mechanism": "GSSAPI"}, "sasl_mechanism cannot be 'GSSAPI'"),
        ({"sasl_mechanism": None}, "sasl_mechanism is missing"),
        ({"sasl_username": None}, "sasl_username is missing for SASL_SSL with SCRAM-SHA-512"),
        ({"sasl_password": None}, "sasl_password is missing"),
        ({"sasl_password_file": "/x"}, "sasl_password and sasl_password_file are both set"),
        ({"sasl_password": ""}, "sasl_password takes a text that is not empty"),
        ({"sasl_password": 12345678}, "sasl_password takes a text"),
        ({"sasl_token": "t"}, "sasl_token has no effect with SASL_SSL with SCRAM-SHA-512"),
        ({"sasl_mechanism": "OAUTHBEARER"}, "has no effect with SASL_SSL with OAUTHBEARER"),
        ({"security_protocol": "SSL"}, "has no effect with SSL"),
        ({"security_protocol": "PLAINTEXT"}, "has no effect with PLAINTEXT"),
        ({"security_protocol": "SASL_PLAINTEXT", "ssl_ca_file": "/ca"}, "ssl_ca_file has no effect"),
        ({"ssl_certificate_file": "/c"}, "go together"),
        ({"ssl_key_file": "/k"}, "go together"),
        ({"allow_insecure_transport": "yes"}, "takes true or false"),
        ({"allow_insecure_transport": 1}, "takes true or false"),
        ({"sasl_passwort": "x"}, "'sasl_passwort' is not known"),
        ({"ssl_check_hostname": False}, "ssl_check_hostname is not known"),
        ({"ssl_endpoint_identification_algorithm": ""}, "is not known"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, object], message: str) -> None:
    table = {name: value for name, value in {**SCRAM, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=message) as caught:
        parsed(table)
    assert PASSWORD not in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_a_misspelt_variable_is_refused_with_the_nearest_known_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(SCRAM, sasl_usernam="bob")
    assert caught.value.hint == "did you mean sasl_username?"


def test_a_token_is_needed_once() -> None:
    oauth: dict[str, object] = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}
    with pytest.raises(ConfigError, match="needs a token"):
        parsed(oauth)
    with pytest.raises(ConfigError, match="both set"):
        parsed({**oauth, "sasl_token": "t", "sasl_token_file": "/t"})
    with pytest.raises(ConfigError, match="both set"):
        KafkaSecurity(**{**oauth, "sasl_token": Secret("t"), "sasl_token_file": "/t"})
    assert parsed({**oauth, "sasl_token_file": "/t"}, sasl_token="t").sasl_token == Secret("t")


LOOPBACK = ["localhost", "127.0.0.1", "127.8.9.1", "[::1]", "::1"]
ELSEWHERE = ["kafka.example", "10.0.0.1", "0.0.0.0", "[2001:db8::1]", "localhost.example", "127.0.0.1.example", ""]


def security(protocol: str, mechanism: str | None = None, *, allowed: bool = False) -> KafkaSecurity:
    named: dict[str, Any] = {} if mechanism is None else {"sasl_mechanism": mechanism}
    if mechanism == "OAUTHBEARER":
        named["sasl_token"] = Secret("t")
    elif mechanism is not None:
        named |= {"sasl_username": "u", "sasl_password": Secret("p")}
    return KafkaSecurity(security_protocol=protocol, allow_insecure_transport=allowed, **named)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("mechanism", ["PLAIN", "OAUTHBEARER"])
def test_what_would_send_a_secret_in_clear_is_refused_always(mechanism: str, allowed: bool) -> None:
    for host in ELSEWHERE:
        with pytest.raises(ConfigError, match=f"{mechanism} would send its secret in clear"):
            security("SASL_PLAINTEXT", mechanism, allowed=allowed).check_address(host)
        security("SASL_SSL", mechanism).check_address(host)
    for host in LOOPBACK:
        security("SASL_PLAINTEXT", mechanism).check_address(host)


@pytest.mark.parametrize(("protocol", "mechanism"), [("PLAINTEXT", None), ("SASL_PLAINTEXT", "SCRAM-SHA-256")])
def test_in_clear_to_another_machine_is_refused_unless_it_is_allowed(protocol: str, mechanism: str | None) -> None:
    for host in ELSEWHERE:
        with pytest.raises(ConfigError, match="would not be encrypted") as caught:
            security(protocol, mechanism).check_address(host)
        assert "allow_insecure_transport" in caught.value.hint
        security(protocol, mechanism, allowed=True).check_address(host)
    for host in LOOPBACK:
        security(protocol, mechanism).check_address(host)


@pytest.mark.parametrize(
    ("bootstrap", "refused"),
    [
        ("127.0.0.1:9092", False),
        ("localhost,[::1]:9092", False),
        ("localhost:9092,kafka.example:9092", True),
        ("kafka.example", True),
        ("[2001:db8::1]:9092", True),
    ],
)
def test_every_address_of_a_url_is_judged(bootstrap: str, refused: bool) -> None:
    assert KafkaSettings(bootstrap=bootstrap, security=security("SSL"))
    if refused:
        with pytest.raises(ConfigError, match="would not be encrypted"):
            KafkaSettings(bootstrap=bootstrap)
    else:
        assert KafkaSettings(bootstrap=bootstrap)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="takes no user") as caught:
        KafkaSettings(bootstrap=f"alice:{PASSWORD}@kafka.example:9092")
    assert PASSWORD not in str(caught.value)


def test_every_secret_is_a_setting_that_hides_itself() -> None:
    kinds = {field.name: str(field.type) for field in dataclasses.fields(KafkaSecurity)}
    assert {name for name, kind in kinds.items() if "Secret" in kind} == set(SECRETS)
