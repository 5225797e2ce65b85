"""A job that was edited between two runs: what kept its name keeps its state."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from edited_jobs import SAFE, Bid

from streamkit import Job, Stream
from streamkit.broker import Broker, open_broker
from streamkit.errors import TaskCorruptedError, TopologyError, UnknownTopicError
from streamkit.log import decode
from streamkit.records import EncodedRecords, TopicPartition
from streamkit.runtime import RunOptions, Worker
from streamkit.runtime.reading import read_to
from streamkit.runtime.restore import stateful_tasks
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph
from streamkit.topology.names import store_index

IN, OTHER, OUT = (TopicPartition(topic, 0) for topic in ("in", "other", "counts"))


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = open_broker("memory://")
    for place in (IN, OTHER):
        broker.admin.create_topic(place.topic, 1)
    yield broker
    broker.close()


def words_of(job: Job) -> Stream[None, str]:
    return job.stream(IN.topic, value=str)


def first_job() -> Job:
    job = Job("edited")
    words_of(job).group_by(str, name="by_word", shards=1).count(name="counts").to(OUT.topic)
    return job


def job_with_a_store_before() -> Job:
    job = Job("edited")
    by_word = words_of(job).group_by(str, name="by_word", shards=1)
    by_word.count(name="again").to("again")
    by_word.count(name="counts").to(OUT.topic)
    return job


def job_with_a_sub_topology_before() -> Job:
    job = Job("edited")
    words = words_of(job)
    job.stream(OTHER.topic, value=str).group_by(str, name="by_other", shards=1).count(name="others").to("others")
    words.group_by(str, name="by_word", shards=1).count(name="counts").to(OUT.topic)
    return job


def job_with_a_stateless_node_between() -> Job:
    job = Job("edited")
    words = words_of(job).filter(bool).map(str.lower)
    words.group_by(str, name="by_word", shards=1).count(name="counts").to(OUT.topic)
    return job


def send(broker: Broker, *words: str, keys: Sequence[bytes] | None = None) -> None:
    producer = broker.producer()
    encoded = [word.encode() for word in words]
    producer.send(
        IN, EncodedRecords.to_append(timestamps_ms=[0] * len(words), keys=keys or [None] * len(words), values=encoded)
    )
    producer.close()


def run(broker: Broker, job: Job, state_dir: str | None) -> None:
    options = RunOptions(bounded=True, go_on=True, state_dir=state_dir)
    topology = compile_graph(job.build())
    worker = Worker(topology, broker, options=options, fs=SystemFileSystem(), clock=SystemClock())
    assert worker.run(threading.Event()).finished


def counts_in(broker: Broker) -> list[tuple[bytes, bytes]]:
    fetcher = broker.fetcher()
    (fetched,) = fetcher.fetch({OUT: 0}, wait_ms=0, bytes_max=2**20)
    fetcher.close()
    records = decode(fetched.record_batches)
    return [(key or b"", value or b"") for key, value in zip(records.keys, records.values, strict=True)]


@pytest.mark.parametrize("kept", [True, False], ids=["directories kept", "directories lost"])
@pytest.mark.parametrize(
    "edited", [job_with_a_store_before, job_with_a_sub_topology_before, job_with_a_stateless_node_between]
)
def test_a_store_keeps_its_contents_when_something_is_defined_before_it(
    broker: Broker, edited: Callable[[], Job], kept: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The keys of a store were once led by its number in the job, so that another store took them over."""
    directories = [str(tmp_path_factory.mktemp("state")) for _ in range(2)]
    send(broker, "to", "to", "be")
    run(broker, first_job(), directories[0])
    send(broker, "to")
    run(broker, edited(), directories[0] if kept else directories[1])
    assert sorted(counts_in(broker)) == [(b"be", b"1"), (b"to", b"2"), (b"to", b"3")]


def upper_job(*shuffles: str) -> Job:
    """Return a job on the topic `in` that counts words behind each of the shuffles."""
    job = Job("edited")
    words = words_of(job)
    words.map(shouted).to("upper")
    for shuffle in shuffles:
        words.group_by(str, name=shuffle, shards=2).count(name=f"counts_{shuffle}").to(f"{OUT.topic}_{shuffle}")
    return job


def shouted(word: str) -> str:
    if word == "stop":
        raise Stop
    return word.upper()


class Stop(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("before", [(), ("one",)], ids=["the first shuffle", "one more"])
@pytest.mark.parametrize("more", [(), ("be",)], ids=["nothing came", "something came"])
def test_a_new_shuffle_on_a_source_that_was_read_begins_with_what_comes(
    broker: Broker, before: tuple[str, ...], more: tuple[str, ...]
) -> None:
    send(broker, "to", "be")
    run(broker, upper_job(*before), None)
    send(broker, *more)
    run(broker, upper_job(*before, "new"), None)
    send(broker, "to")
    run(broker, upper_job(*before, "new"), None)
    fetcher = broker.fetcher()
    places = [TopicPartition(f"{OUT.topic}_new", partition) for partition in range(2)]
    counted = [key for place in places for some in read_to(broker, fetcher, place, None) for key in some.keys]
    fetcher.close()
    assert counted == [*(word.encode() for word in more), b"to"]


def run_half(broker: Broker) -> None:
    """Begin a bounded run that stops in the second partition, when the first has ended."""
    producer = broker.producer()
    stop = EncodedRecords.to_append(timestamps_ms=[0], keys=[None], values=[b"stop"])
    producer.send(TopicPartition(IN.topic, 1), stop)
    producer.close()
    with pytest.raises(Stop):
        run(broker, upper_job(), None)


def test_a_new_shuffle_in_a_bounded_run_that_is_half_over_is_refused(broker: Broker) -> None:
    broker.admin.delete_topic(IN.topic)
    broker.admin.create_topic(IN.topic, 2)
    send(broker, "to", "be")
    run_half(broker)
    assert broker.group("edited").committed()[IN].offset == 2, "the first partition has ended"
    with pytest.raises(TopologyError, match="the shuffle 'new' is new") as caught:
        run(broker, upper_job("new"), None)
    assert "streamkit replay" in caught.value.hint


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("more", [(), ("be",)], ids=["nothing came", "something came"])
def test_a_shuffle_that_a_bounded_run_was_without_is_refused_when_it_is_back(
    broker: Broker, more: tuple[str, ...], bounded: bool
) -> None:
    """It waited for ever: nobody marks the end of a run in a shuffle after having ended without it."""
    send(broker, "to", "be")
    run(broker, upper_job("one"), None)
    send(broker, *more)
    run(broker, upper_job(), None)
    before = broker.group("edited").committed()
    topology, clock = compile_graph(upper_job("one").build()), SystemClock()
    options = RunOptions(bounded=bounded, go_on=bounded)
    with pytest.raises(TopologyError, match="the shuffle 'one' is back, and the last bounded run was") as caught:
        Worker(topology, broker, options=options, fs=SystemFileSystem(), clock=clock).run(threading.Event())
    assert "lacks the rows of that run: counts_one" in caught.value.detail
    assert "streamkit replay" in caught.value.hint
    assert broker.group("edited").committed() == before
    run(broker, upper_job("two"), None)


def test_a_shuffle_that_is_back_in_a_bounded_run_that_is_half_over_is_refused(broker: Broker) -> None:
    broker.admin.delete_topic(IN.topic)
    broker.admin.create_topic(IN.topic, 2)
    send(broker, "to")
    run(broker, upper_job("one"), None)
    send(broker, "be")
    run_half(broker)
    with pytest.raises(TopologyError, match=r"the shuffle 'one' is back.* has ended without it for in-0"):
        run(broker, upper_job("one"), None)


def counting(*, by: str = "by_word", store: str | None = "counts", keyed: bool = False) -> Job:
    job = Job("edited")
    words = job.stream(IN.topic, key=str, value=str)
    words.to("copies")
    if store is not None:
        group = words.group_by_key() if keyed else words.group_by(str, name=by, shards=1)
        group.count(name=store).to(OUT.topic)
    return job


@pytest.mark.parametrize(
    ("was", "now", "left"),
    [
        (counting(), counting(store="sums"), "edited-counts-changelog"),
        (counting(keyed=True), counting(keyed=True, store="sums"), "edited-counts-changelog"),
        (counting(keyed=True), counting(store=None), "edited-counts-changelog"),
    ],
    ids=["a store renamed", "a keyed store renamed", "a store removed"],
)
def test_what_a_store_or_shuffle_has_left_behind_is_named_where_its_absence_shows(
    broker: Broker, tmp_path: Path, was: Job, now: Job, left: str
) -> None:
    send(broker, "to", "be", keys=[b"a", b"b"])
    run(broker, was, str(tmp_path / "one"))
    with pytest.raises(TaskCorruptedError) as caught:
        run(broker, now, str(tmp_path / "two"))
    assert f"no store or shuffle of the job is behind {left}: one was renamed or removed" in str(caught.value)
    assert "name= keeps" in caught.value.hint
    assert "replay" in caught.value.hint
    run(broker, was, str(tmp_path / "three"))


@pytest.mark.parametrize("bounded", [True, False])
def test_a_shuffle_that_was_renamed_is_refused_before_anything_is_done(broker: Broker, bounded: bool) -> None:
    """Not where a task finds out: others would have ended a run by then that the job as it was never ends."""
    send(broker, "to", "be", keys=[b"a", b"b"])
    run(broker, counting(), None)
    before = broker.group("edited").committed()
    options = RunOptions(bounded=bounded, go_on=bounded)
    topology, fs, clock = compile_graph(counting(by="by").build()), SystemFileSystem(), SystemClock()
    with pytest.raises(
        TopologyError, match="the shuffle 'by' is new, and the store 'counts' behind it is not"
    ) as caught:
        Worker(topology, broker, options=options, fs=fs, clock=clock).run(threading.Event())
    assert "behind edited-by_word-repartition" in caught.value.detail
    assert "name= keeps" in caught.value.hint
    assert broker.group("edited").committed() == before
    send(broker, "to", keys=[b"a"])
    run(broker, counting(), None)
    assert counts_in(broker)[-1] == (b"to", b"2")


def test_a_store_that_was_renamed_has_no_changelog_to_restore(broker: Broker) -> None:
    with pytest.raises(UnknownTopicError, match="is made by the first run"):
        stateful_tasks(compile_graph(counting().build()), broker)
    send(broker, "to", keys=[b"a"])
    run(broker, counting(), None)
    with pytest.raises(UnknownTopicError, match="behind edited-counts-changelog") as caught:
        stateful_tasks(compile_graph(counting(store="sums").build()), broker)
    assert "name= keeps" in caught.value.hint


def test_two_names_with_one_store_index_are_refused() -> None:
    seen: dict[int, str] = {}
    for number in itertools.count():
        one, other = seen.setdefault(store_index(f"store_{number}"), f"store_{number}"), f"store_{number}"
        if one != other:
            break
    job = Job("clash")
    by_word = words_of(job).group_by(str, name="by_word")
    by_word.count(name=one)
    by_word.count(name=other)
    with pytest.raises(TopologyError, match=f"'{one}' and '{other}' of job 'clash' would share their keys"):
        compile_graph(job.build())


@pytest.mark.parametrize("jobs", SAFE.values(), ids=SAFE)
def test_what_the_lock_calls_safe_runs_on_from_where_the_job_was(
    broker: Broker, jobs: Callable[[], tuple[Job, Job]]
) -> None:
    was, now = jobs()
    sources = {"bids": b"", "others": b"", "more": b"", "words": b""}
    for topic in sources:
        broker.admin.create_topic(topic, 1)
    for job, price in ((was, 5), (now, 7)):
        bid = msgspec.json.encode(Bid(auction=1, price=price, at=price * 1000))
        producer = broker.producer()
        for topic in sources:
            records = EncodedRecords.to_append(timestamps_ms=[0], keys=[None], values=[bid])
            producer.send(TopicPartition(topic, 0), records)
        producer.close()
        run(broker, job, None)
    committed = broker.group("edited").committed()
    assert committed[TopicPartition("bids", 0)].offset == 2
