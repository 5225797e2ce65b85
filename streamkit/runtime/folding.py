"""Folds one changelog partition into a store: the last value of each key, in sorted tables, and whether it is whole.

Some megabytes of entries are held in memory, sorted, and handed to the store as one table; a later table hides what an
earlier one says of the same key, so nothing is merged here and memory is bounded whatever the changelog's length.

On the way every transaction is held against what its position says of it: the numbers of transactions follow each
other, and the entries have the digest that was taken when they were written.

Not here: whose changelog it is, and where the store lies (`restore`).
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

import orjson

from streamkit.log import DecodedRecords
from streamkit.records import TopicPartition
from streamkit.runtime.position import Position
from streamkit.state import POSITION_KEY, EntriesDigest, StateStore, split_window_key, store_range
from streamkit.state.entries import FlatEntries
from streamkit.state.ranges import KeyRange
from streamkit.topology import StoreSpec

__all__ = ["ChangelogFold", "Fault", "shown_key"]

FOLD_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a changelog, or with a store beside it.

    Args:
        store: The store's name.
        where: The partition and, where one is known, the offset, or the task.
        reason: What it is.
        keys: The store keys that are concerned; None where nobody can say.
    """

    store: StoreSpec
    where: str
    reason: str
    keys: KeyRange | None = None

    def __str__(self) -> str:
        """Return it as one line."""
        line = f"store {self.store.name}, {self.where}: {self.reason}"
        return line if self.keys is None else f"{line}; {_shown_range(self.store, self.keys)}"


def _shown_range(store: StoreSpec, keys: KeyRange) -> str:
    """Return a range of store keys as a person reads it: a bound that shuts out no key of the store is none."""
    first, behind = store_range(store.index)
    from_first, to_last = keys.begin <= first, keys.end is None or keys.end >= behind
    if from_first and to_last:
        return "all keys"
    begin = "the first" if from_first else shown_key(store, keys.begin)
    end = "to the last" if keys.end is None or to_last else f"up to {shown_key(store, keys.end)}"
    return f"keys from {begin} {end}"


def shown_key(store: StoreSpec, key: bytes) -> str:
    """Return a store key as a person reads it: the record's key, and the window's end."""
    if store.windowed and len(key) >= len(_LOWEST_WINDOW_KEY):
        _, end_ms, record_key = split_window_key(key)
        return f"{record_key.decode('utf-8', 'backslashreplace')!r} of the window that ends at {end_ms} ms"
    return repr(key[2:].decode("utf-8", "backslashreplace"))


_LOWEST_WINDOW_KEY: Final = bytes(10)


def _places_of(wanted: bytes, keys: list[bytes]) -> Iterator[int]:
    at = -1
    for _ in range(keys.count(wanted)):
        at = keys.index(wanted, at + 1)
        yield at


def _without_tombstones(entries: list[FlatEntries]) -> list[FlatEntries]:
    if not any((part.lengths < 0).any() for part in entries):
        return entries
    latest = {key: value for part in entries for key, value in zip(*part.columns(), strict=True)}
    left = {key: value for key, value in latest.items() if value is not None}
    return [FlatEntries.of(list(left), list(left.values()))]


class ChangelogFold:
    """The fold of one changelog partition.

    Args:
        spec: The store.
        place: The partition.
        store: Takes the tables.
        begin_offset: The partition's first offset, of which the store has nothing yet; None if the store has what lies
            below the first record. Then nobody can say whether the first transaction is whole.
        complete: Whether every transaction of the task has a position here: it is the first store of its task.
        fold_bytes_max: How much is held in memory.
    """

    def __init__(
        self,
        spec: StoreSpec,
        place: TopicPartition,
        store: StateStore,
        *,
        begin_offset: int | None,
        complete: bool,
        fold_bytes_max: int = FOLD_BYTES_MAX,
    ) -> None:
        """Start with nothing folded."""
        self.spec, self.place, self._store = spec, place, store
        self._begin_offset, self._complete, self._fold_bytes_max = begin_offset, complete, fold_bytes_max
        self._held: list[FlatEntries] = []
        self._held_bytes, self._first_table = 0, begin_offset is not None
        self._entries = EntriesDigest()
        self._transaction_keys: list[list[bytes]] = []
        self.record_count = 0
        self.position: Position | None = None
        self.stamp_place: tuple[int, int] | None = None
        """Offset and CRC-32 of the last position record."""
        self.faults: list[Fault] = []

    def take(self, records: DecodedRecords) -> None:
        """Fold what comes next."""
        keys, values = self._keyed(records)
        start, held_count = 0, len(self._held)
        for at in _places_of(POSITION_KEY, keys):
            self._fold(keys[start:at], values[start:at])
            self.record_count += 1
            self._take_position(int(records.offsets[at]), values[at])
            start = at + 1
        self._fold(keys[start:], values[start:])
        # Of small transactions the parts would take more memory than what is in them.
        self._held[held_count:] = [FlatEntries.joined(self._held[held_count:])]
        if self._held_bytes >= self._fold_bytes_max:
            self._write_table()

    def end(self) -> None:
        """Write the last table. What stands behind the last position is no whole transaction."""
        self._write_table()
        if self._entries.entry_count:
            self._note("entries without a position stand at the end", self._of_transaction)

    def _keyed(self, records: DecodedRecords) -> tuple[list[bytes], list[bytes | None]]:
        keys = records.keys
        if None in keys:
            offset = int(records.offsets[keys.index(None)])
            self._note(f"the record at offset {offset} has no key")
            return [b"" if key is None else key for key in keys], records.values
        return cast("list[bytes]", keys), records.values

    def _fold(self, keys: list[bytes], values: list[bytes | None]) -> None:
        if not keys:
            return
        self._transaction_keys.append(keys)
        entries = FlatEntries.of(keys, values)
        self._entries.add_flat(entries)
        self._held.append(entries)
        self._held_bytes += entries.size_bytes
        self.record_count += len(keys)

    def _write_table(self) -> None:
        held = _without_tombstones(self._held) if self._first_table else self._held
        self._store.ingest(held)
        self._held, self._held_bytes, self._first_table = [], 0, False

    @property
    def _of_transaction(self) -> KeyRange | None:
        if not self._transaction_keys:
            return None
        return KeyRange(begin=min(map(min, self._transaction_keys)), end=max(map(max, self._transaction_keys)) + b"\0")

    def _note(self, reason: str, keys: KeyRange | None = None) -> None:
        self.faults.append(Fault(store=self.spec, where=str(self.place), reason=reason, keys=keys))

    def _take_position(self, offset: int, value: bytes | None) -> None:
        try:
            said = Position.from_json(orjson.loads(value or b""))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            self._note(f"the position at offset {offset} cannot be read", self._of_transaction)
        else:
            self._check_number(said, offset)
            self._check_entries(said, offset)
            if self.position is None or said.transaction >= self.position.transaction:
                self.position = said
                self.stamp_place = (offset, zlib.crc32(value or b""))
        self._entries, self._transaction_keys = EntriesDigest(), []

    def _check_number(self, said: Position, offset: int) -> None:
        last = self.position.transaction if self.position is not None else None
        if last is None:
            if self._complete and said.transaction != 1 and not self._compacted(offset):
                self._note(f"transactions before {said.transaction} are missing", self._of_transaction)
        elif said.transaction <= last:
            self._note(
                f"transaction {said.transaction}, at offset {offset}, follows transaction {last}: "
                "it is doubled or in the wrong place",
                self._of_transaction,
            )
        elif self._complete and said.transaction != last + 1:
            self._note(
                f"transaction {said.transaction}, at offset {offset}, follows transaction {last}: "
                "what lies between is missing",
                self._of_transaction,
            )

    def _check_entries(self, said: Position, offset: int) -> None:
        if said.entries is None or (self.position is None and self._compacted(offset)):
            return
        expected = said.entries.get(self.spec.name, EntriesDigest().to_text())
        found = self._entries.to_text()
        if expected != found:
            expected_count, found_count = int(expected.split(":")[1]), self._entries.entry_count
            what = (
                "lost" if found_count < expected_count else "doubled or added" if found_count > expected_count else ""
            )
            self._note(
                f"the {found_count} entries of transaction {said.transaction}, before offset {offset}, are not the "
                f"{expected_count} that were written: {f'some were {what}' if what else 'changed or in another order'}",
                self._of_transaction,
            )

    def _compacted(self, offset: int) -> bool:
        """Return whether offsets are missing below the first position: compaction, or an aborted transaction."""
        return self._begin_offset is None or offset - self._begin_offset != self.record_count - 1
