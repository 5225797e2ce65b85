"""Error policies in a real run: many bad records over many fetches, each counted and kept, whatever is cut short."""

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from crashes import Power, PowerCut, opened

from streamkit import Job, Tumbling, agg
from streamkit.broker import Broker, open_broker
from streamkit.errors import ConfigError, DefinitionError, ProcessingError, TopologyError, UnknownTopicError
from streamkit.graph.nodes import OnError
from streamkit.records import EncodedRecords, Header, TopicPartition
from streamkit.runtime import Guarantee, RunOptions, Summary, Worker
from streamkit.runtime.commit import COMMIT_STEPS, Observe, unobserved
from streamkit.runtime.dead_letters import DeadLetter, read_letters, retry_letters
from streamkit.runtime.reading import read_to
from streamkit.runtime.replay import REPLAY_STEPS, Replay, ReplayEnvironment
from streamkit.seams import MemoryFileSystem, SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

SALES, TOTALS, NAMES = "sales", "totals", "names"


class Sale(msgspec.Struct):
    name: str
    amount: int


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = open_broker("memory://")
    broker.admin.create_topic(SALES, 2)
    yield broker
    broker.close()


def named(sale: Sale) -> str:
    if sale.amount < 0:
        raise ValueError("no name for less than nothing")
    return sale.name


def job_of(on_error: OnError = "dead_letter", source: OnError | None = None, mended: bool = False) -> Job:
    job = Job("shop", on_error=on_error)
    sales = job.stream(SALES, value=Sale, on_error=source)
    sales.map((lambda sale: sale.name) if mended else named).to(NAMES)
    sales.group_by("name", type=str, name="by_name", shards=2).agg({"total": agg.sum("amount")}, name="total").to(
        TOTALS
    )
    return job


def good(amount: int) -> bytes:
    return b'{"name": "a", "amount": %d}' % amount


def send(
    broker: Broker, values: Sequence[bytes], partition: int = 0, headers: Sequence[Header] = (), batch: int = 50
) -> None:
    producer = broker.producer()
    for begin in range(0, len(values), batch):
        some = values[begin : begin + batch]
        records = EncodedRecords.to_append(
            timestamps_ms=list(range(len(some))),
            keys=[b"key"] * len(some),
            values=some,
            headers=[headers] * len(some) if headers else None,
        )
        producer.send(TopicPartition(SALES, partition), records)
    producer.flush()
    producer.close()


def run(broker: Broker, job: Job, *, observe: Observe = unobserved, **options: Any) -> Summary:
    made = RunOptions(**{"bounded": True, "go_on": True, **options})
    topology = compile_graph(job.build())
    fs, clock = SystemFileSystem(), SystemClock()
    return Worker(topology, broker, options=made, fs=fs, clock=clock, observe=observe).run(threading.Event())


def records_of(broker: Broker, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    fetcher = broker.fetcher()
    count = broker.admin.describe_topics()[topic].partition_count
    found = [
        pair
        for partition in range(count)
        for records in read_to(broker, fetcher, TopicPartition(topic, partition), None)
        for pair in zip(records.keys, records.values, strict=True)
    ]
    fetcher.close()
    return found


def total_of(broker: Broker) -> int:
    return int(msgspec.json.decode(records_of(broker, TOTALS)[-1][1] or b"")["total"])


def places(letters: Sequence[DeadLetter]) -> list[tuple[int, int]]:
    return sorted((letter.source.partition, letter.source_offset) for letter in letters)


BAD = {50 * number + 7 for number in range(20)} | {511, 512, 513}


def mixed() -> list[bytes]:
    """Return 1,000 records, of which those in BAD are bad, by turns for the source and for a function."""
    return [(b"{" if index % 2 else good(-1)) if index in BAD else good(1) for index in range(1000)]


@pytest.mark.slow
@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_a_run_goes_on_over_bad_records_and_counts_them(
    broker: Broker, guarantee: Guarantee, on_error: OnError
) -> None:
    for partition in range(2):
        send(broker, mixed(), partition)
    summary = run(broker, job_of(on_error), guarantee=guarantee, fetch_bytes_max=4000, commit_bytes_max=20_000)
    assert summary.finished
    assert summary.records_in == 2000, "they were read"
    assert (summary.skipped, summary.dead_letters) == (2 * len(BAD), 2 * len(BAD) if on_error == "dead_letter" else 0)
    assert total_of(broker) == 2 * (1000 - len(BAD))
    names = records_of(broker, NAMES)
    if guarantee == "exactly-once":
        assert len(names) == 2 * (1000 - len(BAD))
    else:
        assert len(names) >= 2 * (1000 - len(BAD)), "what was sent before a record was found to be bad is sent again"
    letters = read_letters(broker, "shop")
    expected = [(partition, offset) for partition in range(2) for offset in sorted(BAD)]
    assert places(letters) == (expected if on_error == "dead_letter" else [])


def test_a_letter_is_the_record_as_it_was_read_with_what_was_wrong(broker: Broker) -> None:
    send(broker, [good(1), good(-2), good(3)], headers=[("trace", b"7")])
    run(broker, job_of())
    (letter,) = read_letters(broker, "shop")
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"key", good(-2), 1)
    assert letter.headers == (("trace", b"7"),)
    assert (letter.source, letter.source_offset, letter.attempt) == (TopicPartition(SALES, 0), 1, 1)
    assert (letter.node, letter.reason) == ("named", "ValueError: no name for less than nothing")
    assert not letter.retried


def test_a_source_has_its_own_policy_over_that_of_the_job(broker: Broker) -> None:
    send(broker, [good(1), good(-2)])
    with pytest.raises(ProcessingError, match="no name"):
        run(broker, job_of("dead_letter", source="fail"))
    assert run(broker, job_of("fail", source="skip")).skipped == 1


def test_without_dead_letters_there_is_no_topic_of_them(broker: Broker) -> None:
    send(broker, [good(1), good(-2)])
    run(broker, job_of("skip"))
    assert "shop.dead_letter" not in broker.admin.describe_topics()
    assert read_letters(broker, "shop") == []


def test_a_merge_that_fails_stops_the_run_under_any_policy(broker: Broker) -> None:
    """The sum of two records leaves 64 bits: neither is the bad one."""
    send(broker, [good(2**62), good(2**62)])
    with pytest.raises(ProcessingError, match="an integer sum leaves 64 bits"):
        run(broker, job_of())


def test_a_fold_that_fails_without_the_state_that_it_has_is_not_taken_for_bad(broker: Broker) -> None:
    """The search for more bad records has no state, so what it hears of folds says nothing."""

    def never_first(total: int, sale: Sale) -> int:
        if sale.name == "later" and not total:
            raise ValueError("there is no total yet")
        return total + sale.amount

    job = Job("shop", on_error="dead_letter")
    sales = job.stream(SALES, key=str, value=Sale)
    sales.map(named).to(NAMES)
    sales.group_by_key().aggregate(never_first, initial=int, name="totals").to(TOTALS)
    send(broker, [good(1)])
    run(broker, job)
    send(broker, [good(-2), b'{"name": "later", "amount": 4}'])
    assert run(broker, job).skipped == 1
    assert records_of(broker, TOTALS)[-1] == (b"key", b"5")


class Stop(BaseException):
    """The process is gone."""


@pytest.mark.slow
@pytest.mark.parametrize("step", [one.__name__ for one in COMMIT_STEPS])
def test_a_letter_is_there_once_if_the_job_stops_at_any_step_of_a_commit(broker: Broker, step: str) -> None:
    send(broker, mixed()[:100])
    bad = sorted(offset for offset in BAD if offset < 100)
    stopped = 0

    def stop_often(name: str) -> None:
        nonlocal stopped
        if name == step and stopped < 4:
            stopped += 1
            raise Stop

    for _ in range(6):
        try:
            run(broker, job_of(), observe=stop_often, fetch_bytes_max=500)
            break
        except Stop:
            continue
    assert stopped == 4
    assert places(read_letters(broker, "shop")) == [(0, offset) for offset in bad]
    assert total_of(broker) == 100 - len(bad)
    assert len(records_of(broker, NAMES)) == 100 - len(bad)


def test_what_is_retried_is_processed_once_more_and_fails_with_a_higher_attempt(broker: Broker) -> None:
    send(broker, [good(1), good(-2), b"{", good(4)], headers=[("trace", b"7")])
    run(broker, job_of())
    first = {letter.value: letter for letter in read_letters(broker, "shop")}
    assert retry_letters(broker, "shop", None) == (2, 0)
    assert retry_letters(broker, "shop", None) == (0, 0)
    run(broker, job_of(mended=True))
    assert total_of(broker) == 3, "the function was mended, so its record counts"
    by_value = {letter.value: letter for letter in read_letters(broker, "shop") if not letter.retried}
    assert by_value.keys() == {b"{"}, "bytes are as bad as before"
    again = by_value[b"{"]
    assert (again.attempt, again.headers, again.source_offset) == (2, (("trace", b"7"),), 5)
    assert first[b"{"].attempt == 1
    assert retry_letters(broker, "shop", [again.id, first[b"{"].id]) == (1, 1)


def test_an_id_that_there_is_not_sends_nothing(broker: Broker) -> None:
    send(broker, [good(1), good(-2)])
    run(broker, job_of())
    (letter,) = read_letters(broker, "shop")
    with pytest.raises(ConfigError, match="no dead letter '0:99'"):
        retry_letters(broker, "shop", [letter.id, "0:99"])
    assert len(records_of(broker, SALES)) == 2
    broker.admin.delete_topic(SALES)
    with pytest.raises(UnknownTopicError, match=r"came from sales-0"):
        retry_letters(broker, "shop", None)


@pytest.mark.slow
def test_each_letter_is_sent_back_once_if_the_power_is_cut_before_any_change_to_the_disk() -> None:
    def filled(power: Power) -> MemoryFileSystem:
        fs = MemoryFileSystem(power)
        broker = opened(fs)
        broker.admin.create_topic(SALES, 2)
        send(broker, [good(1), good(-2), b"{", good(4)])
        run(broker, job_of())
        broker.close()
        return fs

    def retry(fs: MemoryFileSystem) -> None:
        broker = opened(fs)
        retry_letters(broker, "shop", None)
        broker.close()

    power = Power()
    fs = filled(power)
    before = power.changes
    retry(fs)
    assert power.changes > before + 5
    for change in range(before + 1, power.changes + 1):
        power = Power()
        fs = filled(power)
        power.cut_at = power.changes + change - before
        with pytest.raises(PowerCut):
            retry(fs)
        fs = fs.crashed()
        retry(fs)
        broker = opened(fs)
        sent = [value for _, value in records_of(broker, SALES)]
        assert sorted(value or b"" for value in sent) == sorted([good(1), good(-2), b"{", good(4), good(-2), b"{"])
        assert all(letter.retried for letter in read_letters(broker, "shop"))
        broker.close()


def test_a_policy_that_there_is_not_is_refused_where_it_is_written() -> None:
    with pytest.raises(DefinitionError, match="on_error='ignore' of job 'shop' is no error policy"):
        Job("shop", on_error="ignore")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(DefinitionError, match="on_error='drop' of source 'sales' is no error policy"):
        Job("shop").stream(SALES, on_error="drop")  # type: ignore[call-overload]  # what is tested


def test_the_topic_of_dead_letters_is_not_written_by_hand() -> None:
    job = Job("shop", on_error="dead_letter")
    job.stream(SALES).to("shop.dead_letter")
    with pytest.raises(TopologyError, match="an internal topic of job 'shop'"):
        compile_graph(job.build())


def cautious(count: int) -> int:
    if count == 2:
        raise ValueError("two is too few")
    return count


def counting(*, windowed: bool, on_error: OnError = "dead_letter") -> Job:
    """Return a job whose results fail behind the shuffle: for every key that came twice."""
    job = Job("counting", on_error=on_error)
    group = job.stream(SALES, value=Sale).group_by("name", type=str, name="by_name", shards=1)
    if windowed:
        table: Any = group.window(Tumbling(to_timedelta(10), grace=to_timedelta(0)))
        table.count(name="counts").to_stream().map(cautious).to(NAMES)
    else:
        group.count(name="counts").map_values(cautious).to(NAMES)
    return job


def to_timedelta(size_ms: int) -> timedelta:
    return timedelta(milliseconds=size_ms)


@pytest.mark.parametrize("windowed", [False, True])
def test_a_result_that_fails_behind_a_shuffle_is_left_out_alone(broker: Broker, windowed: bool) -> None:
    names = ["a", "b", "b", "c", "d", "d", "e", "e", "e"]
    send(broker, [b'{"name": "%s", "amount": 1}' % name.encode() for name in names])
    summary = run(broker, counting(windowed=windowed))
    assert (summary.skipped, summary.dead_letters) == (2, 2)
    assert sorted(records_of(broker, NAMES)) == [(b"a", b"1"), (b"c", b"1"), (b"e", b"3")]
    letters = read_letters(broker, "counting")
    assert [(letter.key, letter.value) for letter in letters] == [(b"b", b"2"), (b"d", b"2")]
    for letter in letters:
        assert (letter.table, letter.node, letter.reason) == ("counts", "cautious", "ValueError: two is too few")
        assert letter.source == TopicPartition("counting-by_name-repartition", 0), "what the task had read"
        assert letter.source_offset >= 0
    assert retry_letters(broker, "counting", None) == (0, 0), "there is no record to send back"
    with pytest.raises(ConfigError, match="is a result of the table 'counts'"):
        retry_letters(broker, "counting", [letters[0].id])


def test_results_have_the_policy_of_the_job_not_of_a_source(broker: Broker) -> None:
    send(broker, [good(1), good(2)])
    job = Job("counting")
    group = job.stream(SALES, value=Sale, on_error="skip").group_by("name", type=str, name="by_name", shards=1)
    group.count(name="counts").map_values(cautious).to(NAMES)
    with pytest.raises(ProcessingError, match="two is too few"):
        run(broker, job)


@pytest.mark.slow
@pytest.mark.parametrize("step", [step.__name__ for step in REPLAY_STEPS])
def test_what_was_sent_back_is_known_after_a_replay_that_died_before_any_step(
    broker: Broker, tmp_path: Path, step: str
) -> None:
    send(broker, [good(1), good(-2), b"{", good(4)])
    run(broker, job_of(), state_dir=str(tmp_path))
    assert retry_letters(broker, "shop", None) == (2, 0)
    run(broker, job_of(), state_dir=str(tmp_path))

    def stop_once(name: str) -> None:
        if name == step and not died:
            died.append(name)
            raise Stop

    died: list[str] = []
    environment = ReplayEnvironment(
        broker=broker,
        state_dir=str(tmp_path),
        options=RunOptions(),
        fs=SystemFileSystem(),
        clock=SystemClock(),
        observe=stop_once,
    )
    with pytest.raises(Stop):
        Replay(compile_graph(job_of().build()), environment).run()
    Replay(compile_graph(job_of().build()), environment).run()
    found = {(letter.source_offset, letter.attempt, letter.retried) for letter in read_letters(broker, "shop")}
    assert found == {(1, 1, True), (2, 1, True), (4, 2, False), (5, 2, False)}


def collecting(on_error: OnError, limit: int, kind: str) -> Job:
    job = Job("shop", on_error=on_error)
    made = agg.collect("amount", limit=limit) if kind == "collect" else agg.distinct("amount", limit=limit)
    group = job.stream(SALES, value=Sale).group_by("name", type=str, name="by_name", shards=1)
    group.agg({"amounts": made}, name="amounts").to(TOTALS)
    return job


@pytest.mark.parametrize("kind", ["collect", "distinct"])
@pytest.mark.parametrize("on_error", ["fail", "skip", "dead_letter"])
def test_a_group_beyond_its_limit_stops_the_run_under_any_policy_and_goes_on_with_a_larger_one(
    broker: Broker, on_error: OnError, kind: str
) -> None:
    """Which of its records comes last depends on batches, so that none may be left out for it."""
    send(broker, [good(1), good(2)])
    run(broker, collecting(on_error, 2, kind))
    send(broker, [good(3)], partition=1)
    with pytest.raises(ProcessingError, match="a group has more than 2 values") as caught:
        run(broker, collecting(on_error, 2, kind))
    assert "limit=" in caught.value.hint
    assert run(broker, collecting(on_error, 3, kind)).records_in <= 1, "what was committed is not read again"
    last = msgspec.json.decode(records_of(broker, TOTALS)[-1][1] or b"")["amounts"]
    assert last == ([1, 3, 2] if kind == "collect" else 3), "by timestamp"
