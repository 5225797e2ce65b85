"""`docker-compose.yml` holds together: brokers find each other, workers find them, the command line takes it all."""

import base64
import re

import click
from docker_files import brokers, clients, compose, listeners, settings, stages
from kafka_tools import POM
from source_files import ROOT

from streamkit.broker.kafka.settings import KafkaSettings
from streamkit.broker.security import Secret, parse_security
from streamkit.cli.load import load_job
from streamkit.cli.main import streamkit
from streamkit.graph import Source


def command_of(arguments: list[str]) -> click.Context:
    """Parse a command line as the CLI does, without running it."""
    context = click.Context(streamkit)
    name, command, rest = streamkit.resolve_command(context, list(arguments))
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context, info_name=name)
        name, command, rest = command.resolve_command(context, rest)
    assert command is not None
    return command.make_context(name, rest, parent=context)


def addresses() -> set[str]:
    """Return where clients inside of the network reach the brokers."""
    inside = [listeners(settings(one)["advertised.listeners"])["INSIDE"] for one in brokers().values()]
    return {f"{host}:{port}" for host, port in inside}


def test_three_brokers_run_the_kafka_that_the_tests_run() -> None:
    version = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([\d.]+)<", POM.read_text(encoding="utf-8"))
    assert version is not None
    assert {one["image"] for one in brokers().values()} == {f"apache/kafka:{version[1]}"}
    assert len(brokers()) == 3


def test_each_broker_has_its_own_id_and_volume_and_all_are_one_quorum() -> None:
    ids = {name: settings(one)["node.id"] for name, one in brokers().items()}
    assert len(set(ids.values())) == 3
    for one in brokers().values():
        controller = settings(one)["controller.listener.names"]
        voters = {
            f"{ids[name]}@{name}:{listeners(settings(other)['listeners'])[controller][1]}"
            for name, other in brokers().items()
        }
        assert set(settings(one)["controller.quorum.voters"].split(",")) == voters
        assert settings(one)["process.roles"] == "broker,controller"
    (cluster_id,) = {one["environment"]["CLUSTER_ID"] for one in brokers().values()}
    assert len(base64.urlsafe_b64decode(cluster_id + "==")) == 16, "Kafka's storage tool takes a UUID"
    for name, one in brokers().items():
        assert one["volumes"] == [f"{name}:{settings(one)['log.dirs']}"]


def test_listeners_fit_the_advertised_ones_and_the_published_ports() -> None:
    published: set[int] = set()
    for name, one in brokers().items():
        bound, advertised = (listeners(settings(one)[key]) for key in ("listeners", "advertised.listeners"))
        controller, between = (
            settings(one)[key] for key in ("controller.listener.names", "inter.broker.listener.name")
        )
        protocols = dict(pair.split(":") for pair in settings(one)["listener.security.protocol.map"].split(","))
        assert bound.keys() == protocols.keys() == advertised.keys() | {controller}
        assert controller not in advertised
        assert len({port for _, port in bound.values()}) == len(bound)
        assert {listener: port for listener, (_, port) in advertised.items()} == {
            listener: bound[listener][1] for listener in advertised
        }
        assert advertised[between] == (name, bound[between][1]), "other brokers know it by the service's name"
        assert advertised["OUTSIDE"][0] == "localhost"
        port = advertised["OUTSIDE"][1]
        assert one["ports"] == [f"127.0.0.1:{port}:{port}"], "clients are told the port that they reach"
        published.add(port)
        assert f"localhost:{bound[between][1]}" in one["healthcheck"]["test"]
    assert len(published) == 3


def test_one_broker_may_be_lost() -> None:
    for one in brokers().values():
        found = settings(one)
        for factor in (
            "default.replication.factor",
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "share.coordinator.state.topic.replication.factor",
        ):
            assert found[factor] == "3", factor
        for least in (
            "min.insync.replicas",
            "transaction.state.log.min.isr",
            "share.coordinator.state.topic.min.isr",
        ):
            assert found[least] == "2", least
        assert found["auto.create.topics.enable"] == "false", "a typing error must not become a topic"


def test_the_command_line_takes_each_command_and_each_variable() -> None:
    assert len(clients()) == 3
    for name, one in clients().items():
        context = command_of(one["command"])
        variables = {parameter.envvar for parameter in context.command.params if parameter.envvar}
        connection = {variable for variable in one["environment"] if variable.startswith("STREAMKIT_KAFKA_")}
        assert one["environment"].keys() <= variables | connection, name


def test_clients_are_given_the_addresses_that_brokers_advertise_inside() -> None:
    for one in clients().values():
        scheme, _, bootstrap = one["environment"]["STREAMKIT_BROKER"].partition("://")
        assert scheme == "kafka"
        security = parse_security({}, one["environment"], lambda name: Secret(name))
        assert set(KafkaSettings(bootstrap=bootstrap, security=security).bootstrap.split(",")) == addresses()


def test_the_workers_start_once_the_topic_that_their_job_reads_is_there() -> None:
    made = command_of(clients()["topics"]["command"])
    workers = {name: one for name, one in clients().items() if name != "topics"}
    assert len(workers) == 2
    for one in workers.values():
        run = command_of(one["command"])
        assert run.params["job"] == "jobs.word_count"
        assert "./jobs:/work/jobs:ro" in one["volumes"]
        job = load_job(str(ROOT / "jobs" / "word_count.py"))
        (source,) = (node.topic for node in job.build().nodes if isinstance(node, Source))
        assert made.params["topic"] == source
        assert one["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    waited = clients()["topics"]["depends_on"]
    assert waited == {name: {"condition": "service_healthy"} for name in brokers()}


def test_each_worker_has_a_volume_of_its_own_where_its_state_is() -> None:
    volumes = []
    for name, one in clients().items():
        if name != "topics":
            state_dir = command_of(one["command"]).params["state_dir"]
            (volume,) = (mount for mount in one["volumes"] if mount.endswith(f":{state_dir}"))
            volumes.append(volume.partition(":")[0])
            assert stages()[-1].all("VOLUME") == [state_dir], "the image makes it, owned by its user"
    assert len(set(volumes)) == 2
    named = {mount.partition(":")[0] for one in compose()["services"].values() for mount in one.get("volumes", [])}
    assert {name for name in named if not name.startswith(".")} == compose()["volumes"].keys()
