"""Members of a real group: who gets what, and workers that come and go."""

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence

import pytest
from workers import WAIT_SECONDS, read, running, send, until, worker

from streamkit import Job
from streamkit.broker import Broker, CommittedOffset
from streamkit.broker.assignment import assign_tasks
from streamkit.broker.kafka import KafkaBroker, KafkaSettings
from streamkit.broker.protocols import Member, Membership
from streamkit.errors import BrokerError
from streamkit.records import TopicPartition
from streamkit.runtime import Summary

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TASKS = [f"0_{partition}" for partition in range(6)]


def assign(members: Sequence[Member]) -> Mapping[str, Sequence[str]]:
    return assign_tasks(members, TASKS)


@pytest.fixture
def name() -> str:
    return f"job-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def brokers(request: pytest.FixtureRequest, kafka: str, name: str) -> Iterator[list[Broker]]:
    """Three clients of one cluster, as three processes would have; a busy machine costs none its session."""
    settings = KafkaSettings(bootstrap=kafka, session_timeout_ms=getattr(request, "param", 10_000))
    opened: list[Broker] = [KafkaBroker(settings) for _ in range(3)]
    opened[0].admin.create_topic(f"{name}-rows", 6)
    yield opened
    for broker in opened:
        broker.close()


def tasks_of(membership: Membership) -> set[str]:
    assignment = membership.assignment()
    return set() if assignment is None else set(assignment.tasks)


def generation_of(membership: Membership) -> int:
    assignment = membership.assignment()
    return 0 if assignment is None else assignment.generation


def test_members_share_the_tasks_and_what_stays_does_not_move(brokers: list[Broker], name: str) -> None:
    members = [brokers[0].join(name, [f"{name}-rows"], Member(id="host-0"), assign)]
    until(lambda: tasks_of(members[0]) == set(TASKS))
    members.append(brokers[1].join(name, [f"{name}-rows"], Member(id="host-1"), assign))
    until(lambda: [len(tasks_of(one)) for one in members] == [3, 3])
    assert generation_of(members[0]) == generation_of(members[1]) == 2
    before = [tasks_of(one) for one in members]
    members.append(brokers[2].join(name, [f"{name}-rows"], Member(id="host-2"), assign))
    until(lambda: [len(tasks_of(one)) for one in members] == [2, 2, 2])
    assert tasks_of(members[0]) < before[0]
    assert tasks_of(members[1]) < before[1]
    described = {member.id: set(member.tasks) for member in brokers[1].group(name).members()}
    assert described == {f"host-{number}": tasks_of(members[number]) for number in range(3)}
    members[2].leave()
    until(lambda: [len(tasks_of(one)) for one in members[:2]] == [3, 3])
    assert tasks_of(members[0]) | tasks_of(members[1]) == set(TASKS)
    brokers[1].close()
    until(lambda: tasks_of(members[0]) == set(TASKS))


@pytest.mark.parametrize("brokers", [3000], indirect=True, ids=["session of 3 s"])
def test_a_member_out_of_reach_for_longer_than_its_session_loses_its_tasks_and_joins_again(
    brokers: list[Broker], name: str
) -> None:
    """Its client's loop hangs, as a stopped process would; it knows by the generations that it missed one."""
    one = brokers[0].join(name, [f"{name}-rows"], Member(id="host-0"), assign)
    two = brokers[1].join(name, [f"{name}-rows"], Member(id="host-1"), assign)
    until(lambda: [len(tasks_of(each)) for each in (one, two)] == [3, 3])
    hang, generation = threading.Event(), generation_of(one)
    client = brokers[0]
    assert isinstance(client, KafkaBroker)
    client._thread.post(lambda: hang.wait(2 * WAIT_SECONDS) and None)
    until(lambda: tasks_of(two) == set(TASKS))
    assert len(tasks_of(one)) == 3
    assert generation_of(one) == generation, "it cannot know yet"
    hang.set()
    # The other one has given three back before this one knows what it lost.
    until(lambda: generation_of(one) == generation_of(two) > generation + 1)
    until(lambda: [len(tasks_of(each)) for each in (one, two)] == [3, 3])


def test_offsets_in_a_transaction_are_committed_while_the_group_has_members(brokers: list[Broker], name: str) -> None:
    """A task's producer is no member. A plain commit is refused, which is why a run is fixed in a transaction."""
    place = TopicPartition(f"{name}-rows", 0)
    member = brokers[0].join(name, [f"{name}-rows"], Member(id="host-0"), assign)
    until(lambda: tasks_of(member) == set(TASKS))
    with pytest.raises(BrokerError):
        brokers[1].group(name).commit({place: CommittedOffset(offset=3)})
    producer = brokers[1].producer(f"{name}-0_0")
    producer.begin()
    producer.send_offsets(name, {place: CommittedOffset(offset=5, metadata="note")})
    producer.commit()
    until(lambda: brokers[0].group(name).committed().get(place) == CommittedOffset(offset=5, metadata="note"))


def test_workers_on_kafka_take_over_from_each_other_and_nothing_is_lost_or_comes_twice(
    brokers: list[Broker], name: str
) -> None:
    job = Job(name)
    job.stream(f"{name}-rows", value=str).to(f"{name}-out")
    producer, sent, steps, taken = brokers[2].producer(), [0], list[str](), list[str]()

    def more(count: int) -> None:
        for _ in range(count):
            send(producer, TopicPartition(f"{name}-rows", sent[0] % 6), None, b"%d" % sent[0])
            sent[0] += 1
        producer.flush()

    def arrived() -> bool:
        return f"{name}-out" in brokers[2].admin.describe_topics() and len(read(brokers[2], f"{name}-out")) >= sent[0]

    with running(worker(job, brokers[0], observe=steps.append, worker_id="one")) as (_, first):
        more(60)
        until(arrived)
        with running(worker(job, brokers[1], observe=taken.append, worker_id="two")) as (_, second):
            more(60)
            until(lambda: taken.count("opened") == 3)
            until(arrived)
            more(60)
            until(arrived)
        more(60)
        until(arrived)
    assert isinstance(first[0], Summary)
    assert isinstance(second[0], Summary)
    assert first[0].records_in + second[0].records_in == sent[0]
    assert sorted(int(value or b"") for _, value, _ in read(brokers[2], f"{name}-out")) == list(range(sent[0]))
    assert steps.count("opened") == 9, "six, and three again; those that stayed were not opened anew"


def test_workers_on_kafka_finish_a_bounded_run_together(brokers: list[Broker], name: str) -> None:
    job = Job(name)
    job.stream(f"{name}-rows", value=str).to(f"{name}-out")
    producer = brokers[0].producer()
    for number in range(120):
        send(producer, TopicPartition(f"{name}-rows", number % 6), None, b"%d" % number)
    producer.flush()
    one, two = (worker(job, brokers[number], bounded=True, worker_id=f"host-{number}") for number in range(2))
    with running(one) as (_, first), running(two) as (_, second):
        until(lambda: bool(first) and bool(second))
    summaries = [first[0], second[0]]
    assert all(isinstance(one, Summary) and (one.finished or one.already_finished) for one in summaries)
    assert sorted(int(value or b"") for _, value, _ in read(brokers[2], f"{name}-out")) == list(range(120))
