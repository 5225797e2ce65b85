"""Which worker runs which task: weighted rendezvous hashing with bounded load, pure.

Each worker has a quota, which depends on the workers' weights and the number of tasks alone. A task stays with its
owner while the quota has room for it; any other goes to the worker that ranks highest for it among those with room.
The quotas are whole numbers given out one after the other to whoever has the largest weight for each task so far
(Adams' method), so:

- a quota is never above the worker's weighted share of the tasks, rounded up;
- with another worker among them, no quota grows; with one less, none shrinks.

Hence, from an assignment that this module made, a new worker takes at most its weighted share, rounded up (of `t` tasks
beside `n` equal workers `ceil(t / (n + 1))`), and nothing else moves; where a worker left, only its own tasks move. A
task is the unit, so all partitions that one task reads move together.

Not here: who is a member (`Membership`), what happens to a task that moves (`runtime`).

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates"; Mirrokni, Thorup and Zadimoghaddam,
"Consistent hashing with bounded loads"; Balinski and Young, "Fair representation", for the quotas.
"""

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import xxhash

from streamkit.broker.protocols import Member

__all__ = ["assign_tasks", "distinct_members", "moved_tasks", "quotas_of"]


def assign_tasks(members: Sequence[Member], tasks: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the tasks of each member, sorted, by its id.

    The order of members and tasks does not matter, and members that own nothing yet get the same tasks every time.

    Args:
        members: Ids must be unique. Of two that claim one task, the one with the later generation owned it.
        tasks: All that there are. What a member claims beyond them is forgotten.

    Cost: linear in `len(members) * len(tasks)`.
    """
    if not members:
        return {}
    ids = {member.id for member in members}
    assert len(ids) == len(members), "members that bear one id are told apart by distinct_members"
    room = quotas_of({member.id: member.weight for member in members}, len(set(tasks)))
    placed: dict[str, list[str]] = {member.id: [] for member in members}
    weights = {member.id: member.weight for member in members}
    owners = _owners(members)
    free = []
    for task in sorted(set(tasks), key=lambda task: _claim(task, owners.get(task), weights)):
        owner = owners.get(task)
        if owner is not None and room[owner]:
            placed[owner].append(task)
            room[owner] -= 1
        else:
            free.append(task)
    for task in sorted(free, key=lambda task: (_hash(task), task)):
        best = max((one for one in ids if room[one]), key=lambda one: (_score(one, weights[one], task), one))
        placed[best].append(task)
        room[best] -= 1
    return {member: tuple(sorted(placed[member])) for member in sorted(placed)}


def quotas_of(weights: Mapping[str, int], task_count: int) -> dict[str, int]:
    """Return how many tasks each member gets; the sum is `task_count` if there is a member.

    Args:
        weights: Of each member, at least 1.
        task_count: How many tasks there are.
    """
    assert all(weight >= 1 for weight in weights.values()), "a weight is at least 1"
    quotas = dict.fromkeys(weights, 0)
    # Whoever has nothing comes first; then whoever has the largest weight for each task that it has.
    waiting: list[tuple[int, Fraction, int, str]] = [
        (0, Fraction(-weight), _hash(member), member) for member, weight in weights.items()
    ]
    heapq.heapify(waiting)
    for _ in range(task_count if waiting else 0):
        _, _, tie, member = waiting[0]
        quotas[member] += 1
        heapq.heapreplace(waiting, (1, Fraction(-weights[member], quotas[member]), tie, member))
    return quotas


def distinct_members(members: Mapping[str, Member]) -> dict[str, Member]:
    """Return the members with ids that differ: the second one to bear an id gets `#2` behind it, and so on.

    Args:
        members: By what the broker knows them by, which is unique; its order says who keeps the id.
    """
    taken, distinct = {member.id for member in members.values()}, dict[str, Member]()
    kept = set[str]()
    for key, member in sorted(members.items()):
        named, number = member.id, 1
        while named in kept or (number > 1 and named in taken):
            number += 1
            named = f"{member.id}#{number}"
        kept.add(named)
        distinct[key] = replace(member, id=named)
    return distinct


def moved_tasks(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, str]]:
    """Return the tasks whose owner changes, each with its owners before and after."""
    owners = {task: member for member, tasks in before.items() for task in tasks}
    return {
        task: (owners[task], member)
        for member, tasks in after.items()
        for task in tasks
        if owners.get(task, member) != member
    }


def _owners(members: Sequence[Member]) -> dict[str, str]:
    owners: dict[str, tuple[int, str]] = {}
    for member in members:
        for task in member.tasks:
            owners[task] = max(owners.get(task, (-1, "")), (member.generation, member.id))
    return {task: owner for task, (_, owner) in owners.items()}


def _claim(task: str, owner: str | None, weights: Mapping[str, int]) -> tuple[float, str]:
    """Order the tasks of an owner that must give some up: those that rank it highest stay."""
    return (0.0 if owner is None else -_score(owner, weights[owner], task), task)


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def _score(member: str, weight: int, task: str) -> float:
    """Return the rank of a member for a task: the larger, the better; proportional to weight on average."""
    unit = (_hash(f"{len(member)}:{member}{task}") + 0.5) / 2.0**64
    return -weight / math.log(min(unit, 1.0 - 2.0**-53))
