"""What every broker promises about the members of a group: a task has one owner, and who comes or goes is seen."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from streamkit.broker import Broker, open_broker
from streamkit.broker.assignment import assign_tasks
from streamkit.broker.protocols import Member, Membership

TASKS = [f"0_{partition}" for partition in range(6)]


def assign(members: Sequence[Member]) -> Mapping[str, Sequence[str]]:
    return assign_tasks(members, TASKS)


@pytest.fixture(params=["memory", "log"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    opened = open_broker("memory://" if request.param == "memory" else f"log://{tmp_path}/log")
    opened.admin.create_topic("rows", 6)
    yield opened
    opened.close()


def join(broker: Broker, name: str) -> Membership:
    return broker.join("job", ["rows"], Member(id=name), assign)


def tasks_of(membership: Membership) -> set[str]:
    assignment = membership.assignment()
    assert assignment is not None
    return set(assignment.tasks)


def test_a_single_member_has_everything_at_once_in_generation_1(broker: Broker) -> None:
    assignment = join(broker, "host-0").assignment()
    assert assignment is not None
    assert (assignment.generation, assignment.tasks) == (1, frozenset(TASKS))


def test_members_share_the_tasks_and_each_change_is_one_generation(broker: Broker) -> None:
    one = join(broker, "host-0")
    two = join(broker, "host-1")
    assert tasks_of(one) | tasks_of(two) == set(TASKS)
    assert len(tasks_of(one)) == len(tasks_of(two)) == 3
    generations = [getattr(each.assignment(), "generation", None) for each in (one, two)]
    assert generations == [2, 2]
    two.leave()
    two.leave()
    assignment = one.assignment()
    assert assignment is not None
    assert (assignment.generation, assignment.tasks) == (3, frozenset(TASKS))


def test_a_task_stays_where_it_is_when_a_third_member_comes(broker: Broker) -> None:
    one, two = join(broker, "host-0"), join(broker, "host-1")
    before = tasks_of(one), tasks_of(two)
    three = join(broker, "host-2")
    assert tasks_of(one) < before[0]
    assert tasks_of(two) < before[1]
    assert len(tasks_of(three)) == 2


def test_members_that_bear_one_id_share_all_the_same(broker: Broker) -> None:
    one, two = join(broker, "host-0"), join(broker, "host-0")
    assert tasks_of(one) | tasks_of(two) == set(TASKS)
    assert not tasks_of(one) & tasks_of(two)


def test_groups_do_not_know_of_each_other(broker: Broker) -> None:
    one = join(broker, "host-0")
    other = broker.join("another", ["rows"], Member(id="host-0"), assign)
    assert tasks_of(one) == tasks_of(other) == set(TASKS)


def test_a_group_tells_its_members_with_their_tasks(broker: Broker) -> None:
    assert broker.group("job").members() == []
    one, two = join(broker, "host-0"), join(broker, "host-1")
    members = {member.id: set(member.tasks) for member in broker.group("job").members()}
    assert members == {"host-0": tasks_of(one), "host-1": tasks_of(two)}
