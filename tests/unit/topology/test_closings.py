"""When the watermark of a shuffle closes windows behind it."""

from datetime import timedelta

import msgspec
import pytest

from streamkit import Hopping, Job, Tumbling, agg
from streamkit.topology.closings import Closings, closings_behind


class Row(msgspec.Struct):
    shop: str
    ts: int


def ms(count: int) -> timedelta:
    return timedelta(milliseconds=count)


def test_windows_close_at_their_ends_plus_grace() -> None:
    job = Job("one")
    rows = job.stream("rows", value=Row, timestamp="ts").group_by("shop", name="by_shop")
    rows.window(Hopping(ms(20), advance=ms(7), grace=ms(3))).count(name="hops").to("hops")
    rows.window(Tumbling(ms(30), grace=ms(0)), emit="update").count(name="parts").to("parts")
    rows.count(name="for_ever").to("for_ever")
    found = closings_behind(job.build(), ["hops", "parts", "for_ever"])
    assert set(found) == {Closings(7, (20 + 3) % 7), Closings(30, 0)}


def test_windows_of_results_close_later_by_the_grace_before_them() -> None:
    job = Job("two")
    rows = job.stream("rows", value=Row, timestamp="ts").group_by("shop", name="by_shop")
    fine = rows.window(Tumbling(ms(10), grace=ms(4))).agg({"n": agg.count()}, name="fine")
    coarse = fine.to_stream().group_by("n", type=int, name="by_n").window(Tumbling(ms(30), grace=ms(3)))
    coarse.count(name="coarse").to("out")
    graph = job.build()
    assert set(closings_behind(graph, ["fine"])) == {Closings(10, 4), Closings(30, 7)}
    assert set(closings_behind(graph, ["coarse"])) == {Closings(30, 3)}


@pytest.mark.parametrize(
    ("after_ms", "until_ms", "closes"), [(3, 12, False), (3, 13, True), (13, 22, False), (12, 13, True), (-8, -7, True)]
)
def test_windows_close_where_the_watermark_comes_to_a_closing(after_ms: int, until_ms: int, closes: bool) -> None:
    assert Closings(10, 3).between(after_ms, until_ms) == closes
