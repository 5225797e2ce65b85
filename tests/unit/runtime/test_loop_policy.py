"""What is read next: the source that is behind in event time, and never a wait for one that is caught up."""

from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.loop import next_positions

A, B, SHUFFLE = TopicPartition("in", 0), TopicPartition("in", 1), TopicPartition("job-by-repartition", 0)


def test_a_source_too_far_ahead_is_paused() -> None:
    wanted = {A: 10, B: 20, SHUFFLE: 5}
    assert next_positions(wanted, {A: 1_000, B: 70_000}, {A, B}, 60_000) == {A: 10, SHUFFLE: 5}


def test_a_source_exactly_at_the_limit_goes_on() -> None:
    assert next_positions({A: 1, B: 2}, {A: 1_000, B: 61_000}, {A, B}, 60_000) == {A: 1, B: 2}


def test_a_source_that_is_caught_up_holds_nobody_back() -> None:
    assert next_positions({A: 1, B: 2}, {A: 1_000, B: 70_000}, {B}, 60_000) == {A: 1, B: 2}


def test_a_source_that_has_shown_nothing_yet_holds_nobody_back() -> None:
    assert next_positions({A: 0, B: 2}, {A: NEVER_MS, B: 70_000}, {A, B}, 60_000) == {A: 0, B: 2}


def test_a_source_whose_records_are_being_computed_holds_others_back_all_the_same() -> None:
    """A is fetched and queued, so it is not wanted now; B must not run away meanwhile."""
    assert next_positions({B: 2}, {A: 1_000, B: 70_000}, {A, B}, 60_000) == {}
