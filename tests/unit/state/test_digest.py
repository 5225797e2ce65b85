import pytest
from xxhash import xxh3_128

from streamkit.state import Digest


def digest_of(pairs: dict[bytes, bytes]) -> Digest:
    digest = Digest()
    digest.add(list(pairs), list(pairs.values()))
    return digest


def test_one_pair_is_the_hash_of_its_key_and_its_value_seeded_with_the_length_of_its_key() -> None:
    expected = int.from_bytes(xxh3_128(b"keyvalue", seed=3).digest(), "big")
    assert digest_of({b"key": b"value"}).total == expected


def test_the_sum_stays_within_128_bits() -> None:
    pairs = {b"%d" % number: b"" for number in range(100)}
    hashes = [int.from_bytes(xxh3_128(key, seed=len(key)).digest(), "big") for key in pairs]
    assert sum(hashes) >= 2**128
    assert digest_of(pairs).total == sum(hashes) % 2**128


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


def test_the_text_form_is_compact_and_comes_back() -> None:
    digest = Digest()
    digest.add([b"a"], [b"1"])
    text = digest.to_text()
    assert text == f"1:{digest.total:x}"
    assert Digest.from_text(text) == digest
    assert Digest.from_text(text).total == digest.total
    assert Digest.from_text(Digest().to_text()) == Digest()


def test_taking_out_what_was_never_put_in_is_a_programming_error() -> None:
    digest = digest_of({b"a": b"1"})
    with pytest.raises(AssertionError, match="never put in"):
        digest.remove([b"a"], [b"2"])


def test_a_digest_equals_only_digests_and_shows_its_count() -> None:
    assert Digest() != 0
    assert repr(digest_of({b"a": b"1"})).startswith("Digest(1 pairs, ")
