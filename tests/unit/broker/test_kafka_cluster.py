"""What a client makes of brokers that have heard of different things; aiokafka's client is played here."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from streamkit.broker.kafka import KafkaSettings
from streamkit.broker.kafka.cluster import Cluster
from streamkit.errors import UnknownTopicError
from streamkit.records import TopicPartition

UNKNOWN = 3
TP = TopicPartition("new", 0)


class Client:
    """Brokers that know of `new` or not, or are silent; whoever asks for any of them gets the first."""

    def __init__(self, knows: Mapping[int, bool | None]) -> None:
        self._knows = knows
        brokers = [SimpleNamespace(nodeId=node_id, host="127.0.0.1") for node_id in knows]
        self.cluster = SimpleNamespace(brokers=lambda: brokers, broker_metadata=lambda node_id: None)

    def get_random_node(self) -> int:
        return next(iter(self._knows))

    async def send(self, node_id: int, request: Any, *, group: int) -> Any:
        knows = self._knows[node_id]
        if knows is None:
            await asyncio.Event().wait()
        if type(request).__name__ == "MetadataRequest":
            found = (0, "new", False, [(0, 0, node_id)]) if knows else (UNKNOWN, "new", False, [])
            return SimpleNamespace(topics=[found])
        entries = [("max.message.bytes", "2000")]
        return SimpleNamespace(resources=[(0 if knows else UNKNOWN, "", 2, "new", entries)])


def cluster(knows: Mapping[int, bool | None]) -> Cluster:
    made = Cluster(KafkaSettings(bootstrap="127.0.0.1:1"))
    made._client = Client(knows)
    return made


@pytest.mark.slow
def test_a_topic_that_any_broker_knows_exists() -> None:
    """The one that is asked first may hear of it late, on a loaded machine much later."""
    asked = cluster({1: False, 2: None, 3: True})
    asyncio.run(asked.learn([TP]))
    known = asked.known(TP)
    assert known is not None
    assert (known.leaders, known.message_bytes_max) == ({0: 3}, 2000)


@pytest.mark.slow
def test_a_topic_that_no_broker_knows_does_not_exist() -> None:
    with pytest.raises(UnknownTopicError):
        asyncio.run(cluster({1: False, 2: False}).learn([TP]))


@pytest.mark.slow
def test_a_silent_broker_is_left_out_of_those_that_have_heard_of_a_topic() -> None:
    assert asyncio.run(cluster({1: True, 2: None, 3: False}).everywhere("new")) == {1: 1, 3: 0}
