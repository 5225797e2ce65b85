"""Where state lies when nobody says."""

from types import SimpleNamespace
from typing import cast

import pytest

from streamkit.broker import Broker
from streamkit.broker.state_root import state_root
from streamkit.errors import ConfigError


def of(log_id: str) -> Broker:
    return cast(Broker, SimpleNamespace(admin=SimpleNamespace(log_id=lambda: log_id)))


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("log://here?durability=os", "here/state"),
        ("memory://", None),
        ("kafka://one:9092,two:9092", ".streamkit/kafka/MkU3OEVBNTcwNTJENDM2Qg"),
    ],
)
def test_state_lies_beside_its_log(url: str, root: str | None) -> None:
    assert state_root(url, of("MkU3OEVBNTcwNTJENDM2Qg")) == root


@pytest.mark.parametrize("log_id", ["", "..", "../elsewhere", "/etc", "a/b", "x\n"])
def test_the_id_of_a_cluster_does_not_lead_to_another_directory(log_id: str) -> None:
    with pytest.raises(ConfigError, match="no name for a directory"):
        state_root("kafka://one:9092", of(log_id))
