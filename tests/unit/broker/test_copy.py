"""Copying a topic: what is kept, what is refused, and where it goes on."""

import pytest
from copying import Row, append, encoded, rows_of, source_log, target_log

from streamkit.broker import Broker
from streamkit.broker.copy import CopyLimits, CopyProgress, copy_topic
from streamkit.errors import ConfigError, LogError, ProducerFencedError, SerializationError, UnknownTopicError
from streamkit.records import TopicPartition
from streamkit.seams import ManualClock

PLACE = TopicPartition("bids", 0)
SMALL = CopyLimits(fetch_bytes=1, commit_bytes=1)
"""A transaction for each record batch."""


def copied(source: Broker, target: Broker, limits: CopyLimits | None = None) -> CopyProgress:
    return copy_topic(source, target, "bids", clock=ManualClock(), limits=limits or CopyLimits())


@pytest.fixture
def source() -> Broker:
    broker = source_log()
    broker.admin.create_topic("bids", 2, {"segment.bytes": "2000"})
    return broker


@pytest.fixture
def target() -> Broker:
    return target_log()


def numbered(*numbers: int) -> list[Row]:
    return [Row(number, b"key", str(number).encode()) for number in numbers]


def test_keys_nulls_timestamps_headers_and_order_are_kept(source: Broker, target: Broker) -> None:
    rows = [
        Row(5, b"a", b"1", (("h", b"x"), ("h", None))),
        Row(-1, None, b"", ()),
        Row(3, b"", None, (("ü", b""),)),
    ]
    append(source, PLACE, rows)
    append(source, TopicPartition("bids", 1), rows[::-1])
    progress = copied(source, target)
    assert rows_of(target, "bids") == [rows, rows[::-1]]
    assert (progress.record_count, progress.remaining_count, progress.removed_count) == (6, 0, 0)
    assert progress.size_bytes > 6 * 61


def test_the_target_is_made_with_the_count_and_config_and_keeps_records_for_ever(
    source: Broker, target: Broker
) -> None:
    copied(source, target)
    made = target.admin.describe_topics()["bids"]
    assert (made.partition_count, made.config) == (2, {"segment.bytes": "2000", "retention.ms": "-1"})


def test_a_retention_that_the_source_has_is_kept(target: Broker) -> None:
    source = source_log()
    source.admin.create_topic("bids", 1, {"retention.ms": "1000"})
    copied(source, target)
    assert target.admin.describe_topics()["bids"].config == {"retention.ms": "1000"}


def test_copying_again_adds_what_came_since_and_nothing_else(source: Broker, target: Broker) -> None:
    append(source, PLACE, numbered(1, 2, 3))
    copied(source, target)
    assert copied(source, target).record_count == 0
    append(source, PLACE, numbered(4))
    assert copied(source, target).record_count == 1
    assert rows_of(target, "bids")[0] == numbered(1, 2, 3, 4)


def test_only_what_was_committed_at_the_start_is_copied(source: Broker, target: Broker) -> None:
    append(source, PLACE, numbered(1))
    aborted, open_one = source.producer("aborted"), source.producer("open")
    aborted.begin()
    aborted.send(PLACE, encoded(numbered(2)))
    aborted.abort()
    append(source, PLACE, numbered(3))
    open_one.begin()
    open_one.send(PLACE, encoded(numbered(4)))
    append(source, PLACE, numbered(5))
    copied(source, target)
    assert rows_of(target, "bids")[0] == numbered(1, 3)
    open_one.commit()
    copied(source, target)
    assert rows_of(target, "bids")[0] == numbered(1, 3, 4, 5)


def test_what_is_appended_while_it_copies_is_left_for_the_next_time(source: Broker, target: Broker) -> None:
    append(source, PLACE, numbered(1, 2))
    told: list[CopyProgress] = []

    def tell(progress: CopyProgress) -> None:
        told.append(progress)
        if len(told) == 1:
            append(source, PLACE, numbered(3))

    copy_topic(source, target, "bids", clock=ManualClock(), told=tell, limits=SMALL)
    assert rows_of(target, "bids")[0] == numbered(1, 2)
    assert [(one.record_count, one.remaining_count) for one in told] == [(1, 1), (2, 0), (2, 0)]
    copied(source, target)
    assert rows_of(target, "bids")[0] == numbered(1, 2, 3)


def test_a_large_fetch_that_reaches_beyond_the_end_is_cut_there(source: Broker, target: Broker) -> None:
    append(source, TopicPartition("bids", 1), numbered(1, 2))
    append(source, PLACE, numbered(1, 2))
    told: list[CopyProgress] = []

    def tell(progress: CopyProgress) -> None:
        told.append(progress)
        if len(told) == 1:  # partition 0 is done, partition 1 is not
            append(source, TopicPartition("bids", 1), numbered(3, 4))

    limits = CopyLimits(commit_bytes=1)
    copy_topic(source, target, "bids", clock=ManualClock(), told=tell, limits=limits)
    assert rows_of(target, "bids") == [numbered(1, 2), numbered(1, 2)]
    copied(source, target)
    assert rows_of(target, "bids") == [numbered(1, 2), numbered(1, 2, 3, 4)]


def test_records_removed_before_the_first_copying_are_a_gap(source: Broker, target: Broker) -> None:
    append(source, PLACE, numbered(1, 2, 3))
    source.admin.delete_records({PLACE: 2})
    assert copied(source, target).removed_count == 0
    assert rows_of(target, "bids")[0] == numbered(3)


def test_records_removed_before_they_could_be_copied_are_counted(source: Broker, target: Broker) -> None:
    append(source, PLACE, numbered(1))
    copied(source, target)
    append(source, PLACE, numbered(2, 3, 4))
    source.admin.delete_records({PLACE: 3})
    assert copied(source, target).removed_count == 2
    assert rows_of(target, "bids")[0] == numbered(1, 4)


def test_another_partition_count_is_refused_with_both(source: Broker, target: Broker) -> None:
    target.admin.create_topic("bids", 3)
    with pytest.raises(ConfigError, match=r"2 partitions in the source and 3 in the target") as raised:
        copied(source, target)
    assert "delete the target's topic" in raised.value.hint


def test_records_of_somebody_else_in_the_target_are_not_added_to(source: Broker, target: Broker) -> None:
    append(source, PLACE, numbered(1))
    target.admin.create_topic("bids", 2)
    append(target, PLACE, numbered(9))
    with pytest.raises(ConfigError, match="has records already"):
        copied(source, target)
    target.admin.delete_topic("bids")
    copied(source, target)
    assert rows_of(target, "bids")[0] == numbered(1)


def test_a_topic_that_was_made_again_with_fewer_records_is_refused(source: Broker, target: Broker) -> None:
    append(source, PLACE, numbered(1, 2))
    copied(source, target)
    source.admin.delete_topic("bids")
    source.admin.create_topic("bids", 2)
    append(source, PLACE, numbered(7))
    with pytest.raises(LogError, match="was copied up to offset 2, and the source ends at 1"):
        copied(source, target)


def test_a_record_over_the_targets_limit_is_named_and_what_was_committed_stays(source: Broker, target: Broker) -> None:
    large = Row(2, b"k", b"x" * 500)
    append(source, PLACE, [*numbered(1), large, *numbered(3)])
    target.admin.create_topic("bids", 2, {"max.message.bytes": "300"})
    with pytest.raises(SerializationError, match=r"max.message.bytes of 300") as raised:
        copied(source, target, SMALL)
    error = raised.value
    assert (error.topic, error.partition, error.offset) == ("bids", 0, 1)
    assert "raise max.message.bytes" in error.hint
    assert rows_of(target, "bids")[0] == numbered(1)


def test_a_topic_that_the_source_lacks_makes_nothing(source: Broker, target: Broker) -> None:
    with pytest.raises(UnknownTopicError):
        copy_topic(source, target, "asks", clock=ManualClock())
    assert target.admin.describe_topics() == {}


def test_a_log_is_not_copied_into_itself(source: Broker) -> None:
    with pytest.raises(ConfigError, match="same log"):
        copied(source, source)


def test_a_second_copying_fences_the_first_and_nothing_is_doubled(source: Broker, target: Broker) -> None:
    append(source, PLACE, numbered(1, 2, 3))

    def tell(progress: CopyProgress) -> None:
        if progress.record_count == 1:
            copied(source, target)

    with pytest.raises(ProducerFencedError):
        copy_topic(source, target, "bids", clock=ManualClock(), told=tell, limits=SMALL)
    assert rows_of(target, "bids")[0] == numbered(1, 2, 3)


def test_a_commit_is_due_by_time_too(source: Broker, target: Broker) -> None:
    append(source, PLACE, numbered(1, 2, 3, 4))
    clock, told = ManualClock(), list[int]()

    class Passing(ManualClock):
        def monotonic_ms(self) -> float:
            clock.advance(1_000)
            return clock.monotonic_ms()

    limits = CopyLimits(fetch_bytes=1, commit_ms=1_500)
    copy_topic(source, target, "bids", clock=Passing(), told=lambda one: told.append(one.record_count), limits=limits)
    assert told == [2, 4, 4]
