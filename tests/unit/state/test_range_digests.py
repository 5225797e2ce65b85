import json

import pytest

from streamkit.errors import ConfigError
from streamkit.state import Digest
from streamkit.state.ranges import RangeDigests

COUNTS = [0, 1, 63, 64, 65, 1000, 40_000]


def pairs_of(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"%06d" % (2 * number), b"v%d" % number) for number in range(count)]


@pytest.mark.parametrize("count", COUNTS)
def test_the_ranges_add_up_to_the_digest_of_the_store(count: int) -> None:
    pairs, whole = pairs_of(count), Digest()
    whole.add([key for key, _ in pairs], [value for _, value in pairs])
    ranges = RangeDigests.of(iter(pairs))
    assert ranges.total == whole
    assert len(ranges.begins) <= 256
    assert ranges.begins[0] == b""
    assert list(ranges.begins) == sorted(set(ranges.begins))


@pytest.mark.parametrize("count", COUNTS)
def test_the_same_pairs_give_the_same_ranges(count: int) -> None:
    ranges = RangeDigests.of(pairs_of(count))
    again = RangeDigests.as_in(ranges, pairs_of(count))
    assert again.digests == ranges.digests
    assert ranges.first_difference(again) is None


@pytest.mark.parametrize("where", [0, 64, 500, 999])
@pytest.mark.parametrize("fault", ["flipped", "lost", "added"])
def test_the_first_range_that_differs_has_the_key(where: int, fault: str) -> None:
    pairs = pairs_of(1000)
    ranges, key = RangeDigests.of(pairs), pairs[where][0]
    if fault == "added":
        key += b"+"
        pairs.insert(where + 1, (key, b""))
    elif fault == "lost":
        del pairs[where]
    else:
        pairs[where] = (key, b"other")
    found = ranges.first_difference(RangeDigests.as_in(ranges, pairs))
    assert found is not None
    assert found.begin <= key
    assert found.end is None or key < found.end


def test_more_pairs_than_ranges_can_hold_are_cut_evenly() -> None:
    ranges = RangeDigests.of(pairs_of(40_000))
    counts = [digest.pair_count for digest in ranges.digests[:-1]]
    assert len(counts) > 30
    assert max(counts) <= 4 * 40_000 / 64


def test_the_json_form_is_read_back() -> None:
    ranges = RangeDigests.of(pairs_of(1000))
    again = RangeDigests.from_json(json.loads(json.dumps(ranges.to_json())))
    assert (again.begins, again.digests) == (ranges.begins, ranges.digests)


def test_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="version 2 cannot be compared"):
        RangeDigests.from_json({"version": 2, "ranges": []})
