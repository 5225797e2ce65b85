"""What streamkit relies on inside aiokafka, name by name, so that a new release of it fails here and says where."""

import inspect

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol import admin, commit, fetch, metadata, offset, produce, transaction
from aiokafka.protocol.api import Response

from streamkit.broker.kafka import shapes
from streamkit.broker.kafka.cluster import client_options
from streamkit.broker.kafka.settings import KafkaSettings
from streamkit.broker.security import KafkaSecurity, Secret

SECURED = KafkaSettings(
    bootstrap="host",
    security=KafkaSecurity(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="u", sasl_password=Secret("p")
    ),
)


def test_fetch_requests_and_their_answers_are_as_the_raw_fetcher_knows_them() -> None:
    assert shapes.unknown_shape() is None


NEWEST_FETCH = fetch.FetchRequest._CLASSES[-1]


def test_another_answer_to_a_fetch_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NEWEST_FETCH, "RESPONSE_TYPE", fetch.FetchResponse_v1)
    assert f"the answer to a {NEWEST_FETCH.__name__} has partition" in str(shapes.unknown_shape())


def test_a_fetch_request_of_another_shape_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NEWEST_FETCH, "SCHEMA", fetch.FetchRequest_v1.SCHEMA)
    assert "not made as before" in str(shapes.unknown_shape())


def test_fetch_requests_that_know_no_transactions_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.FetchRequest, "_CLASSES", (fetch.FetchRequest_v1,))
    assert "no fetch request that knows transactions" in str(shapes.unknown_shape())


def test_the_client_is_made_and_spoken_to_as_it_is_here() -> None:
    made_with = inspect.signature(AIOKafkaClient).parameters.keys()
    assert client_options(SECURED).keys() <= made_with
    assert list(inspect.signature(AIOKafkaClient.send).parameters) == ["self", "node_id", "request", "group"]
    assert list(inspect.signature(AIOKafkaClient.ready).parameters) == ["self", "node_id", "group"]
    assert list(inspect.signature(AIOKafkaClient.coordinator_lookup).parameters)[1:] == [
        "coordinator_type",
        "coordinator_key",
    ]
    for name in ("bootstrap", "get_random_node", "close"):
        assert callable(getattr(AIOKafkaClient, name))
    assert [kind.name for kind in CoordinationType] == ["GROUP", "TRANSACTION"]


def test_connections_are_kept_by_node_and_group() -> None:
    source = inspect.getsource(AIOKafkaClient._get_conn)
    assert "conn_id = (node_id, group)" in source
    assert "self._conns[conn_id]" in source
    assert "coordinator_metadata" not in source, "a group of connections is no more than a name"
    assert callable(AIOKafkaConnection.close)


def test_the_public_consumer_has_what_the_fetcher_by_record_uses() -> None:
    made_with = inspect.signature(AIOKafkaConsumer).parameters.keys()
    used = {"group_id", "enable_auto_commit", "auto_offset_reset", "isolation_level"}
    assert used | client_options(SECURED).keys() <= made_with
    for name in ("assign", "assignment", "seek", "getmany", "position", "highwater", "last_stable_offset"):
        assert callable(getattr(AIOKafkaConsumer, name))


@pytest.mark.parametrize(
    ("request_type", "arguments"),
    [
        (admin.CreateTopicsRequest, ["create_topic_requests", "timeout", "validate_only"]),
        (admin.DeleteTopicsRequest, ["topics", "timeout"]),
        (admin.DeleteRecordsRequest, ["topics", "timeout_ms", "tags"]),
        (admin.DescribeConfigsRequest, ["resources", "include_synonyms"]),
        (commit.OffsetCommitRequest, ["consumer_group", "consumer_group_generation_id", "consumer_id",
                                      "retention_time", "topics"]),
        (commit.OffsetFetchRequest, ["consumer_group", "partitions"]),
        (fetch.FetchRequest, ["max_wait_time", "min_bytes", "max_bytes", "isolation_level", "topics", "rack_id"]),
        (metadata.MetadataRequest, ["topics", "allow_auto_topic_creation"]),
        (offset.OffsetRequest, ["replica_id", "isolation_level", "topics"]),
        (produce.ProduceRequest, ["transactional_id", "required_acks", "timeout", "topics"]),
        (transaction.InitProducerIdRequest, ["transactional_id", "transaction_timeout_ms"]),
        (transaction.AddPartitionsToTxnRequest, ["transactional_id", "producer_id", "producer_epoch", "topics"]),
        (transaction.AddOffsetsToTxnRequest, ["transactional_id", "producer_id", "producer_epoch", "group_id"]),
        (transaction.TxnOffsetCommitRequest, ["transactional_id", "group_id", "producer_id", "producer_epoch",
                                              "topics"]),
        (transaction.EndTxnRequest, ["transactional_id", "producer_id", "producer_epoch", "transaction_result"]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)  # fmt: skip
def test_a_request_is_made_of_what_is_passed_here(request_type: type, arguments: list[str]) -> None:
    assert list(inspect.signature(request_type).parameters) == arguments


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (admin.CreateTopicsResponse_v3, ["topic_errors"]),
        (admin.DeleteTopicsResponse_v3, ["topic_error_codes"]),
        (admin.DeleteRecordsResponse_v2, ["topics"]),
        (admin.DescribeConfigsResponse_v2, ["resources"]),
        (commit.OffsetCommitResponse_v3, ["topics"]),
        (commit.OffsetFetchResponse_v3, ["topics", "error_code"]),
        (metadata.MetadataResponse_v5, ["cluster_id", "topics"]),
        (offset.OffsetResponse_v3, ["topics"]),
        (produce.ProduceResponse_v7, ["topics"]),
        (transaction.InitProducerIdResponse_v0, ["error_code", "producer_id", "producer_epoch"]),
        (transaction.AddPartitionsToTxnResponse_v0, ["errors"]),
        (transaction.AddOffsetsToTxnResponse_v0, ["error_code"]),
        (transaction.TxnOffsetCommitResponse_v0, ["errors"]),
        (transaction.EndTxnResponse_v0, ["error_code"]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_answer_says_what_is_read_here(answer: type[Response], names: list[str]) -> None:
    assert set(names) <= set(answer.SCHEMA.names)


def test_a_transaction_speaks_the_versions_whose_rules_are_kept_here() -> None:
    """Later versions change what a producer may do after an error, and how offsets join a transaction."""
    kinds = [transaction.InitProducerIdRequest, transaction.AddPartitionsToTxnRequest, transaction.EndTxnRequest]
    assert {kind.__name__: [struct.API_VERSION for struct in kind._CLASSES] for kind in kinds} == {
        "InitProducerIdRequest": [0],
        "AddPartitionsToTxnRequest": [0],
        "EndTxnRequest": [0],
    }
    assert [struct.API_VERSION for struct in produce.ProduceRequest._CLASSES][-1] == 7
