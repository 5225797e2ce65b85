"""Each kind of bad record under each policy: what the run does, what a letter says, what the neighbours give."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
import polars as pl
import pytest

from streamkit import Job
from streamkit.broker import Broker, open_broker
from streamkit.errors import RecordError
from streamkit.graph.nodes import OnError
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions, Summary, Worker
from streamkit.runtime.dead_letters import read_letters
from streamkit.runtime.reading import read_to
from streamkit.seams import MemoryFileSystem, SystemClock
from streamkit.topology import compile_graph

PLACE = TopicPartition("sales", 1)
LIMIT_BYTES = 1_048_588


class Sale(msgspec.Struct):
    name: str
    amount: int
    at: int


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One bad record, what is wrong with it, and the node that finds out."""

    key: bytes | None = b"3"
    value: bytes = b'{"name":"bad","amount":7,"at":3}'
    reason: str
    node: str = "sales"


KINDS = {
    "undecodable JSON": Bad(value=b'{"name":"c","amount', reason="does not decode as Sale"),
    "a missing field": Bad(value=b'{"name":"c","at":3}', reason="amount"),
    "a field of another type": Bad(value=b'{"name":"c","amount":"3","at":3}', reason="Expected `int`, got `str`"),
    "a null value": Bad(value=b"null", reason="does not decode as Sale"),
    "a timestamp that is no number": Bad(value=b'{"name":"c","amount":3,"at":"noon"}', reason="Expected `int`"),
    "a timestamp out of range": Bad(value=b'{"name":"c","amount":3,"at":%d}' % 2**61, reason="timestamp"),
    "a key of another type": Bad(key=b"three", reason="key"),
    "a null key": Bad(key=None, reason="null"),
    "a function that raises": Bad(reason="ValueError: not this one", node="checked"),
    "an expression that fails": Bad(reason="conversion", node="noted"),
    "an output that cannot be encoded": Bad(reason="encode", node="to_out_1"),
    "an output over the limit": Bad(reason=f"{LIMIT_BYTES}", node="to_out_1"),
}


def job_of(kind: str, on_error: OnError, source: OnError | None) -> Job:
    """Return a job on which one kind of bad record fails; without the kind all get through."""

    def checked(sale: Sale) -> Any:
        if sale.name == "bad":
            match kind:
                case "a function that raises":
                    raise ValueError("not this one")
                case "an output that cannot be encoded":
                    return object()
                case "an output over the limit":
                    return "x" * LIMIT_BYTES
        return sale.name

    job = Job("shop", on_error=on_error)
    sales = job.stream("sales", key=int, value=Sale, timestamp="at", on_error=source)
    if kind == "an expression that fails":
        noted = sales.filter(pl.col("name").str.replace("good", "1").cast(pl.Int64) > 0, name="noted")
        noted.map(lambda sale: "good").to("out")
    else:
        sales.map(checked).to("out")
    sales.group_by("name", type=str, name="by_name", shards=1).count(name="counts").to("counts")
    return job


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = open_broker("memory://")
    broker.admin.create_topic("sales", 2)
    yield broker
    broker.close()


def send(broker: Broker, bad: Bad) -> None:
    """Append a good record, the bad one, and a good one."""
    good = b'{"name":"good","amount":1,"at":1}'
    producer = broker.producer()
    records = EncodedRecords.to_append(
        timestamps_ms=[5, 6, 7],
        keys=[b"1", bad.key, b"2"],
        values=[good, bad.value, good],
        headers=[[], [("trace", b"7")], []],
    )
    producer.send(PLACE, records)
    producer.flush()
    producer.close()


def run(broker: Broker, job: Job) -> Summary:
    options, fs, clock = RunOptions(bounded=True), MemoryFileSystem(), SystemClock()
    return Worker(compile_graph(job.build()), broker, options=options, fs=fs, clock=clock).run(threading.Event())


def values(broker: Broker, topic: str) -> list[Any]:
    fetcher = broker.fetcher()
    found = [
        orjson.loads(value or b"null")
        for partition in range(broker.admin.describe_topics()[topic].partition_count)
        for records in read_to(broker, fetcher, TopicPartition(topic, partition), None)
        for value in records.values
    ]
    fetcher.close()
    return found


POLICIES: dict[str, tuple[OnError, OnError | None]] = {
    "skip, of the job": ("skip", None),
    "skip, of the source": ("fail", "skip"),
    "dead_letter, of the job": ("dead_letter", None),
    "dead_letter, of the source": ("fail", "dead_letter"),
}


@pytest.mark.parametrize("policy", ["fail, of the job", "fail, of the source"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_of_fail_stops_the_run_at_the_place(broker: Broker, kind: str, policy: str) -> None:
    bad = KINDS[kind]
    send(broker, bad)
    with pytest.raises(RecordError) as caught:
        run(broker, job_of(kind, *(("fail", None) if policy == "fail, of the job" else ("skip", "fail"))))
    error = caught.value
    # An expression fails on a batch, which is named by its first record.
    offset = 0 if kind == "an expression that fails" else 1
    assert (error.topic, error.partition, error.offset, error.node) == ("sales", 1, offset, bad.node)
    assert bad.reason in str(error)
    committed = broker.group("shop").committed()
    assert PLACE not in committed or committed[PLACE].offset <= 1, "nothing at or after it is committed"
    assert read_letters(broker, "shop") == []


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_lenient_policy_leaves_the_record_out_alone(broker: Broker, kind: str, policy: str) -> None:
    send(broker, KINDS[kind])
    summary = run(broker, job_of(kind, *POLICIES[policy]))
    letters = 1 if policy.startswith("dead_letter") else 0
    assert (summary.finished, summary.records_in) == (True, 3)
    assert (summary.skipped, summary.dead_letters) == (1, letters)
    assert values(broker, "out") == ["good", "good"]
    assert values(broker, "counts")[-1] == 2, "it counts in no other branch"
    assert len(read_letters(broker, "shop")) == letters
    assert ("shop.dead_letter" in broker.admin.describe_topics()) == bool(letters)


HEADERS = ("reason", "node", "topic", "partition", "offset", "attempt")


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_letter_is_the_record_with_what_is_wrong_in_headers(broker: Broker, kind: str, header: str) -> None:
    bad = KINDS[kind]
    send(broker, bad)
    run(broker, job_of(kind, "dead_letter", None))
    topic, fetcher = "shop.dead_letter", broker.fetcher()
    places = [TopicPartition(topic, at) for at in range(broker.admin.describe_topics()[topic].partition_count)]
    (letter,) = [records for place in places for records in read_to(broker, fetcher, place, None) if len(records)]
    fetcher.close()
    assert (list(letter.keys), list(letter.values), letter.timestamps_ms.tolist()) == ([bad.key], [bad.value], [6])
    assert letter.headers is not None
    (headers,) = letter.headers
    assert tuple(headers[-1]) == ("trace", b"7"), "the record's own come after ours"
    assert [name for name, _ in headers[:-1]] == list(HEADERS)
    said = (dict(headers)[header] or b"").decode()
    if header == "reason":
        assert bad.reason in said
    else:
        expected = {"node": bad.node, "topic": "sales", "partition": "1", "offset": "1", "attempt": "1"}
        assert said == expected[header]
