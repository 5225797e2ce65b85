"""A real Kafka takes the settings of `docker-compose.yml`, on three brokers; only where they listen differs."""

import re
import subprocess

import pytest
from docker_files import brokers, settings
from kafka_cluster import TEST_JVM, kafka_cluster
from kafka_tools import JARS

from streamkit.broker import open_broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.process]

OF_THE_PLACE = {
    "node.id",
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
    "inter.broker.listener.name",
    "controller.quorum.voters",
    "log.dirs",
}


def test_three_brokers_start_with_the_settings_and_kafka_knows_every_name() -> None:
    wanted = settings(brokers()["kafka-1"])
    with kafka_cluster(
        broker_count=3, settings={name: value for name, value in wanted.items() if name not in OF_THE_PLACE}
    ) as cluster:
        command = ["java", *TEST_JVM, "-cp", f"{JARS}/*", "kafka.admin.ConfigCommand"]
        asked = ["--bootstrap-server", cluster.bootstrap, "--entity-type", "brokers", "--entity-name", "1"]
        done = subprocess.run([*command, *asked, "--describe", "--all"], capture_output=True, text=True, check=True)
        taken = dict(re.findall(r"^  ([\w.]+)=(\S*)", done.stdout, re.MULTILINE))
        assert {name: taken.get(name) for name in wanted if name not in OF_THE_PLACE} == {
            name: value for name, value in wanted.items() if name not in OF_THE_PLACE
        }
        assert taken.keys() >= OF_THE_PLACE - {"node.id"}, "Kafka knows these names too"
        broker = open_broker(cluster.url)
        broker.admin.create_topic("lines", 8)
        broker.close()
