"""What happened to a changelog's entries is seen, whatever it was."""

from collections.abc import Callable

import pytest

from streamkit.state import EntriesDigest
from streamkit.state.entries import FlatEntries

Entries = list[tuple[bytes, bytes | None]]
ENTRIES: Entries = [(b"ann", b"3"), (b"bob", None), (b"carl", b"5"), (b"dora", b"")]


def digest_of(*parts: Entries) -> str:
    digest = EntriesDigest()
    for part in parts:
        digest.add([key for key, _ in part], [value for _, value in part])
    return digest.to_text()


@pytest.mark.parametrize("cut", range(len(ENTRIES) + 1))
def test_how_the_entries_come_in_parts_does_not_matter(cut: int) -> None:
    assert digest_of(ENTRIES[:cut], ENTRIES[cut:]) == digest_of(ENTRIES)


FAULTS: dict[str, Callable[[Entries], Entries]] = {
    "a flipped value": lambda entries: [(b"ann", b"2"), *entries[1:]],
    "a lost entry": lambda entries: entries[:2] + entries[3:],
    "a doubled entry": lambda entries: [entries[0], *entries],
    "two swapped entries": lambda entries: [entries[1], entries[0], *entries[2:]],
    "two swapped values": lambda entries: [(b"ann", b"5"), entries[1], (b"carl", b"3"), entries[3]],
    "a tombstone that became empty": lambda entries: [entries[0], (b"bob", b""), *entries[2:]],
    "an empty value that became a tombstone": lambda entries: [*entries[:3], (b"dora", None)],
    "a byte moved from key to value": lambda entries: [(b"an", b"n3"), *entries[1:]],
    "a byte moved to the next key": lambda entries: [(b"an", b"3"), (b"nbob", None), *entries[2:]],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str) -> None:
    assert digest_of(FAULTS[fault](ENTRIES)) != digest_of(ENTRIES)


def test_the_text_has_version_and_count() -> None:
    assert digest_of(ENTRIES).startswith("1:4:")


def test_flat_entries_give_back_what_was_put_in_though_several_are_joined() -> None:
    keys, values = [b"a", b"", b"bc", b"d"], [b"1", b"", None, b"\0"]
    parts = [FlatEntries.of(keys[:1], values[:1]), FlatEntries.of([], []), FlatEntries.of(keys[1:], values[1:])]
    assert FlatEntries.joined(parts).columns() == (keys, values)
    assert FlatEntries.joined([]).columns() == ([], [])


def test_the_digest_of_flat_entries_is_that_of_their_columns() -> None:
    keys, values = [b"a", b"bc"], [b"1", None]
    flat, columns = EntriesDigest(), EntriesDigest()
    flat.add_flat(FlatEntries.of(keys, values))
    columns.add(keys, values)
    assert flat.to_text() == columns.to_text()
