"""Where rows come in: timestamps and keys are judged at the source, blocks of a shuffle where they are read."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import orjson
import pytest

from streamkit import EventTime, Job, Tumbling, agg
from streamkit.errors import DeserializationError, ProcessingError, TimestampError, TopologyError
from streamkit.records import EncodedRecords, Header, TopicPartition
from streamkit.runtime.blocks import BlockHeader
from streamkit.testing import TestDriver


class Row(msgspec.Struct):
    ts: int
    n: int = 0


def stamped(field: Any, value: Any = None, *, columnar: bool = False) -> Job:
    job = Job("stamped")
    rows = job.stream("rows", value=value, timestamp=field)
    if columnar:
        rows.select("ts").to("out")
    else:
        rows.to("out")
    return job


def at_of(row: dict[str, Any]) -> Any:
    at = row["ts"]
    return datetime.fromisoformat(at) if isinstance(at, str) else at


@pytest.mark.parametrize(
    ("job", "values", "index"),
    [
        (lambda: stamped("ts"), [b'{"ts": 1}', b'{"ts": "x"}'], 1),
        (lambda: stamped("ts"), [b'{"ts": 1}', b"{}"], 1),
        (lambda: stamped("ts"), [b'{"ts": 1}', b"3"], 1),
        (lambda: stamped("ts"), [b'{"ts": 1.5}'], 0),
        (lambda: stamped("ts"), [b'{"ts": true}'], 0),
        (lambda: stamped("ts"), [b'{"ts": 1}', b'{"ts": %d}' % 2**60], 1),
        (lambda: stamped("ts"), [b'{"ts": 1}', b'{"ts": %d}' % 2**63], 1),
        (lambda: stamped("ts"), [b'{"ts": %d}' % -(2**63)], 0),
        (lambda: stamped(at_of), [b'{"ts": "2020-01-01T00:00:00+00:00"}', b'{"ts": %d}' % 2**63], 1),
        (lambda: stamped(at_of), [b'{"ts": "2020-01-01T00:00:00"}'], 0),
        (lambda: stamped("ts", Row), [b'{"ts": 1}', b'{"ts": %d}' % 2**61], 1),
        (lambda: stamped("ts", Row, columnar=True), [b'{"ts": 1}', b'{"ts": %d}' % 2**61], 1),
    ],
)
def test_a_timestamp_that_is_no_time_is_refused_with_its_place(
    job: Callable[[], Job], values: list[bytes], index: int
) -> None:
    with TestDriver(job()) as driver:
        for value in values:
            driver.send("rows", value)
        with pytest.raises(TimestampError, match="is no number of milliseconds and no aware datetime") as caught:
            driver.process()
        assert (caught.value.topic, caught.value.partition, caught.value.offset) == ("rows", 0, index)
        assert caught.value.data == values[index]


def test_the_records_own_timestamp_is_judged_too() -> None:
    job = Job("plain")
    job.stream("rows", value=str).to("out")
    with TestDriver(job) as driver:
        driver.send("rows", "x", timestamp_ms=2**62)
        with pytest.raises(TimestampError):
            driver.process()


def test_integers_and_aware_datetimes_are_timestamps() -> None:
    with TestDriver(stamped(at_of)) as driver:
        driver.send("rows", b'{"ts": "2020-01-01T00:00:00+00:00"}')
        driver.send("rows", b'{"ts": -5}')
        driver.commit()
        made = [stamp for _, _, stamp in driver.sent_records("out")]
        assert made == [int(datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1000), -5]


def test_a_timestamp_function_that_raises_names_the_record() -> None:
    def wrong(row: dict[str, Any]) -> int:
        return int(row["when"])

    with TestDriver(stamped(wrong)) as driver:
        driver.send("rows", b'{"when": 3}')
        driver.send("rows", b'{"ts": 3}')
        with pytest.raises(ProcessingError, match="KeyError") as caught:
            driver.process()
        assert caught.value.offset == 1


@pytest.mark.parametrize("columnar", [False, True])
def test_a_value_that_does_not_decode_is_found_at_its_source_whatever_reads_it(columnar: bool) -> None:
    job = Job("typed")
    rows = job.stream("rows", value=Row)
    if columnar:
        rows.select("n").to("out")
    else:
        rows.map(lambda row: row.n, name="n_of").to("out")
    with TestDriver(job) as driver:
        driver.send("rows", b'{"ts": 1}')
        driver.send("rows", b'{"ts": 1')
        with pytest.raises(DeserializationError) as caught:
            driver.process()
        assert (caught.value.offset, caught.value.node) == (1, "rows")
        assert caught.value.data == b'{"ts": 1'


def test_a_key_of_the_wrong_type_is_found_at_its_source() -> None:
    job = Job("keyed")
    job.stream("rows", key=int, value=str).to("out")
    with TestDriver(job) as driver:
        driver.send("rows", "x", key=b"12")
        driver.send("rows", "x", key=b"twelve")
        with pytest.raises(DeserializationError) as caught:
            driver.process()
        assert (caught.value.offset, caught.value.data) == (1, b"twelve")


def test_a_source_that_is_less_in_order_than_it_said_makes_records_late_and_not_wrong() -> None:
    """The watermark is the largest timestamp less the slack, before the record itself."""
    job = Job("slack")
    slack = EventTime("ts", out_of_orderness=timedelta(milliseconds=5))
    rows = job.stream("rows", key=str, timestamp=slack)
    windows = rows.group_by_key().window(Tumbling(timedelta(milliseconds=10), grace=timedelta(0)))
    windows.agg({"n": agg.count()}, name="counts").to("out")
    windows.late.to("late")
    with TestDriver(job) as driver:
        for ts in (14, 9, 15, 8):
            driver.send("rows", {"ts": ts}, key="a")
        driver.end()
        assert [value["n"] for _, value in driver.sent("out")] == [1, 2]
        assert driver.sent("late") == [("a", {"ts": 8})]


def shuffled() -> Job:
    job = Job("shuffled")

    def itself(word: str) -> str:
        return word

    job.stream("words", value=str).group_by(itself, shards=1).count(name="counts").to("out")
    return job


def block(channel: str = "0_0", node: str = "counts") -> list[Header]:
    return BlockHeader(node=node, channel=channel, watermark_ms=5, kind="rows").to_headers()


@pytest.mark.parametrize(
    ("headers", "data", "error", "text"),
    [
        ([], b"", DeserializationError, "no headers of a block"),
        (block(), b"F\x00\x00\x00\x00junk", DeserializationError, "the checksum of the block does not fit"),
        (block(channel="0_7"), b"", TopologyError, "'0_7' and node 'counts', which this job does not have"),
        (block(node="gone"), b"", TopologyError, "'0_0' and node 'gone', which this job does not have"),
    ],
)
def test_a_block_that_is_not_of_this_job_or_damaged_is_refused_with_its_place(
    headers: list[Header], data: bytes, error: type[Exception], text: str
) -> None:
    with TestDriver(shuffled()) as driver:
        producer = driver.broker.producer()
        records = EncodedRecords.to_append(timestamps_ms=[0], keys=[None], values=[data], headers=[headers])
        producer.send(TopicPartition("shuffled-itself-repartition", 0), records)
        producer.flush()
        with pytest.raises(error, match=text):
            driver.process()


def test_a_source_of_json_objects_takes_its_timestamp_from_a_field_of_each() -> None:
    with TestDriver(stamped("ts")) as driver:
        driver.send("rows", orjson.dumps({"ts": 7}))
        driver.commit()
        assert [stamp for _, _, stamp in driver.sent_records("out")] == [7]


def test_records_that_are_cut_for_python_functions_are_judged_and_stamped_as_one_piece() -> None:
    job = Job("cut")
    rows = job.stream("rows", value=Row, timestamp=EventTime("ts"))
    late = rows.group_by(lambda row: row.n, type=int, name="by_n").window(
        Tumbling(timedelta(milliseconds=10), grace=timedelta(0)), emit="final"
    )
    late.aggregate(lambda total, _row: total + 1, initial=int, merge=int.__add__, name="counts").to("counts")
    late.late.to("late")
    with TestDriver(job) as driver:
        for index in range(2_500):
            # Every 500th is late by what came before it, also just behind a cut.
            driver.send("rows", Row(ts=0 if index and index % 500 == 0 else index + 100, n=index))
        driver.commit()
        assert [value["n"] for _, value in driver.sent("late")] == [500, 1000, 1500, 2000]
