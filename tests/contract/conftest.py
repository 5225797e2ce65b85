"""The brokers under contract: each test of them runs on every one."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_subject import SUBJECTS, Subject
from kafka_subject import Names

from streamkit.broker import Broker


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    if request.param.startswith("kafka"):
        url, names = f"kafka://{request.getfixturevalue('kafka')}", Names(uuid.uuid4().hex)
        made = Subject(url, names, by_record=request.param == "kafka by record")
    else:
        made = Subject(request.param.replace("DIR", f"{tmp_path}/log"))
    made.broker.admin.create_topic("a", 2)
    made.broker.admin.create_topic("b", 1)
    yield made
    made.broker.close()


@pytest.fixture
def broker(subject: Subject) -> Broker:
    return subject.broker
