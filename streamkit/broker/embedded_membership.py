"""Who is a member of which group on an embedded log: the workers that have this log open.

The log is open in one process, so a group needs no heartbeats: whoever joins or leaves makes the next generation, and
every member has its assignment at once.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from streamkit.broker.assignment import distinct_members
from streamkit.broker.protocols import Assign, Assignment, Member

__all__ = ["EmbeddedMembership", "EmbeddedMemberships"]


@dataclass(slots=True)
class _Group:
    generation: int = 0
    members: dict[int, Member] = field(default_factory=dict)
    assignments: dict[int, Assignment] = field(default_factory=dict)


class EmbeddedMemberships:
    """The groups of one open log; safe from several threads."""

    def __init__(self) -> None:
        """Begin without members."""
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}
        self._joined_count = 0

    def join(self, name: str, member: Member, assign: Assign) -> "EmbeddedMembership":
        """Become a member; the assignment is there when this returns."""
        with self._lock:
            self._joined_count += 1
            group = self._groups.setdefault(name, _Group())
            group.members[self._joined_count] = member
            self._rebalance(group, assign)
            return EmbeddedMembership(self, name, self._joined_count, assign)

    def assignment(self, name: str, number: int) -> Assignment:
        """Return the newest assignment of a member."""
        with self._lock:
            return self._groups[name].assignments[number]

    def leave(self, name: str, number: int, assign: Assign) -> None:
        """Give a member's tasks to the others."""
        with self._lock:
            group = self._groups[name]
            if group.members.pop(number, None) is not None and group.members:
                self._rebalance(group, assign)

    def members(self, name: str) -> list[Member]:
        """Return the members of a group with their tasks."""
        with self._lock:
            return list(self._groups.get(name, _Group()).members.values())

    def _rebalance(self, group: _Group, assign: Assign) -> None:
        group.generation += 1
        # Keys of one length, so that the order of joining is their order.
        named = distinct_members({f"{number:020}": member for number, member in group.members.items()})
        placed = assign(list(named.values()))
        for number, member in group.members.items():
            tasks: Sequence[str] = placed.get(named[f"{number:020}"].id, ())
            group.members[number] = replace(member, tasks=tuple(sorted(tasks)), generation=group.generation)
            group.assignments[number] = Assignment(generation=group.generation, tasks=frozenset(tasks))


class EmbeddedMembership:
    """One member of a group; see the `Membership` protocol."""

    def __init__(self, memberships: EmbeddedMemberships, name: str, number: int, assign: Assign) -> None:
        """Stand for the member that has this number."""
        self._memberships, self._name, self._number, self._assign = memberships, name, number, assign

    def assignment(self) -> Assignment:
        """Return the newest assignment; the last one, after leaving."""
        return self._memberships.assignment(self._name, self._number)

    def leave(self) -> None:
        """Give the tasks to the others; leaving twice does nothing."""
        self._memberships.leave(self._name, self._number, self._assign)
