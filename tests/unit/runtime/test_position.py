"""Positions and notes survive their JSON form, and stay small."""

from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from streamkit import Job
from streamkit.records import NEVER_MS, TopicPartition
from streamkit.runtime.blocks import FIRST_TURN
from streamkit.runtime.context import Counters
from streamkit.runtime.position import ChannelPosition, InputPosition, Note, Position, Run, RunMark
from streamkit.testing import TestDriver

channels = st.dictionaries(
    st.from_regex(r"[0-9]_[0-9]{1,3}", fullmatch=True),
    st.builds(
        ChannelPosition,
        watermark_ms=st.integers(NEVER_MS, 2**60),
        ended_run=st.integers(0, 9),
        reached=st.just(FIRST_TURN)
        | st.tuples(st.integers(0, 2**60), st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 2**60)),
        reached_run=st.integers(0, 9),
        block_offset=st.integers(0, 2**60),
        row_count=st.integers(0, 9),
    ),
    max_size=4,
)
positions = st.builds(
    Position,
    transaction=st.integers(0, 2**40),
    inputs=st.dictionaries(
        st.builds(TopicPartition, st.sampled_from(["a", "b.c"]), st.integers(0, 99)),
        st.builds(
            InputPosition,
            next_offset=st.integers(0, 2**60),
            max_timestamp_ms=st.integers(NEVER_MS, 2**60),
            channels=channels,
        ),
        max_size=3,
    ),
    ended_run=st.integers(0, 5),
    counters=st.dictionaries(st.sampled_from(["records_in", "late"]), st.integers(0, 2**60)),
    digests=st.dictionaries(st.sampled_from(["one", "two"]), st.text(max_size=9)),
)
watermarks = st.integers(NEVER_MS, 2**60)


@st.composite
def run_marks(draw: st.DrawFn) -> RunMark:
    end_offset = draw(st.none() | st.integers(0, 2**60))
    run = Run(
        number=draw(st.integers(1, 99)),
        bounded=end_offset is not None,
        published_ms=draw(watermarks),
        left_run=draw(st.integers(0, 98)),
    )
    return RunMark(
        run=run, end_offset=end_offset, published_ms=draw(watermarks), begin_offset=draw(st.integers(0, 2**60))
    )


@given(position=positions)
def test_a_position_survives_its_json_form(position: Position) -> None:
    assert Position.from_json(position.to_json()) == position


@st.composite
def notes(draw: st.DrawFn) -> Note:
    mark = draw(st.none() | run_marks())
    return Note(
        transaction=draw(st.integers(0, 9)),
        ended_run=draw(st.integers(0, 9)),
        closed_run=draw(st.integers(0, 9)),
        ended_shuffles=draw(st.none() | st.lists(st.text(max_size=9), max_size=3).map(tuple)),
        max_timestamp_ms=draw(watermarks),
        mark=mark,
        partition_count=0 if mark is None else draw(st.integers(1, 9)),
        read_offset=draw(st.integers(0, 2**60)),
        position=draw(st.none() | positions),
    )


@given(note=notes())
def test_a_note_survives_its_text(note: Note) -> None:
    assert Note.from_text(note.to_text()) == note


def test_an_offset_without_a_note_is_nobodys() -> None:
    assert Note.from_text("") == Note()


def test_the_note_of_a_task_without_a_store_fits_into_kafkas_metadata() -> None:
    """Eight sources merged in one task, eight nodes with punctuations, all numbers at their largest."""
    inputs = {
        TopicPartition("a-topic-with-a-long-name" * 2, number): InputPosition(
            next_offset=2**62, max_timestamp_ms=-(2**62)
        )
        for number in range(8)
    }
    counters = dict.fromkeys((one.name for one in fields(Counters)), 2**62)
    stream_times_ms = {f"a-punctuated-node-{number}": 2**62 for number in range(8)}
    position = Position(transaction=2**62, inputs=inputs, counters=counters, stream_times_ms=stream_times_ms)
    note = Note(
        transaction=2**62,
        mark=RunMark(run=Run(number=2**31, bounded=True), end_offset=2**62, begin_offset=2**62),
        partition_count=2**31,
        read_offset=2**62,
        position=position,
    )
    assert len(note.to_text()) <= 4096


def test_a_task_without_a_store_may_read_many_topics_of_long_names() -> None:
    """What lies beside an offset has at most 4,096 bytes."""
    job = Job("many")
    topics = [f"{number:02}-" + "x" * 60 for number in range(40)]
    first, *others = [job.stream(topic, value=str) for topic in topics]
    first.merge(*others).to("out")
    with TestDriver(job) as driver:
        for round_number in range(2):
            for topic in topics:
                driver.send(topic, f"{topic} {round_number}")
            driver.commit()
            driver.restart()
        driver.commit()
        sent = [value for _, value in driver.sent("out")]
    assert sorted(sent) == sorted(f"{topic} {number}" for topic in topics for number in range(2))
