"""What the loop does about errors, slow commits and sources that are apart; its threads are real, its clock is not."""

import collections
import threading
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any, cast

import pytest
from faults import FaultyBroker, WatchedStores

from streamkit import Job
from streamkit.broker import EARLIEST, Broker, open_broker
from streamkit.broker.assignment import assign_tasks
from streamkit.broker.protocols import Member
from streamkit.errors import (
    BrokerError,
    BrokerUnavailableError,
    CommitFailedError,
    OffsetOutOfRangeError,
    StoreDamagedError,
    StreamkitError,
)
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions
from streamkit.runtime.crew import Crew
from streamkit.runtime.loop import Loop
from streamkit.runtime.reading import read_to
from streamkit.runtime.runner import RunnerEnvironment, TaskRunner
from streamkit.runtime.setup import prepare
from streamkit.runtime.stores import MemoryStores, Stores
from streamkit.runtime.task_plan import unchecked
from streamkit.seams import EventLoop, ManualClock, ManualEventLoop, MemoryFileSystem, SeededRng
from streamkit.topology import compile_graph

WORDS = [f"w{number % 7}" for number in range(300)]
EXPECTED = {word.encode(): b"%d" % count for word, count in collections.Counter(WORDS).items()}


def counting() -> Job:
    job = Job("counting")
    words = job.stream("words", value=str)

    def itself(word: str) -> str:
        return word

    words.group_by(itself, shards=2).count(name="counts").to("out")
    return job


class Bench:
    """One log, and workers on it that fail where they are told to."""

    def __init__(self, job: Job, partitions: dict[str, list[list[tuple[str, int]]]]) -> None:
        self.clock = ManualClock()
        self.event_loop: EventLoop = ManualEventLoop(self.clock)
        self.broker: Broker = open_broker("memory://", fs=MemoryFileSystem(), clock=self.clock, rng=SeededRng(0))
        self.topology = compile_graph(job.build())
        self.told: Callable[[str], None] = lambda call: None
        for topic, rows in partitions.items():
            self.broker.admin.create_topic(topic, len(rows))
            for partition, some in enumerate(rows):
                self.send(topic, partition, some)

    def send(self, topic: str, partition: int, rows: list[tuple[str, int]]) -> None:
        producer = self.broker.producer()
        for value, stamp in rows:
            records = EncodedRecords.to_append(timestamps_ms=[stamp], keys=[value.encode()], values=[value.encode()])
            producer.send(TopicPartition(topic, partition), records)
        producer.flush()
        producer.close()

    def run(self, *, stop: threading.Event | None = None, stores: Stores | None = None, **options: Any) -> None:
        told = FaultyBroker(self.broker, lambda call: self.told(call))
        broker = cast(Broker, told)
        run_options = RunOptions(**{"fetch_bytes_max": 1000, "commit_bytes_max": 1000, "bounded": True, **options})
        plan = prepare(self.topology, self.broker, run_options, unchecked)
        environment = RunnerEnvironment(
            broker=broker,
            stores=MemoryStores() if stores is None else stores,
            clock=self.clock,
            options=run_options,
            observe=lambda step: None,
            event_loop=self.event_loop,
        )
        tasks = [task.task_id for task in plan.tasks]
        membership = broker.join("job", [], Member(id="worker"), lambda members: assign_tasks(members, tasks))
        with Crew(plan, environment, membership) as self.crew:
            while not self.crew.complete:
                self.crew.tend(set(), stopping=False)
                wait(self.crew.under_way)
                self.clock.advance(1)
            loop = Loop(self.crew, broker, run_options, self.clock, run_options.skew_max_ms or 60_000)
            try:
                loop.run(threading.Event() if stop is None else stop, lambda: None)
            finally:
                membership.leave()

    @property
    def runners(self) -> list[TaskRunner]:
        return sorted(self.crew.running.values(), key=lambda runner: runner.plan.task_id)

    def read(self, topic: str = "out") -> list[tuple[bytes | None, bytes | None]]:
        rows: list[tuple[bytes | None, bytes | None]] = []
        for partition in range(self.broker.admin.describe_topics()[topic].partition_count):
            for records in read_to(self.broker, self.broker.fetcher(), TopicPartition(topic, partition), None):
                rows.extend(zip(records.keys, records.values, strict=True))
        return rows


def words(count: int = 2) -> dict[str, list[list[tuple[str, int]]]]:
    return {
        "words": [
            [(word, number) for number, word in enumerate(WORDS) if number % count == one] for one in range(count)
        ]
    }


def failing(call: str, errors: list[StreamkitError], *, after: int = 0) -> Callable[[str], None]:
    """Raise each error once, at some call, after it went well some times."""
    lock, seen = threading.Lock(), [0]

    def told(name: str) -> None:
        if name != call:
            return
        with lock:
            seen[0] += 1
            error = errors.pop(0) if seen[0] > after and errors else None
        if error is not None:
            raise error

    return told


@pytest.mark.parametrize("when", ["producer.commit", "producer.commit.done"])
@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_a_commit_whose_outcome_is_unknown_is_looked_up_in_the_log(when: str, guarantee: str) -> None:
    """Whether it was committed or not: the task is opened again and goes on from what the log says."""
    bench = Bench(counting(), words())
    bench.told = failing(when, [CommitFailedError("unknown"), CommitFailedError("unknown")], after=1)
    bench.run(guarantee=guarantee)
    assert dict(bench.read()) == EXPECTED
    assert len(bench.read()) == len(EXPECTED), "a bounded run writes each key once"


@pytest.mark.parametrize("call", ["publisher.send", "publisher.flush"])
def test_outputs_of_a_producer_that_is_lost_are_sent_by_another(call: str) -> None:
    """Nothing was committed that it had not flushed; what it had may come twice."""
    bench = Bench(echo(), {"rows": [[(f"{number}", number) for number in range(200)]]})
    errors: list[StreamkitError] = [CommitFailedError("lost count")]
    bench.told = failing(call, errors, after=3)
    bench.run(guarantee="at-least-once", fetch_bytes_max=1)
    assert errors == []
    assert {value for _, value in bench.read()} == {f"{number}".encode() for number in range(200)}


def test_a_commit_that_fails_again_and_again_stops_the_worker() -> None:
    bench = Bench(counting(), words())
    errors: list[StreamkitError] = [CommitFailedError("unknown") for _ in range(100)]
    bench.told = failing("producer.commit", errors)
    with pytest.raises(CommitFailedError):
        bench.run()
    assert len(errors) > 70, "six of each of the four tasks at most"
    bench.told = lambda call: None
    bench.run()
    assert dict(bench.read()) == EXPECTED


@pytest.mark.parametrize("call", ["fetcher.fetch", "producer.send", "producer.commit", "producer.send_offsets"])
def test_a_broker_that_does_not_answer_for_a_while_is_asked_again(call: str) -> None:
    bench = Bench(counting(), words())
    bench.told = failing(call, [BrokerUnavailableError("no answer") for _ in range(8)], after=6)
    bench.run()
    assert dict(bench.read()) == EXPECTED
    assert len(bench.read()) == len(EXPECTED)


def test_a_broker_that_does_not_answer_while_a_task_is_opened_again_is_asked_again() -> None:
    bench = Bench(counting(), words())
    commit = failing("producer.commit", [CommitFailedError("unknown")], after=2)
    answers: list[StreamkitError] = [BrokerUnavailableError("no answer") for _ in range(4)]
    opening = failing("producer", answers, after=9)

    def told(call: str) -> None:
        commit(call)
        opening(call)

    bench.told = told
    bench.run()
    assert answers == []
    assert dict(bench.read()) == EXPECTED


def test_a_broker_that_never_answers_stops_the_worker_after_about_five_minutes() -> None:
    bench = Bench(counting(), words())
    bench.told = failing("fetcher.fetch", [BrokerUnavailableError("no answer") for _ in range(1000)])
    begin_ms = bench.clock.monotonic_ms()
    with pytest.raises(BrokerUnavailableError):
        bench.run()
    assert 240_000 < bench.clock.monotonic_ms() - begin_ms < 360_000


def test_an_error_that_nothing_answers_stops_at_once() -> None:
    bench = Bench(counting(), words())
    bench.told = failing("fetcher.fetch", [OffsetOutOfRangeError("the log begins later")], after=1)
    with pytest.raises(OffsetOutOfRangeError):
        bench.run()


def test_a_fetch_that_inflates_to_several_parts_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit.log.codec.INFLATED_BYTES_MAX", 1)
    bench = Bench(counting(), words())
    bench.run()
    assert dict(bench.read()) == EXPECTED


def trimmed(bench: Bench) -> bool:
    [topic] = [name for name in bench.broker.admin.describe_topics() if name.endswith("-repartition")]
    begins = bench.broker.admin.list_offsets({TopicPartition(topic, number): EARLIEST for number in range(2)})
    return any(begins.values())


def test_repartition_records_that_cannot_be_deleted_now_are_deleted_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker does not answer the first two times; the records only take room until the third."""
    monkeypatch.setattr("streamkit.runtime.trims._TRIM_BYTES", 1)
    bench = Bench(counting(), words())
    errors: list[StreamkitError] = [BrokerUnavailableError("no answer") for _ in range(2)]
    bench.told = failing("admin.delete_records", errors)
    bench.run(commit_bytes_max=100, fetch_bytes_max=300)
    assert errors == []
    assert caplog.text.count("stay in repartition topics for now: no answer") == 2
    assert trimmed(bench)
    assert dict(bench.read()) == EXPECTED


def test_a_broker_that_is_silent_about_deleting_holds_nothing_else_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers once five more transactions were committed, which are more than can have been under way."""
    monkeypatch.setattr("streamkit.runtime.trims._TRIM_BYTES", 1)
    bench = Bench(counting(), words())
    asked, going_on, commits = threading.Event(), threading.Event(), list[str]()

    def told(call: str) -> None:
        if call == "admin.delete_records" and not asked.is_set():
            asked.set()
            assert going_on.wait(60)
        elif call == "producer.commit" and asked.is_set():
            commits.append(call)
            if len(commits) == 5:
                going_on.set()

    bench.told = told
    bench.run(commit_bytes_max=100, fetch_bytes_max=300)
    assert going_on.is_set()
    assert dict(bench.read()) == EXPECTED


def test_a_refusal_to_delete_repartition_records_stops_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be refused for ever, and the topic would grow for ever."""
    monkeypatch.setattr("streamkit.runtime.trims._TRIM_BYTES", 1)
    bench = Bench(counting(), words())
    bench.told = failing("admin.delete_records", [BrokerError("not allowed")])
    with pytest.raises(BrokerError, match="not allowed"):
        bench.run()


@pytest.mark.parametrize("call", ["get_many", "write"])
def test_a_store_that_turns_out_damaged_is_restored_while_the_rest_goes_on(call: str) -> None:
    """While computing or while applying, with the task's commit under way or not."""
    for after in range(8):
        bench = Bench(counting(), words())
        stores = WatchedStores(failing(call, [StoreDamagedError("a block does not check")], after=after))
        bench.run(stores=stores)
        assert dict(bench.read()) == EXPECTED
        assert len(bench.read()) == len(EXPECTED)


def test_a_damaged_store_waits_for_the_commit_that_its_task_has_under_way() -> None:
    """The producer belongs to the commit until it ends; giving it up meanwhile would tear it."""
    job = Job("alone")
    job.stream("words", key=str, value=str).group_by_key().count(name="counts").to("out")
    bench = Bench(job, words(1))
    committing, failed, closing = threading.Event(), threading.Event(), threading.Event()
    closed_early = []

    def told(call: str) -> None:
        if call == "producer.commit" and not failed.is_set():
            committing.set()
            failed.wait(60)
            closing.wait(0.3)
            committing.clear()
        if call == "producer.close" and committing.is_set():
            closed_early.append(call)
            closing.set()

    def store_told(call: str) -> None:
        if call == "get_many" and committing.is_set() and not failed.is_set():
            failed.set()
            raise StoreDamagedError("a block does not check")

    bench.told = told
    bench.run(stores=WatchedStores(store_told), guarantee="at-least-once")
    assert failed.is_set()
    assert closed_early == []
    assert dict(bench.read()) == EXPECTED


def test_a_task_reads_no_further_than_one_commit_beyond_the_one_under_way() -> None:
    """Memory stays bounded however slow a commit is."""
    bench = Bench(counting(), words(1))
    most = [0]
    entered, release = threading.Event(), threading.Event()
    calls = [0]

    def told(call: str) -> None:
        if call == "producer.commit" and not entered.is_set():
            entered.set()
            release.wait(60)
        if call == "fetcher.fetch" and entered.is_set():
            calls[0] += 1
            if calls[0] == 40:
                source = next(runner for runner in bench.runners if runner.plan.sub.source_topics)
                most[0] = source.task.context.counters.records_in
                release.set()

    bench.told = told
    bench.run(fetch_bytes_max=1, commit_bytes_max=700)
    assert dict(bench.read()) == EXPECTED
    record_bytes = 70
    assert 0 < most[0] <= 2 * (700 // record_bytes + 2), f"{most[0]} records were read while a commit was under way"


def echo() -> Job:
    job = Job("echo")
    job.stream("rows", value=str).to("out")
    return job


def test_a_quiet_source_does_not_hold_up_others_after_a_restart() -> None:
    """Its watermark is known from before, what is left to read of it is nothing: it must not pause those ahead."""
    bench = Bench(echo(), {"rows": [[("a", 1_000)], [("b", 1_000)]]})
    stop = threading.Event()

    def until(count: int) -> Callable[[str], None]:
        def told(call: str) -> None:
            if call == "fetcher.fetch" and "out" in bench.broker.admin.describe_topics() and len(bench.read()) == count:
                stop.set()

        return told

    bench.told = until(2)
    bench.run(stop=stop, bounded=False, skew_max_ms=10)
    stop.clear()
    bench.send("rows", 0, [("c", 900_000)])
    bench.told = until(3)
    bench.run(stop=stop, bounded=False, skew_max_ms=10)
    stop.clear()
    bench.send("rows", 0, [("d", 950_000)])
    looks = [0]

    def limited(call: str) -> None:
        until(4)(call)
        looks[0] += call == "fetcher.fetch"
        if looks[0] > 500:
            stop.set()

    bench.told = limited
    bench.run(stop=stop, bounded=False, skew_max_ms=10)
    assert sorted(value or b"" for _, value in bench.read()) == [b"a", b"b", b"c", b"d"]


def test_a_source_ahead_in_event_time_is_paused_until_the_others_have_caught_up() -> None:
    """Partition 0 runs a hundred times faster in event time; without the pause it would be read as fast."""
    fast = [(f"f{number}", number * 1_000) for number in range(100)]
    slow = [(f"s{number}", number * 10) for number in range(100)]
    bench = Bench(echo(), {"rows": [fast, slow]})
    ahead = []

    def told(call: str) -> None:
        if call == "producer.commit.done":
            by_partition = [
                runner.task.input_watermark_ms(TopicPartition("rows", runner.plan.partition))
                for runner in bench.runners
            ]
            counts = [runner.task.context.counters.records_in for runner in bench.runners]
            if counts[1] and counts[1] < 100:
                ahead.append(by_partition[0] - by_partition[1])

    bench.told = told
    bench.run(fetch_bytes_max=1, commit_bytes_max=1, skew_max_ms=5_000)
    assert len(bench.read()) == 200
    # The limit, and the two record batches that may be queued and computing when it is reached.
    assert max(ahead) <= 5_000 + 2 * 1_000 + 1_000


def test_at_least_once_never_uses_its_publisher_from_two_threads_at_once() -> None:
    """One thread computes and sends while another waits for what was sent before."""
    bench = Bench(echo(), {"rows": [[(f"{number}", number) for number in range(200)]]})
    flushing, overlapped = threading.Event(), threading.Event()
    looked = []

    def told(call: str) -> None:
        if call == "publisher.flush" and not looked:
            looked.append(call)
            flushing.set()
            overlapped.wait(0.3)
            flushing.clear()
        if call == "publisher.send" and flushing.is_set():
            overlapped.set()

    bench.told = told
    bench.run(guarantee="at-least-once", fetch_bytes_max=1, commit_bytes_max=1)
    assert looked
    assert not overlapped.is_set()
    assert [value for _, value in bench.read()] == [f"{number}".encode() for number in range(200)]
