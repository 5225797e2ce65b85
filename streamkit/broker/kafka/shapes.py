"""Whether aiokafka's inside is as the raw fetcher knows it.

Not here: the rest of what is relied on, without which there is no client at all; a test names it.
"""

from typing import Any, Final

from aiokafka.protocol import fetch

__all__ = ["unknown_shape"]

_VERSION_MIN: Final = 4
"""The first with transactions, and the least that Kafka 4 speaks."""
_BEGINS: Final = ("partition", "error_code", "highwater_offset", "last_stable_offset")
_ENDS: Final = "message_set"


def unknown_shape() -> str | None:
    """Return what is not as known about fetch requests and their answers; None if all is."""
    request = fetch.FetchRequest(
        max_wait_time=1, min_bytes=1, max_bytes=1, isolation_level=1, topics=[("topic", [(0, 1, 2)])]
    )
    try:
        kinds: list[Any] = [kind for kind in fetch.FetchRequest._CLASSES if kind.API_VERSION >= _VERSION_MIN]  # noqa: SLF001  # what is negotiated from
        for kind in kinds:
            request.build(kind).encode()
            names = _partition_names(kind.RESPONSE_TYPE.SCHEMA)
            if names[:4] != _BEGINS or names[-1] != _ENDS or "aborted_transactions" not in names[4:-1]:
                return f"the answer to a {kind.__name__} has {', '.join(names)}"
    except Exception as error:  # noqa: BLE001  # whatever an unknown inside does when asked is an answer
        return f"fetch requests are not made as before: {error!r}"
    return None if kinds else "there is no fetch request that knows transactions"


def _partition_names(schema: Any) -> tuple[str, ...]:
    """Return the names of what an answer says of a partition."""
    topics = schema.fields[schema.names.index("topics")].array_of
    names: tuple[str, ...] = tuple(topics.fields[topics.names.index("partitions")].array_of.names)
    return names
