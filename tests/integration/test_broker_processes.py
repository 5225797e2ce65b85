"""Real processes on one log directory: a second one is refused, and a killed one leaves whole transactions."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamkit.broker import LAST_STABLE, LATEST, Broker
from streamkit.broker.open import open_broker
from streamkit.errors import LogLockedError
from streamkit.log.codec import decode
from streamkit.records import TopicPartition

PARTITIONS = [TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)]
INPUT = TopicPartition("input", 0)
KILL_COUNT = 6

pytestmark = [pytest.mark.process, pytest.mark.slow]

HOLDER = """
import sys
from streamkit.broker.open import open_broker

broker = open_broker(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
broker.close()
"""

WRITER = """
import sys
from streamkit.broker import CommittedOffset
from streamkit.broker.open import open_broker
from streamkit.records import EncodedRecords, TopicPartition

broker = open_broker(sys.argv[1])
for topic, count in (("a", 2), ("b", 1), ("input", 1)):
    broker.admin.create_topic(topic, count)
source = TopicPartition("input", 0)
producer = broker.producer("task")
committed = broker.group("group").committed()
number = committed[source].offset if committed else 0
while True:
    producer.begin()
    for tp in (TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)):
        for _ in range(2):
            value = str(number).encode()
            producer.send(tp, EncodedRecords.to_append(timestamps_ms=[0], keys=[None], values=[value]))
    if number % 5 == 4:
        producer.abort()
        producer.begin()
    producer.send_offsets("group", {source: CommittedOffset(offset=number + 1, metadata=str(number))})
    producer.commit()
    print(number, flush=True)
    number += 1
"""


def started(script: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def read_all(broker: Broker, tp: TopicPartition) -> list[int]:
    fetcher, values, position = broker.fetcher(), list[int](), 0
    while fetched := fetcher.fetch({tp: position}, wait_ms=0, bytes_max=1 << 20):
        position = fetched[0].next_offset
        if fetched[0].record_batches:
            values += [int(value) for value in decode(fetched[0].record_batches).values if value is not None]
    return values


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    url = f"log://{tmp_path}/log"
    holder = started(HOLDER, url)
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(LogLockedError) as caught:
        open_broker(url)
    assert str(tmp_path / "log") in str(caught.value)
    assert "stop that process" in caught.value.hint
    holder.stdin.close()
    assert holder.wait(120) == 0
    holder.stdout.close()
    open_broker(url).close()


def test_a_process_killed_in_the_middle_of_transactions_leaves_them_whole(tmp_path: Path) -> None:
    url, seed = f"log://{tmp_path}/log", random.randrange(2**32)
    print("seed", seed)
    chance, acknowledged = random.Random(seed), -1
    for _ in range(KILL_COUNT):
        writer = started(WRITER, url)
        assert writer.stdin is not None
        assert writer.stdout is not None
        for _ in range(chance.randint(1, 40)):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        assert writer.wait(120) == -signal.SIGKILL
        writer.stdin.close()
        writer.stdout.close()

        broker = open_broker(url)
        committed = broker.group("group").committed()[INPUT]
        assert committed.metadata == str(committed.offset - 1)
        assert committed.offset in (acknowledged + 1, acknowledged + 2), "an acknowledged commit is lost"
        expected = [number for number in range(committed.offset) if number % 5 != 4 for _ in range(2)]
        for tp in PARTITIONS:
            assert read_all(broker, tp) == expected
            assert broker.admin.list_offsets({tp: LAST_STABLE}) == broker.admin.list_offsets({tp: LATEST})
        broker.close()
