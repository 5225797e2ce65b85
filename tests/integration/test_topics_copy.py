"""`streamkit topics copy` as a user types it, and killed."""

import os
import random
import select
import signal
import subprocess
from pathlib import Path

import orjson
import pytest
from command_line import COMMAND, consumed, done, environment, produce, streamkit
from copying import rows_of

from streamkit.broker import open_broker
from streamkit.records import EncodedRecords, TopicPartition

pytestmark = [pytest.mark.process, pytest.mark.slow]

KILLS = 6
ATTEMPTS_MAX = 30
RECORD_COUNT = 48_000
SEED = 20_261_125


def fill(url: str) -> None:
    """Append `RECORD_COUNT` records to a topic, which is made if need be."""
    broker = open_broker(url)
    broker.admin.create_topic("bids", 3)
    producer = broker.producer()
    count = RECORD_COUNT // 12
    for number in range(12):
        ids = range(number * count, (number + 1) * count)
        records = EncodedRecords.to_append(
            timestamps_ms=list(ids),
            keys=[None if index % 7 == 0 else b"%d" % index for index in ids],
            values=[None if index % 11 == 0 else b"%d %s" % (index, b"x" * 2000) for index in ids],
        )
        producer.send(TopicPartition("bids", number % 3), records)
        producer.flush()
    producer.close()
    broker.close()


def test_topics_are_copied_and_what_was_done_is_printed(tmp_path: Path) -> None:
    produce("bids", [b"1", b"2"], cwd=tmp_path)
    produce("asks", [b"3"], "--partitions", "2", cwd=tmp_path)
    command = ("topics", "copy", "bids", "asks", "--from", "log://.streamkit", "--to", "log://there")
    first, second = done(*command, cwd=tmp_path).splitlines()
    assert first.startswith("bids: 2 records copied, ")
    assert second.startswith("asks: 1 record copied, ")
    assert [row["value"] for row in consumed("bids", "--broker", "log://there", cwd=tmp_path)] == [1, 2]
    assert "2 partitions" in done("topics", "describe", "asks", "--broker", "log://there", cwd=tmp_path)
    produce("bids", [b"4"], cwd=tmp_path)
    lines = [orjson.loads(line) for line in done(*command, "--json", cwd=tmp_path).splitlines()]
    finished = {line["topic"]: line for line in lines if line["finished"]}
    assert [finished[topic]["records"] for topic in ("bids", "asks")] == [1, 0]
    assert finished["bids"].keys() == {"topic", "records", "bytes", "seconds", "remaining", "removed", "finished"}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("bids", "--from", "log://.streamkit", "--to", "log://.streamkit"), 2, "same place"),
        (("nothing", "--from", "log://.streamkit", "--to", "log://there"), 2, "topic 'nothing' does not exist"),
        (("bids", "--from", "log://nowhere", "--to", "log://there"), 2, "there is no log in 'nowhere'"),
        (("bids", "--from", "log://.streamkit", "--to", "log://three"), 2, "2 partitions in the source and 3 in"),
        (("bids", "--from", "log://.streamkit", "--to", "log://small"), 1, "bids-0 offset 1"),
        (("--from", "log://.streamkit", "--to", "log://there"), 2, "Missing argument 'TOPIC...'"),
    ],
)
def test_what_cannot_be_copied_is_refused_and_says_why(
    arguments: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    produce("bids", [b"1", b"x" * 1000], "--partitions", "2", cwd=tmp_path)
    done("topics", "create", "bids", "--partitions", "3", "--broker", "log://three", cwd=tmp_path)
    limit = ("--config", "max.message.bytes=500")
    done("topics", "create", "bids", "--partitions", "2", *limit, "--broker", "log://small", cwd=tmp_path)
    ended = streamkit("topics", "copy", *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (code, b"")
    assert says in ended.stderr.decode()
    if code == 2:
        assert not (tmp_path / "there").exists() or not list((tmp_path / "there").glob("bids-*"))


def test_a_copy_that_is_killed_again_and_again_ends_equal_to_its_source(tmp_path: Path) -> None:
    here = f"log://{tmp_path / 'here'}"
    fill(here)
    command = [*COMMAND, "topics", "copy", "bids", "--from", "log://here", "--to", "log://there", "--json"]
    rng, killed_midway, fills = random.Random(SEED), 0, 1
    for _ in range(ATTEMPTS_MAX):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE)
        assert process.stdout is not None
        # A line stands for a commit: after it the next transaction is under way.
        line = process.stdout.readline()
        select.select([process.stdout], [], [], rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL and orjson.loads(line)["remaining"] > 0:
            killed_midway += 1
        else:  # it came to its end before it was killed, and has nothing left to copy
            fill(here)
            fills += 1
        if killed_midway == KILLS:
            break
    assert killed_midway == KILLS, f"of {ATTEMPTS_MAX} attempts"
    printed = done(*command[len(COMMAND) :], cwd=tmp_path)
    assert orjson.loads(printed.splitlines()[-1])["remaining"] == 0
    source, target = open_broker(here), open_broker(f"log://{tmp_path / 'there'}")
    try:
        assert rows_of(target, "bids") == rows_of(source, "bids")
        assert sum(map(len, rows_of(target, "bids"))) == RECORD_COUNT * fills
    finally:
        source.close()
        target.close()


def test_a_terminal_shows_one_line_and_keeps_the_last(tmp_path: Path) -> None:
    produce("bids", [b"1"], cwd=tmp_path)
    main, side = os.openpty()
    command = [*COMMAND, "topics", "copy", "bids", "--from", "log://.streamkit", "--to", "log://there"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=side, stderr=side)
    os.close(side)
    shown = b""
    try:
        while data := os.read(main, 1000):
            shown += data
    except OSError:
        pass  # how a terminal says that nobody has its other side open any more
    os.close(main)
    assert process.wait() == 0
    assert b"offsets to go" in shown
    assert shown.decode().rstrip().rpartition("bids: ")[2].startswith("1 record copied, ")
