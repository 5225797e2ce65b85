"""The numbers of a Kafka connection: where they come from, and which are refused."""

import dataclasses

import pytest

from streamkit.broker.connection import KafkaConnection, parse_connection
from streamkit.broker.kafka import KafkaSettings
from streamkit.broker.security import KafkaSecurity, Secret
from streamkit.errors import ConfigError


def parsed(table: dict[str, object] | None = None, **environment: str) -> KafkaConnection:
    variables = {f"STREAMKIT_KAFKA_{name.upper()}": text for name, text in environment.items()}
    return parse_connection(table or {}, variables, Secret)


def test_without_settings_replication_is_the_clusters() -> None:
    assert parsed() == KafkaConnection(security=KafkaSecurity())
    assert (parsed().replication_factor, parsed().min_insync_replicas) == (-1, None)
    assert parsed({"replication_factor": -1}) == parsed(replication_factor="-1") == parsed(replication_factor="")


def test_every_number_comes_from_the_table_or_the_environment_which_wins() -> None:
    numbers = {field.name: 2000 + index for index, field in enumerate(dataclasses.fields(KafkaConnection))}
    del numbers["security"], numbers["compression_type"]
    numbers |= {"replication_factor": 3, "min_insync_replicas": 2}
    texts = {name: str(number) for name, number in numbers.items()}
    by_table = parsed({**numbers, "security_protocol": "SSL"})
    assert {name: getattr(by_table, name) for name in numbers} == numbers
    assert by_table.security == KafkaSecurity(security_protocol="SSL")
    assert parsed({**dict.fromkeys(numbers, 1_000_000), "security_protocol": "SSL"}, **texts) == by_table


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replication_factor", 0),
        ("replication_factor", -2),
        ("replication_factor", 40_000),
        ("min_insync_replicas", 0),
        ("min_insync_replicas", -1),
        ("request_timeout_ms", 0),
        ("request_timeout_ms", 30),
        ("transaction_timeout_ms", 10),
        ("session_timeout_ms", 10),
        ("session_timeout_ms", "10 s"),
        ("session_timeout_ms", "1e4"),
        ("session_timeout_ms", "٣٠٠٠"),
        ("session_timeout_ms", "9" * 5000),
        ("request_timeout_ms", True),
        ("request_timeout_ms", 1000.0),
    ],
)
def test_a_number_out_of_its_range_is_named_with_the_range(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} takes a whole number from \d+ to \d+"):
        parsed({name: value})
    with pytest.raises(ConfigError, match=name):
        parsed(**{name: str(value)})


def test_compression_comes_from_the_table_or_the_environment_which_wins() -> None:
    assert parsed().compression_type == "none"
    assert parsed({"compression_type": "lz4"}).compression_type == "lz4"
    assert parsed({"compression_type": "lz4"}, compression_type="zstd").compression_type == "zstd"
    assert KafkaSettings.of("host:1", parsed({"compression_type": "gzip", "security_protocol": "SSL"})) == (
        KafkaSettings(bootstrap="host:1", compression_type="gzip", security=KafkaSecurity(security_protocol="SSL"))
    )


@pytest.mark.parametrize("codec", ["lzo", "LZ4", 1, True, ["lz4"]])
def test_a_codec_that_is_none_is_told_those_that_are(codec: object) -> None:
    with pytest.raises(ConfigError, match="compression_type cannot be") as caught:
        parsed({"compression_type": codec})
    assert caught.value.hint == "it takes none, gzip, snappy, lz4 or zstd"


def test_more_replicas_in_sync_than_replicas_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_insync_replicas is 3, more than the replication_factor of 2"):
        parsed(replication_factor="2", min_insync_replicas="3")
    assert parsed(min_insync_replicas="3").min_insync_replicas == 3
    assert parsed(replication_factor="3", min_insync_replicas="3").replication_factor == 3


def test_a_misspelt_number_is_told_the_name() -> None:
    with pytest.raises(ConfigError, match="'min_insync_replica' is not known") as caught:
        parsed(min_insync_replica="2")
    assert caught.value.hint == "did you mean min_insync_replicas?"


def test_a_client_has_everything_that_was_set() -> None:
    settings = KafkaSettings.of("127.0.0.1:1", parsed({"replication_factor": 3, "session_timeout_ms": 7000}))
    assert (settings.bootstrap, settings.replication_factor, settings.session_timeout_ms) == ("127.0.0.1:1", 3, 7000)
    with pytest.raises(ConfigError, match="request_timeout_ms"):
        KafkaSettings(bootstrap="127.0.0.1:1", request_timeout_ms=1)
