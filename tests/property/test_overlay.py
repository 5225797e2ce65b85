"""The overlay against a dict: reads look through pending, committing and store, whatever the order of commits."""

from hypothesis import given
from hypothesis import strategies as st

from streamkit.runtime.overlay import Generation, Overlay
from streamkit.state import MemoryStore

keys = st.binary(min_size=1, max_size=2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.binary(max_size=2)),
        st.tuples(st.just("range"), keys, keys),
        st.tuples(st.just("freeze"), keys, keys),
        st.tuples(st.just("apply"), keys, keys),
    ),
    max_size=40,
)


@given(steps=steps)
def test_the_overlay_reads_like_a_dict(steps: list[tuple[str, bytes, bytes]]) -> None:
    store, model = MemoryStore(), dict[bytes, bytes]()
    overlay = Overlay(store)
    frozen: Generation | None = None
    gone: set[bytes] = set()
    for kind, one, other in steps:
        if kind == "put":
            overlay.put_many(0, [one], [other])
            model[one] = other
            gone.discard(one)
        elif kind == "range":
            begin, end = sorted((one, other))
            dropped = [key for key, _ in overlay.scan(begin, end)]
            overlay.delete_range(0, begin, end, dropped)
            gone.update(dropped)
            for key in dropped:
                del model[key]
        elif kind == "freeze" and frozen is None:
            frozen = overlay.freeze()
        elif kind == "apply" and frozen is not None:
            store.write(frozen.changes())
            overlay.applied()
            frozen = None
        assert dict(overlay.scan(b"", b"\xff" * 3)) == model
        assert list(overlay.scan(b"", b"\xff" * 3)) == sorted(model.items())
        alive = sorted(set(model) - gone)
        assert overlay.get_many(alive) == [model[key] for key in alive]


def test_the_changelog_has_the_last_value_of_each_key_and_tombstones_for_ranges() -> None:
    overlay = Overlay(MemoryStore())
    overlay.put_many(3, [b"a", b"b"], [b"1", b"2"])
    overlay.put_many(3, [b"a"], [b"3"])
    overlay.delete_range(3, b"b", b"c", [b"b"])
    assert overlay.freeze().log == {3: {b"a": b"3", b"b": None}}
