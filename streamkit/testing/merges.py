"""Checks a user's `merge=`: combining before a shuffle is right only if it is exact, associative and commutative."""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["check_merge"]

A = TypeVar("A")
V = TypeVar("V")


def check_merge(
    fn: Callable[[A, V], A], *, initial: Callable[[], A], merge: Callable[[A, A], A], values: Sequence[V]
) -> None:
    """Check that every way of cutting and ordering `values` gives one result.

    Args:
        fn: The step of the aggregate.
        initial: Its start value.
        merge: Its merge.
        values: Some values, at most 6 (all their orders are tried).

    Raises:
        AssertionError: Two ways differ; the message shows both.

    Example:
        >>> import operator
        >>> check_merge(lambda total, word: total + 1, initial=int, merge=operator.add, values=["to", "be", "or"])
    """
    assert len(values) <= 6, "all orders of more than 6 values are too many"

    def folded(some: Sequence[V]) -> A:
        total = initial()
        for value in some:
            total = fn(total, value)
        return total

    expected = folded(values)
    for order in itertools.permutations(values):
        for first, second in itertools.combinations_with_replacement(range(len(order) + 1), 2):
            one, two, three = (folded(part) for part in (order[:first], order[first:second], order[second:]))
            left = merge(merge(copy.deepcopy(one), copy.deepcopy(two)), copy.deepcopy(three))
            right = merge(copy.deepcopy(one), merge(copy.deepcopy(two), copy.deepcopy(three)))
            for made in (left, right):
                assert made == expected, (
                    f"{made!r} instead of {expected!r}, from {order[:first]!r}, {order[first:second]!r}, "
                    f"{order[second:]!r} folded apart and merged"
                )
