"""Which types have an order of their own, and that sets are written in one order."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from streamkit.serde import value_serde
from streamkit.serde.orders import holds_sets, in_one_order


class Leaf(msgspec.Struct):
    n: int
    children: "list[Leaf] | None" = None


@dataclass
class Tagged:
    leaf: Leaf
    tags: frozenset[str]


@pytest.mark.parametrize("type_", [int, str | None, list[float], tuple[int, str], Leaf])
def test_scalars_lists_and_rows_of_them_have_one_order(type_: Any) -> None:
    assert in_one_order(type_)
    assert not holds_sets(type_)


@pytest.mark.parametrize("type_", [dict, dict[str, int], list[dict[str, int]], set[int], Tagged, Any, tuple[Any, ...]])
def test_dicts_sets_and_what_may_be_one_have_none(type_: Any) -> None:
    assert not in_one_order(type_)


@pytest.mark.parametrize("type_", [set, set[str], list[frozenset[int]], dict[str, set[int]], Tagged])
def test_a_set_is_found_wherever_it_is_declared(type_: Any) -> None:
    assert holds_sets(type_)


def test_a_set_is_written_in_one_order() -> None:
    names = [f"name {number}" for number in range(50)]
    one, other = set(names), {*names[::-1]}
    serde = value_serde(set[str])
    assert serde.encoded_from_objects([one]) == serde.encoded_from_objects([other])
    assert msgspec.json.decode(serde.encoded_from_objects([one])[0] or b"") == sorted(names)


def test_a_dict_of_a_value_is_written_as_it_was_filled() -> None:
    assert value_serde(dict[str, int]).encoded_from_objects([{"b": 1, "a": 2}]) == [b'{"b":1,"a":2}']
