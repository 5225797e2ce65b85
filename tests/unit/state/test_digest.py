from hashlib import blake2b

import pytest

from streamkit.state import Digest


def digest_of(pairs: dict[bytes, bytes], end_ms: int | None = None) -> Digest:
    digest = Digest()
    digest.add(list(pairs), list(pairs.values()), None if end_ms is None else [end_ms] * len(pairs))
    return digest


def test_one_pair_is_the_hash_of_the_length_of_its_key_its_key_and_its_value() -> None:
    expected = int.from_bytes(blake2b(b"\x00\x00\x00\x03keyvalue", digest_size=16).digest(), "big")
    assert digest_of({b"key": b"value"}).total == expected
    assert digest_of({b"key": b"value"}, end_ms=5).total == expected


def test_the_sum_stays_within_128_bits() -> None:
    pairs = {b"%d" % number: b"" for number in range(100)}
    hashes = [int.from_bytes(blake2b(b"\0\0\0" + bytes([len(k)]) + k, digest_size=16).digest(), "big") for k in pairs]
    assert sum(hashes) >= 2**128
    assert digest_of(pairs).total == sum(hashes) % 2**128
    assert digest_of(pairs, end_ms=1).total == sum(hashes) % 2**128


def test_a_byte_moved_from_key_to_value_is_seen() -> None:
    assert digest_of({b"ab": b"c"}) != digest_of({b"a": b"bc"})


def test_values_swapped_between_two_keys_are_seen() -> None:
    assert digest_of({b"a": b"1", b"b": b"2"}) != digest_of({b"a": b"2", b"b": b"1"})


def test_a_replaced_value_leaves_no_trace() -> None:
    digest = digest_of({b"a": b"1", b"b": b"2"})
    digest.replace([b"a", b"b", b"c"], [b"1", b"2", None], [b"one", None, b"3"])
    assert digest == digest_of({b"a": b"one", b"c": b"3"})
    assert digest.pair_count == 2


def test_a_removed_pair_leaves_no_trace() -> None:
    digest = digest_of({b"a": b"1"})
    digest.remove([b"a"], [b"1"])
    assert digest == Digest()
    assert digest.total == 0


def test_a_dropped_window_takes_its_pairs_along_unread() -> None:
    digest = Digest()
    digest.add([b"a", b"b", b"a"], [b"1", b"2", b"3"], [10, 10, 20])
    assert digest.window_ends_ms() == [10, 20]
    digest.drop_window(10)
    digest.drop_window(30)
    assert digest == digest_of({b"a": b"3"}, end_ms=20)
    assert digest.window_ends_ms() == [20]


def test_a_window_whose_last_pair_is_removed_is_gone() -> None:
    digest = digest_of({b"a": b"1"}, end_ms=-10)
    digest.replace([b"a"], [b"1"], [None], [-10])
    assert digest == Digest()
    assert digest.window_ends_ms() == []


def test_the_json_form_is_compact_and_comes_back() -> None:
    digest = Digest()
    digest.add([b"a"], [b"1"])
    digest.add([b"b", b"c"], [b"2", b"3"], [-7, 2**62])
    text = digest.to_json()
    assert " " not in text
    assert Digest.from_json(text) == digest
    assert Digest.from_json(text).total == digest.total
    assert Digest.from_json(Digest().to_json()) == Digest()


def test_taking_out_what_was_never_put_in_is_a_programming_error() -> None:
    digest = digest_of({b"a": b"1"})
    with pytest.raises(AssertionError, match="never put in"):
        digest.remove([b"a"], [b"2"])


def test_a_digest_equals_only_digests_and_shows_its_count() -> None:
    assert Digest() != 0
    assert repr(digest_of({b"a": b"1"})).startswith("Digest(1 pairs, ")
