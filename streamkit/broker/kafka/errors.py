"""Kafka's error codes and aiokafka's exceptions as errors of streamkit; nothing else of theirs passes this package."""

from typing import Final

from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    BrokerResponseError,
    KafkaError,
    for_code,
)

from streamkit.errors import (
    BrokerError,
    BrokerUnavailableError,
    CommitFailedError,
    ConfigError,
    ProducerFencedError,
    StreamkitError,
)

__all__ = [
    "AUTHENTICATION_REFUSED",
    "DUPLICATE_SEQUENCE",
    "NONE",
    "OFFSET_OUT_OF_RANGE",
    "UNKNOWN_TOPICS",
    "error_of",
    "translated",
]

NONE: Final = 0
OFFSET_OUT_OF_RANGE: Final = 1
DUPLICATE_SEQUENCE: Final = 46
UNKNOWN_TOPICS: Final = frozenset({3, 17, 100})
"""No such topic or partition, no such name, no such topic id."""
AUTHENTICATION_REFUSED: Final = frozenset({33, 34, 58})
"""No such SASL mechanism, not at this point, no such user or another password."""

_RETRIABLE: Final = frozenset(
    {3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 41, 51, 52, 56, 60, 72, 74, 75, 78, 88, 89, 100}
)
_FENCED: Final = frozenset({22, 47, 49, 82, 90})
_REFUSED: Final = frozenset({29, 30, 31, 33, 34, 53, 54, 58, 65})
_CONFIG: Final = frozenset({17, 36, 37, 38, 39, 40, 44, 50})
_THROW_AWAY: Final = frozenset({45, 48, 59, 120})
_NAMES: Final = {
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    78: "OFFSET_NOT_AVAILABLE",
    82: "FENCED_INSTANCE_ID",
    87: "INVALID_RECORD",
    88: "UNSTABLE_OFFSET_COMMIT",
    89: "THROTTLING_QUOTA_EXCEEDED",
    90: "PRODUCER_FENCED",
    100: "UNKNOWN_TOPIC_ID",
    120: "TRANSACTION_ABORTABLE",
}
"""Codes that aiokafka does not know."""


def error_of(code: int, what: str, said: str | None = None) -> StreamkitError:
    """Return the error for a code.

    Args:
        code: Kafka's, not 0.
        what: What was asked for, as the beginning of a sentence: "topic a could not be created".
        said: The broker's own words.
    """
    detail = f"Kafka answered {_NAMES.get(code) or for_code(code).message} ({code})" + (f": {said}" if said else "")
    if code in _RETRIABLE:
        return BrokerUnavailableError(what, detail=detail, hint="see whether Kafka's brokers are up")
    if code in _FENCED:
        return ProducerFencedError(
            what, detail=detail, hint="another producer has the transactional id, or the transaction took too long"
        )
    if code in _CONFIG:
        return ConfigError(what, detail=detail)
    if code in _REFUSED:
        return BrokerError(what, detail=detail, hint="see the user, the password and the ACLs of this client")
    if code in _THROW_AWAY:
        # A class of its own: whoever sent goes back to what is committed, and goes on with another producer.
        return CommitFailedError(what, detail=detail, hint="throw this producer away: records of it may be missing")
    return BrokerError(what, detail=detail)


def translated(error: BaseException, what: str) -> StreamkitError:
    """Return the error for an exception of aiokafka or of a connection."""
    if isinstance(error, StreamkitError):
        return error
    if isinstance(error, AuthenticationFailedError | AuthenticationMethodNotSupported):
        return BrokerError(what, detail=str(error), hint="see the user and the password of this client")
    if isinstance(error, BrokerResponseError):
        return error_of(error.errno, what)
    if isinstance(error, KafkaError) and not error.retriable:
        return BrokerError(what, detail=f"{type(error).__name__}: {error}")
    if isinstance(error, KafkaError | OSError | EOFError):
        detail = f"{type(error).__name__}: {error}".rstrip(": ")
        return BrokerUnavailableError(what, detail=detail, hint="see whether Kafka's brokers are up and reachable")
    # Such as a version of a request that no broker of this age speaks.
    return BrokerError(what, detail=f"{type(error).__name__}: {error}")
