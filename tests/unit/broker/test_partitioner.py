"""Keys are placed as Kafka places them."""

from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from streamkit.broker.partitioner import Placement, murmur2, partition_of, partitions_of

keys = st.binary(max_size=30)


def test_the_hash_is_that_of_javas_own_tests() -> None:
    """The vectors of UtilsTest.testMurmur2, as unsigned integers."""
    vectors = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    assert {key: murmur2(key) for key in vectors} == {key: value & 0xFFFFFFFF for key, value in vectors.items()}


@given(key=keys)
def test_the_hash_agrees_with_another_implementation(key: bytes) -> None:
    assert murmur2(key) == reference(key)


@given(some=st.lists(st.none() | keys, max_size=20), times=st.sampled_from([1, 40]), count=st.integers(1, 50))
def test_many_keys_are_placed_like_one(some: list[bytes | None], times: int, count: int) -> None:
    """Few keys are hashed one by one, many (`times`) together."""
    null = count - 1
    expected = [null if key is None else partition_of(key, count) for key in some]
    assert partitions_of(some * times, count, null_partition=null).tolist() == expected * times


def test_null_keys_go_round_robin_by_batch_and_keep_their_order() -> None:
    placement = Placement(3)
    assert [placement.place([None, None]).tolist() for _ in range(4)] == [[0, 0], [1, 1], [2, 2], [0, 0]]
    assert placement.place([b"k"]).tolist() == [partition_of(b"k", 3)]
    assert placement.place([None]).tolist() == [1]
