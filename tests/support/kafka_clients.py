"""Kafka's own command line clients, in Java, against a real Kafka."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any, Final

from kafka_cluster import TEST_JVM
from kafka_tools import JARS, fetch_jars

QUIET_MS: Final = 15_000
"""A consumer that has met no record for so long, in which it has to join its group too, has read everything."""

TOOLS: Final = "org.apache.kafka.tools"


def console_producer(bootstrap: str, topic: str, lines: Sequence[str], *options: str) -> None:
    """Produce lines; the options say what in them is a key, or headers."""
    given = "".join(f"{line}\n" for line in lines).encode()
    _run(f"{TOOLS}.ConsoleProducer", "--bootstrap-server", bootstrap, "--topic", topic, *options, given=given)


def keyed_lines(bootstrap: str, topic: str, lines: Sequence[str], *options: str) -> None:
    """Produce lines of headers (`name:value,...`), a tab, a key, a bar, a value; `NULL` stands for none."""
    reader = ("parse.key=true", "key.separator=|", "parse.headers=true", "null.marker=NULL")
    given = [part for one in reader for part in ("--reader-property", one)]
    console_producer(bootstrap, topic, lines, *given, *options)


def console_consumer(bootstrap: str, topic: str, *options: str) -> list[str]:
    """Return what a console consumer with read_committed prints of a topic, from its beginning."""
    printed = _run(
        f"{TOOLS}.consumer.ConsoleConsumer",
        *("--bootstrap-server", bootstrap, "--topic", topic, "--from-beginning", "--timeout-ms", str(QUIET_MS)),
        *("--isolation-level", "read_committed", *options),
    )
    return printed.splitlines()


def verifiable_producer(bootstrap: str, topic: str, count: int) -> list[dict[str, Any]]:
    """Produce so many records; return what the producer says of each that was acknowledged."""
    printed = _run(
        f"{TOOLS}.VerifiableProducer",
        *("--bootstrap-server", bootstrap, "--topic", topic, "--max-messages", str(count), "--repeating-keys", "50"),
    )
    told = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return [one for one in told if one["name"] == "producer_send_success"]


def _run(main: str, *arguments: str, given: bytes = b"") -> str:
    fetch_jars()
    command = ["java", *TEST_JVM, "-cp", f"{JARS}/*", main, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()
