"""Windows per key: the results' keys are `Windowed`, late rows are a stream of their own."""

from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

import msgspec

from streamkit import Job, Stream, Table, Tumbling, Windowed, WindowedGroup
from streamkit.testing import TestDriver


class Reading(msgspec.Struct):
    celsius: float
    at: int


@dataclass
class Mean:
    total: float = 0.0
    count: int = 0


job = Job("sensor_means")
readings = job.stream("readings", key=str, value=Reading, timestamp="at")
minutes = readings.group_by_key().window(Tumbling(timedelta(minutes=1), grace=timedelta(seconds=10)), emit="final")
assert_type(minutes, WindowedGroup[str, Reading])


@minutes.aggregate(initial=Mean)
def mean_by_minute(mean: Mean, reading: Reading) -> Mean:
    return Mean(mean.total + reading.celsius, mean.count + 1)


assert_type(mean_by_minute, Table[Windowed[str], Mean])


@mean_by_minute.map_values
def celsius(mean: Mean) -> float:
    return mean.total / mean.count


assert_type(celsius, Table[Windowed[str], float])
assert_type(celsius.filter(lambda mean: mean > 20.0), Table[Windowed[str], float])
assert_type(celsius.to_stream(), Stream[str, float])


@minutes.reduce(name="warmest_by_minute")
def warmest(one: Reading, other: Reading) -> Reading:
    return one if one.celsius > other.celsius else other


assert_type(warmest, Table[Windowed[str], Reading])
celsius.to("sensor_means")
minutes.late.to("sensor_late")


def test_driver() -> None:
    with TestDriver(job) as driver:
        assert_type(driver.table(celsius), dict[Windowed[str], float])
