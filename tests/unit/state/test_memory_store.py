from streamkit.state import Changes, MemoryStore


def test_it_starts_with_the_contents_it_is_given_and_leaves_them_alone() -> None:
    contents = {b"b": b"2", b"a": b"1"}
    store = MemoryStore(contents)
    store.write(Changes(values={b"c": b"3"}))
    assert list(store.scan(b"", b"z")) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    assert contents == {b"b": b"2", b"a": b"1"}


def test_the_survivor_of_a_crash_has_what_was_flushed_last() -> None:
    store = MemoryStore({b"a": b"1"})
    store.write(Changes(values={b"b": b"2"}))
    store.flush()
    store.write(Changes(values={b"a": b"lost", b"c": b"lost"}))
    survivor = store.survivor()
    assert list(survivor.scan(b"", b"z")) == [(b"a", b"1"), (b"b", b"2")]
    survivor.write(Changes(values={b"d": b"4"}))
    assert store.get_many([b"d"]) == [None]


def test_a_clean_close_loses_nothing() -> None:
    store = MemoryStore()
    store.write(Changes(values={b"a": b"1"}))
    store.close()
    assert store.survivor().get_many([b"a"]) == [b"1"]
