"""Graphs, windows and event time: frozen data that checks itself."""

from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest

from streamkit import EventTime, Hopping, Job, Tumbling
from streamkit.errors import DefinitionError
from streamkit.graph import to_ms


def test_durations_are_whole_milliseconds() -> None:
    window = Tumbling(timedelta(minutes=1), grace=timedelta(seconds=10, microseconds=999))
    assert (window.size_ms, window.grace_ms) == (60_000, 10_000)
    assert to_ms(timedelta(microseconds=1999)) == 1


@pytest.mark.parametrize(
    ("size", "grace"),
    [
        (timedelta(0), timedelta(0)),
        (timedelta(microseconds=999), timedelta(0)),
        (timedelta(seconds=-1), timedelta(0)),
        (timedelta(seconds=1), timedelta(seconds=-1)),
        (timedelta(seconds=1), timedelta(microseconds=-1)),
    ],
)
def test_a_window_has_a_size_and_no_negative_grace(size: timedelta, grace: timedelta) -> None:
    with pytest.raises(DefinitionError):
        Tumbling(size, grace=grace)


def test_a_window_hops_by_its_advance_and_a_tumbling_one_by_its_size() -> None:
    size, grace = timedelta(minutes=1), timedelta(0)
    hopping = Hopping(size, advance=timedelta(seconds=10), grace=grace)
    assert (hopping.size_ms, hopping.advance_ms, hopping.grace_ms) == (60_000, 10_000, 0)
    assert Tumbling(size, grace=grace).advance_ms == 60_000


@pytest.mark.parametrize(
    ("size_ms", "advance_ms", "said"),
    [
        (0, 1, "shorter than 1 ms"),
        (10, 0, "advance 0:00:00 is shorter than 1 ms"),
        (10, -1, "shorter than 1 ms"),
        (10, 11, "longer than the size"),
        (1441, 1, "less than a 1,440th of the size"),
    ],
)
def test_a_window_advances_by_a_part_of_its_size(size_ms: int, advance_ms: int, said: str) -> None:
    size, advance = timedelta(milliseconds=size_ms), timedelta(milliseconds=advance_ms)
    with pytest.raises(DefinitionError, match=said):
        Hopping(size, advance=advance, grace=timedelta(0))


def test_a_window_may_advance_by_a_1440th_of_its_size() -> None:
    assert Hopping(timedelta(days=1), advance=timedelta(minutes=1), grace=timedelta(0)).advance_ms == 60_000


def test_event_time_stays_behind_by_no_negative_duration() -> None:
    assert EventTime("ts", out_of_orderness=timedelta(seconds=2)).out_of_orderness_ms == 2000
    assert EventTime().field is None
    with pytest.raises(DefinitionError, match="is negative"):
        EventTime("ts", out_of_orderness=timedelta(milliseconds=-1))


def test_descriptions_are_frozen_and_compare_by_value() -> None:
    window = Tumbling(timedelta(1), grace=timedelta(0))
    assert window == Tumbling(timedelta(1), grace=timedelta(0))
    with pytest.raises(FrozenInstanceError):
        window.size = timedelta(2)  # type: ignore[misc]  # what the test is about


def test_a_graph_knows_its_nodes_by_name_and_who_reads_them() -> None:
    job = Job("job")
    lines = job.stream("lines", value=str)
    lines.map(str.upper, name="loud").to("out")
    lines.filter(str.isalpha, name="words").to("out")
    graph = job.build()
    assert graph.node("loud").inputs == ("lines",)
    assert [node.name for node in graph.children("lines")] == ["loud", "words"]
    with pytest.raises(KeyError, match="nope"):
        graph.node("nope")
