"""Each position says what its transaction wrote to the changelog."""

import random

import orjson
from scenarios import SCENARIOS, Rows

from streamkit.records import TopicPartition
from streamkit.runtime.position import Position
from streamkit.runtime.reading import read_to
from streamkit.state import POSITION_KEY, EntriesDigest

ROWS: list[Rows] = [[("a", 1, 10), ("b", 2, 25), ("a", 3, 90)], [("c", 4, 15), ("a", 5, 95), ("b", 6, 200)]]


def test_the_digest_of_the_entries_is_that_of_the_changelogs_records_since_the_last_position() -> None:
    machine = SCENARIOS["table"].machine(2)
    SCENARIOS["table"].fill(machine, ROWS)
    machine.run_bounded(random.Random(7))
    compared_count = 0
    for partition in range(3):
        keys: list[bytes] = []
        values: list[bytes | None] = []
        for records in read_to(
            machine.broker, machine.broker.fetcher(), TopicPartition("table-counts-changelog", partition), None
        ):
            for key, value in zip(records.keys, records.values, strict=True):
                assert key is not None
                if key != POSITION_KEY:
                    keys.append(key)
                    values.append(value)
                    continue
                entries = EntriesDigest()
                entries.add(keys, values)
                position = Position.from_json(orjson.loads(value or b""))
                assert position.entries == ({"counts": entries.to_text()} if keys else {})
                compared_count += bool(keys)
                keys, values = [], []
    assert compared_count >= 2


def test_a_position_keeps_them() -> None:
    position = Position(transaction=3, entries={"counts": "1:2:ab"})
    assert Position.from_json(orjson.loads(orjson.dumps(position.to_json()))) == position


def test_a_position_of_before_there_were_any_is_read() -> None:
    assert Position.from_json({"txn": 1, "run": 0, "in": [], "n": {}, "d": {}}).entries is None
