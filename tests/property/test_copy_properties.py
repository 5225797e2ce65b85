"""A copy of any log is equal to it, and a power cut between any two writes of the copying changes nothing."""

from collections.abc import Callable

import pytest
from copying import Row, SlowClock, encoded, rows_of, source_log, target_log
from crashes import Power, PowerCut
from faults import FaultyBroker
from hypothesis import given
from hypothesis import strategies as st
from machine import Crashed

from streamkit.broker import EARLIEST, LAST_STABLE, Broker, Producer
from streamkit.broker.copy import CopyLimits, CopyProgress, copy_topic
from streamkit.records import TopicPartition
from streamkit.seams import MemoryFileSystem

PLACES = [TopicPartition("t", 0), TopicPartition("t", 1)]

data = st.none() | st.binary(max_size=12)
headers = st.lists(st.tuples(st.text(max_size=3), data), max_size=2).map(tuple)
row_lists = st.lists(st.builds(Row, st.integers(-1, 2**40), data, data, headers), min_size=1, max_size=4)
deeds = st.sampled_from(["plain", "plain", "commit", "commit", "abort", "leave open", "end", "remove"])
histories = st.lists(st.tuples(deeds, st.sampled_from(PLACES), row_lists), max_size=10)
limits = st.builds(
    CopyLimits, fetch_bytes=st.sampled_from([1, 200, 1 << 20]), commit_bytes=st.sampled_from([1, 300, 1 << 20])
)
kept_parts = st.sampled_from([0.0, 0.5, 1.0])
gaps = st.lists(st.integers(1, 60), max_size=4)


class Source:
    """A log with a history, and a model of what a committed reader finds in it."""

    def __init__(self) -> None:
        self.broker = source_log()
        self.broker.admin.create_topic("t", len(PLACES), {"segment.bytes": "300"})
        self.committed: dict[TopicPartition, dict[int, Row]] = {place: {} for place in PLACES}
        self.left_open: list[tuple[Producer, TopicPartition, list[Row]]] = []
        self.producer_count = 0

    def live(self, history: list[tuple[str, TopicPartition, list[Row]]]) -> None:
        for deed, place, rows in history:
            if deed == "remove":
                first, last = (self.broker.admin.list_offsets({place: spec})[place] for spec in (EARLIEST, LAST_STABLE))
                self.broker.admin.delete_records({place: (first + last + 1) // 2})
            elif deed == "end":
                if self.left_open:
                    self.commit(*self.left_open.pop())
            else:
                self.write(deed, place, rows)

    def write(self, deed: str, place: TopicPartition, rows: list[Row]) -> None:
        self.producer_count += 1
        if deed == "plain":
            producer = self.broker.producer()
            producer.send(place, encoded(rows))
            self.note(place, producer.flush()[place].base_offset, rows)
            return
        producer = self.broker.producer(f"writer {self.producer_count}")
        producer.begin()
        producer.send(place, encoded(rows))
        if deed == "leave open":
            self.left_open.append((producer, place, rows))
        elif deed == "abort":
            producer.abort()
        else:
            self.commit(producer, place, rows)

    def commit(self, producer: Producer, place: TopicPartition, rows: list[Row]) -> None:
        self.note(place, producer.commit()[place].base_offset, rows)

    def note(self, place: TopicPartition, base_offset: int, rows: list[Row]) -> None:
        self.committed[place].update(enumerate(rows, base_offset))

    def rows(self, since: dict[TopicPartition, int]) -> list[list[Row]]:
        """Return the committed rows from `since` on, up to the last stable offset, without removed ones."""
        admin = self.broker.admin
        starts = {place: max(since[place], admin.list_offsets({place: EARLIEST})[place]) for place in PLACES}
        ends = admin.list_offsets(dict.fromkeys(PLACES, LAST_STABLE))
        return [
            [row for offset, row in sorted(self.committed[place].items()) if starts[place] <= offset < ends[place]]
            for place in PLACES
        ]

    def ends(self) -> dict[TopicPartition, int]:
        return dict(self.broker.admin.list_offsets(dict.fromkeys(PLACES, LAST_STABLE)))


def copied(source: Broker, target: Broker, limits: CopyLimits) -> CopyProgress:
    return copy_topic(source, target, "t", clock=SlowClock(), limits=limits)


def after(gaps: list[int], crash: type[BaseException]) -> Callable[[str], None]:
    """Crash at so many steps, then so many later, and so on."""
    left = list(gaps)

    def told(step: str) -> None:
        if left:
            left[0] -= 1
            if left[0] == 0:
                del left[0]
                raise crash

    return told


@given(first=histories, second=histories, limits=limits)
def test_a_copy_is_equal_to_its_source_and_so_is_what_is_added_later(
    first: list[tuple[str, TopicPartition, list[Row]]],
    second: list[tuple[str, TopicPartition, list[Row]]],
    limits: CopyLimits,
) -> None:
    source, target = Source(), target_log()
    source.live(first)
    expected = source.rows(dict.fromkeys(PLACES, 0))
    progress = copied(source.broker, target, limits)
    assert rows_of(target, "t") == expected == rows_of(source.broker, "t")
    assert progress.record_count == sum(map(len, expected))
    seen = source.ends()
    source.live(second)
    added = source.rows(seen)
    progress = copied(source.broker, target, limits)
    assert rows_of(target, "t") == [before + more for before, more in zip(expected, added, strict=True)]
    assert progress.record_count == sum(map(len, added))


@given(history=histories, limits=limits, gaps=gaps)
def test_a_copying_that_dies_between_any_two_calls_goes_on_without_loss_or_doubling(
    history: list[tuple[str, TopicPartition, list[Row]]], limits: CopyLimits, gaps: list[int]
) -> None:
    """As with kill -9: nothing of the process goes on, and the target is opened again on what it wrote."""
    source, fs = Source(), MemoryFileSystem()
    source.live(history)
    crash_at = after(gaps, Crashed)
    for _ in range(len(gaps) + 1):
        try:
            copied(FaultyBroker(source.broker, crash_at), FaultyBroker(target_log(fs), crash_at), limits)
            break
        except Crashed:
            fs = fs.killed()
    fs = fs.killed()
    assert rows_of(target_log(fs), "t") == source.rows(dict.fromkeys(PLACES, 0))


@given(history=histories, limits=limits, gaps=gaps, kept=kept_parts)
def test_a_power_cut_between_any_two_writes_of_a_copying_changes_nothing(
    history: list[tuple[str, TopicPartition, list[Row]]], limits: CopyLimits, gaps: list[int], kept: float
) -> None:
    source = Source()
    source.live(history)
    fs, last = MemoryFileSystem(), Power()
    for gap in [*gaps, None]:
        power = last = Power()
        power.cut_at = gap
        fs = fs.crashed(lambda path, extra_bytes: int(extra_bytes * kept), observe=power)
        try:
            copied(source.broker, target_log(fs), limits)
        except PowerCut:
            continue
    assert last.cut_at is None
    after_all = target_log(fs.crashed())
    assert rows_of(after_all, "t") == source.rows(dict.fromkeys(PLACES, 0))


@pytest.mark.slow
def test_a_power_cut_at_each_write_of_one_copying_changes_nothing() -> None:
    source, limits = Source(), CopyLimits(fetch_bytes=1, commit_bytes=200)
    rows = [Row(number, b"k", str(number).encode()) for number in range(4)]
    source.live([("plain", PLACES[0], rows), ("abort", PLACES[0], rows), ("commit", PLACES[1], rows * 3)] * 2)
    calm = Power()
    copied(source.broker, target_log(MemoryFileSystem(calm)), limits)
    assert calm.changes > 30, "the copying shrank"
    for cut_at in range(1, calm.changes + 1):
        power = Power()
        power.cut_at = cut_at
        fs = MemoryFileSystem(power)
        with pytest.raises(PowerCut):
            copied(source.broker, target_log(fs), limits)
        for left in (fs.crashed(), fs.killed()):
            target = target_log(left)
            copied(source.broker, target, limits)
            assert rows_of(target, "t") == source.rows(dict.fromkeys(PLACES, 0))
