"""What every state store promises, in memory and on disk alike (rules D6 and D12)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamkit.errors import StoreClosedError
from streamkit.state import Changes, MemoryStore, RocksDBResources, RocksDBStore, StateStore
from streamkit.state.entries import FlatEntries

Pairs = dict[bytes, bytes]


@pytest.fixture(scope="module")
def resources() -> RocksDBResources:
    return RocksDBResources(memory_bytes=4 * 1024 * 1024)


@pytest.fixture(params=["memory", "rocksdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path, resources: RocksDBResources) -> Iterator[StateStore]:
    opened: StateStore
    opened = MemoryStore() if request.param == "memory" else RocksDBStore(str(tmp_path / "db"), resources=resources)
    yield opened
    opened.close()


def fill(store: StateStore, count: int) -> Pairs:
    pairs = {b"%05d" % number: b"value %d" % number for number in range(count)}
    store.write(Changes(values=pairs))
    return pairs


def everything(store: StateStore) -> list[tuple[bytes, bytes]]:
    return list(store.scan(b"", b"\xff" * 8))


def test_an_empty_store_has_nothing(store: StateStore) -> None:
    assert store.get_many([]) == []
    assert store.get_many([b"a", b"b"]) == [None, None]
    assert everything(store) == []


def test_values_come_back_in_the_order_asked_for_in_any_order_and_twice(store: StateStore) -> None:
    store.write(Changes(values={b"b": b"2", b"a": b"1", b"": b"empty key", b"c": b""}))
    assert store.get_many([b"a", b"b", b"c"]) == [b"1", b"2", b""]
    assert store.get_many((b"c", b"x", b"a", b"a", b"")) == [b"", None, b"1", b"1", b"empty key"]


def test_none_deletes_a_key_and_an_absent_one_may_be_deleted(store: StateStore) -> None:
    store.write(Changes(values={b"a": b"1", b"b": b"2"}))
    store.write(Changes(values={b"a": None, b"x": None}))
    assert everything(store) == [(b"b", b"2")]


def test_ranges_are_deleted_before_values_are_put(store: StateStore) -> None:
    fill(store, 100)
    store.write(Changes(values={b"00050": b"new"}, delete_ranges=[(b"00010", b"00060"), (b"00090", b"00091")]))
    keys = [key for key, _ in everything(store)]
    assert keys == [b"%05d" % n for n in range(100) if n < 10 or n == 50 or (n >= 60 and n != 90)]
    assert store.get_many([b"00050", b"00010", b"00060"]) == [b"new", None, b"value 60"]


def test_an_empty_range_deletes_nothing(store: StateStore) -> None:
    pairs = fill(store, 3)
    store.write(Changes(delete_ranges=[(b"00001", b"00001")]))
    store.write(Changes())
    assert everything(store) == sorted(pairs.items())


def test_a_scan_takes_its_beginning_and_leaves_its_end(store: StateStore) -> None:
    pairs = fill(store, 5000)
    assert list(store.scan(b"00100", b"04100")) == [
        item for item in sorted(pairs.items()) if b"00100" <= item[0] < b"04100"
    ]
    assert list(store.scan(b"00100", b"00100")) == []
    assert list(store.scan(b"2", b"1")) == []


def test_a_scan_sees_the_store_as_of_the_call(store: StateStore) -> None:
    pairs = fill(store, 3000)
    before_its_first_row, begun = store.scan(b"", b"9"), store.scan(b"", b"9")
    first = next(begun)
    store.write(Changes(values={b"01500": b"changed", b"0": b"new"}, delete_ranges=[(b"02000", b"03000")]))
    assert [first, *begun] == sorted(pairs.items())
    assert list(before_its_first_row) == sorted(pairs.items())


def test_a_scan_may_be_left_before_its_end(store: StateStore) -> None:
    fill(store, 10)
    scan = store.scan(b"", b"9")
    next(scan)
    store.close()
    with pytest.raises(StoreClosedError):
        store.scan(b"", b"9")


def test_a_scan_of_a_store_that_was_closed_raises_and_never_ends_early(store: StateStore) -> None:
    fill(store, 5000)
    begun, not_begun = store.scan(b"", b"9"), store.scan(b"", b"9")
    next(begun)
    store.close()
    for scan in (begun, not_begun):
        with pytest.raises(StoreClosedError):
            list(scan)


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get_many([b"a"]),
        lambda store: store.scan(b"", b"9"),
        lambda store: store.write(Changes(values={b"a": b"1"})),
        lambda store: store.write(Changes()),
        lambda store: store.flush(),
        lambda store: store.size_bytes(),
    ],
    ids=["get_many", "scan", "write", "empty write", "flush", "size_bytes"],
)
def test_a_closed_store_refuses_everything_but_close(store: StateStore, use: Callable[[StateStore], object]) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreClosedError):
        use(store)


def test_a_flush_changes_nothing_that_is_seen(store: StateStore) -> None:
    pairs = fill(store, 100)
    store.flush()
    store.flush()
    assert everything(store) == sorted(pairs.items())


def test_a_store_knows_about_how_large_it_is(store: StateStore) -> None:
    before_bytes = store.size_bytes()
    fill(store, 20_000)
    store.flush()
    assert store.size_bytes() > before_bytes + 50_000


def test_ingested_values_hide_older_ones_and_none_deletes(store: StateStore) -> None:
    store.write(Changes(values={b"a": b"1", b"b": b"2", b"c": b"3"}))
    store.ingest([FlatEntries.of([b"d", b"b", b"a", b"x"], [b"4", None, b"new", None])])
    assert everything(store) == [(b"a", b"new"), (b"c", b"3"), (b"d", b"4")]
    store.ingest([FlatEntries.of([b"c", b"d"], [b"newer", b"5"])])
    store.ingest([FlatEntries.of([b"d"], [None])])
    assert store.get_many([b"a", b"b", b"c", b"d"]) == [b"new", None, b"newer", None]


def test_of_a_key_that_is_ingested_more_than_once_the_last_value_counts(store: StateStore) -> None:
    store.ingest([FlatEntries.of([b"a", b"b", b"a", b"c", b"b"], [b"1", b"2", b"3", None, None])])
    assert everything(store) == [(b"a", b"3")]


def test_what_is_written_after_an_ingest_hides_it_and_ingesting_nothing_is_fine(store: StateStore) -> None:
    store.ingest([])
    store.ingest([FlatEntries.of([b"a", b""], [b"1", b"empty key"])])
    store.write(Changes(values={b"a": b"2"}))
    assert everything(store) == [(b"", b"empty key"), (b"a", b"2")]


def test_a_closed_store_takes_no_table(store: StateStore) -> None:
    store.close()
    with pytest.raises(StoreClosedError):
        store.ingest([FlatEntries.of([b"a"], [b"1"])])
