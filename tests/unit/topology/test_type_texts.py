"""What of a type shows in its text."""

from typing import Annotated, Any, Literal

import msgspec
import pytest

from streamkit.serde import key_serde, value_serde
from streamkit.topology.type_texts import type_text


class Item(msgspec.Struct):
    name: str
    within: "Item | None" = None


class Other(msgspec.Struct):
    name: str
    within: "Item | None" = None


class Words:
    def encode(self, value: Any) -> bytes | None:
        return str(value).encode()

    def decode(self, data: bytes | None) -> Any:
        return data


def test_types_without_anything_within_are_called_as_the_serde_calls_them() -> None:
    assert [type_text(type_, value_serde(type_)) for type_ in (int, str, None)] == ["int", "str", "JSON"]
    assert type_text(None, key_serde(None)) == key_serde(None).name
    assert type_text(Words(), value_serde(Words())) == "Words"


def test_a_row_within_itself_has_an_end() -> None:
    said = "Item(fields [name: str, within?: union(types [Item, none])])"
    assert type_text(Item, value_serde(Item)) == said


def row(name: str, **more: Any) -> Any:
    return msgspec.defstruct("Row", [(name, int), ("more", more.pop("type", str), *more.pop("default", ()))], **more)


SAME = row("a")


@pytest.mark.parametrize(
    "other",
    [
        row("b"),
        row("a", type=bytes),
        row("a", type=list[int]),
        row("a", type=Literal["a"]),
        row("a", type=Annotated[str, msgspec.Meta(max_length=3)]),
        row("a", default=("",)),
        row("a", tag="row"),
        row("a", array_like=True),
        row("a", rename="camel", type=str, forbid_unknown_fields=True),
    ],
)
def test_types_of_one_name_differ_in_what_is_in_them_however_deep(other: Any) -> None:
    def text(type_: Any) -> str:
        deep = dict[str, list[type_]]
        return type_text(deep, value_serde(deep)).partition(" as ")[2]

    assert text(SAME) == text(row("a"))
    assert text(other) != text(SAME)


def test_two_literals_and_two_unions_differ() -> None:
    kinds = [Literal["a"], Literal["b"], Literal["a", "b"], int | None, int | bool | None, tuple[int, str]]
    texts = [type_text(kind, value_serde(kind)) for kind in kinds]
    assert len(set(texts)) == len(kinds)
