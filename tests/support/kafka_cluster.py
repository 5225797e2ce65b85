"""A real Kafka on loopback: one broker or three, formatted and started here, without ZooKeeper or Docker.

`make kafka` runs this file: the brokers stay until Ctrl-C. Tests take the fixture `kafka`, or a `KafkaCluster` of their
own when they kill brokers.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kafka_tools import JARS, fetch_jars
from ports import free_ports

TEST_JVM: Final = ("-Xms128m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Starts in half the time, and leaves memory and cores to the tests."""

USER_JVM: Final = ("-Xmx1g",)

STARTED: Final = "Kafka Server started"
STOP_SECONDS: Final = 20

SETTINGS: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DIRECT:PLAINTEXT",
    "inter.broker.listener.name": "DIRECT",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "4194304",
    # Many tests' records bear timestamps of 1970, which are older than any other retention.
    "log.retention.ms": "-1",
}


@dataclass(slots=True)
class _Node:
    """One broker: its ports, its directory, its process while it runs.

    `advertised_port` is the one that clients are told; if it is another's, brokers talk to each other, and those who
    must not be harmed to them, by `direct_port`.
    """

    number: int
    port: int
    controller_port: int
    direct_port: int
    advertised_port: int
    directory: Path
    process: subprocess.Popen[str] | None = None
    reader: threading.Thread | None = None
    lines: list[str] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)


class KafkaCluster:
    """Brokers that are started, killed and started again.

    Args:
        directory: For their logs and configs; what an earlier cluster of the same size left there goes on.
        broker_count: 1 or 3; three replicate everything three times and need two to go on.
        first_port: The brokers' ports from here on; 0 for any that are free.
        advertised_ports: What clients are told instead of the brokers' ports: those of a proxy, one for each broker.
        settings: Broker settings over those above.
        jvm: Options of the Java machine.
    """

    def __init__(
        self,
        directory: Path,
        *,
        broker_count: int = 1,
        first_port: int = 0,
        advertised_ports: Sequence[int] = (),
        settings: Mapping[str, str] | None = None,
        jvm: Sequence[str] = TEST_JVM,
    ) -> None:
        """Fetch the jars if need be, format the directories, and start the brokers; return when all of them serve."""
        fetch_jars()
        self._settings, self._jvm = dict(settings or {}), tuple(jvm)
        if first_port:
            ports = [first_port + index for index in range(broker_count)]
            ports += [first_port + 10_000 + index for index in range(2 * broker_count)]
        else:
            ports = free_ports(3 * broker_count)
        own, controllers, directs = (ports[part * broker_count : (part + 1) * broker_count] for part in range(3))
        advertised = advertised_ports or own
        self._nodes = [
            _Node(
                index + 1,
                own[index],
                controllers[index],
                directs[index],
                advertised[index],
                directory / f"broker-{index + 1}",
            )
            for index in range(broker_count)
        ]
        cluster_id = _cluster_id(directory)
        for node in self._nodes:
            self._format(node, cluster_id)
        try:
            for node in self._nodes:
                self._launch(node)
            for node in self._nodes:
                self._await(node)
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        """The addresses of all brokers, as clients want them."""
        return ",".join(f"127.0.0.1:{node.advertised_port}" for node in self._nodes)

    @property
    def direct(self) -> str:
        """The addresses of all brokers past the proxy that they advertise."""
        return ",".join(f"127.0.0.1:{node.direct_port}" for node in self._nodes)

    @property
    def url(self) -> str:
        """The URL for `--broker`."""
        return f"kafka://{self.bootstrap}"

    def address(self, index: int) -> str:
        """Return the address of one broker, counted from 0."""
        return f"127.0.0.1:{self._nodes[index].port}"

    def node_id(self, index: int) -> int:
        """Return Kafka's id of one broker, counted from 0."""
        return self._nodes[index].number

    def kill(self, index: int) -> None:
        """SIGKILL one broker."""
        self._end(self._nodes[index], signal.SIGKILL)

    def said_count(self, text: str) -> int:
        """Return in how many lines the brokers have said something since the cluster was made."""
        logs = [node.directory / "output.log" for node in self._nodes]
        return sum(log.read_text(encoding="utf-8").count(text) for log in logs)

    def stop(self, index: int) -> None:
        """Stop one broker cleanly: it hands its leaderships over."""
        self._end(self._nodes[index], signal.SIGTERM)

    def pause(self, index: int) -> None:
        """SIGSTOP one broker: its connections stay, and nothing answers."""
        process = self._nodes[index].process
        assert process is not None, "the broker runs"
        process.send_signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """SIGCONT it."""
        process = self._nodes[index].process
        assert process is not None, "the broker runs"
        process.send_signal(signal.SIGCONT)

    def start(self, *indices: int) -> None:
        """Start brokers that were killed or stopped, in this order; return when they serve.

        One alone of three waits for a second: start those that are needed in one call.
        """
        for index in indices:
            self._launch(self._nodes[index])
        for index in indices:
            self._await(self._nodes[index])

    @property
    def down(self) -> list[int]:
        """The brokers that were killed or stopped, counted from 0."""
        return [index for index, node in enumerate(self._nodes) if node.process is None]

    def close(self) -> None:
        """Kill what runs; the directories stay."""
        for node in self._nodes:
            self._end(node, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the first broker to end by itself."""
        process = self._nodes[0].process
        assert process is not None, "the broker runs"
        process.wait()

    def _properties(self, node: _Node) -> dict[str, str]:
        replicas = "3" if len(self._nodes) >= 3 else "1"
        needed = "2" if len(self._nodes) >= 3 else "1"
        listeners = f"PLAINTEXT://127.0.0.1:{node.port},DIRECT://127.0.0.1:{node.direct_port}"
        advertised = f"PLAINTEXT://127.0.0.1:{node.advertised_port},DIRECT://127.0.0.1:{node.direct_port}"
        voters = ",".join(f"{one.number}@127.0.0.1:{one.controller_port}" for one in self._nodes)
        return {
            **SETTINGS,
            "node.id": str(node.number),
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{node.controller_port}",
            "advertised.listeners": advertised,
            "controller.quorum.voters": voters,
            "log.dirs": str(node.directory / "data"),
            "default.replication.factor": replicas,
            "min.insync.replicas": needed,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": needed,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": needed,
            **self._settings,
        }

    def _format(self, node: _Node, cluster_id: str) -> None:
        node.directory.mkdir(parents=True, exist_ok=True)
        lines = [f"{key}={value}" for key, value in self._properties(node).items()]
        (node.directory / "server.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = self._java("kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster_id)
        done = subprocess.run(
            [*command, "-c", str(node.directory / "server.properties")], capture_output=True, text=True
        )
        assert done.returncode == 0, f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}"

    def _launch(self, node: _Node) -> None:
        node.started.clear()
        node.lines.clear()
        command = self._java("kafka.Kafka", str(node.directory / "server.properties"))
        if shutil.which("setpriv"):
            # A test run that is killed leaves no broker behind.
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        node.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        node.reader = threading.Thread(target=self._read, args=(node, node.process), daemon=True)
        node.reader.start()

    def _read(self, node: _Node, process: subprocess.Popen[str]) -> None:
        """Keep what the broker says in its directory, and look for the line that says it serves."""
        assert process.stdout is not None, "it was asked for"
        with (node.directory / "output.log").open("a", buffering=1, encoding="utf-8") as output:
            for line in process.stdout:
                output.write(line)
                node.lines.append(line)
                if STARTED in line:
                    node.started.set()
        node.started.set()

    def _await(self, node: _Node) -> None:
        node.started.wait()
        assert any(STARTED in line for line in node.lines), (
            f"broker {node.number} did not start: {''.join(node.lines[-30:])}"
        )

    def _end(self, node: _Node, number: signal.Signals) -> None:
        process, node.process = node.process, None
        if process is None:
            return
        process.send_signal(number)
        if number != signal.SIGKILL:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
        process.wait()
        assert node.reader is not None, "every process has one"
        node.reader.join()
        assert process.stdout is not None, "it was asked for"
        process.stdout.close()

    def _java(self, main: str, *arguments: str) -> list[str]:
        return ["java", *self._jvm, "-cp", f"{JARS}/*", main, *arguments]


@contextlib.contextmanager
def kafka_cluster(
    *, broker_count: int = 1, advertised_ports: Sequence[int] = (), settings: Mapping[str, str] | None = None
) -> Iterator[KafkaCluster]:
    """A cluster in a directory that ends with it."""
    with tempfile.TemporaryDirectory(prefix="streamkit-kafka-") as directory:
        cluster = KafkaCluster(
            Path(directory), broker_count=broker_count, advertised_ports=advertised_ports, settings=settings
        )
        try:
            yield cluster
        finally:
            cluster.close()


def _cluster_id(directory: Path) -> str:
    """Return the id that an earlier cluster in the directory had, or a new one."""
    file = directory / "cluster_id"
    if not file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        # One that begins with a dash would be taken for an option of the storage tool.
        text = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        file.write_text(text.replace("-", "_"), encoding="utf-8")
    return file.read_text(encoding="utf-8")


def main() -> None:
    """Run brokers until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run a real Kafka on loopback until Ctrl-C.")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--port", type=int, default=9092, help="of the first broker")
    parser.add_argument("--directory", type=Path, default=JARS.parent / "kafka-data", help="where its data stays")
    asked = parser.parse_args()
    print("fetching and formatting Kafka ...", file=sys.stderr)
    directory = asked.directory / f"{asked.brokers}-from-{asked.port}"
    try:
        cluster = KafkaCluster(directory, broker_count=asked.brokers, first_port=asked.port, jvm=USER_JVM)
    except KeyboardInterrupt:
        return
    print(f"Kafka runs: streamkit ... --broker {cluster.url}", flush=True)
    print(f"its data: {os.path.relpath(directory)}; Ctrl-C stops it", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):
        cluster.wait()
    for index in range(asked.brokers):
        cluster.stop(index)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
