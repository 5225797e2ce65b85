"""Mean temperature per sensor and minute, published once, when the minute closes."""

from dataclasses import dataclass
from datetime import timedelta

import msgspec

from streamkit import Job, Tumbling


class Reading(msgspec.Struct):
    """One reading; `at` is event time in ms since the Unix epoch."""

    celsius: float
    at: int


@dataclass
class Mean:
    """A mean under way."""

    total: float = 0.0
    count: int = 0


job = Job("sensor_means")
readings = job.stream("readings", key=str, value=Reading, timestamp="at")

minutes = readings.group_by_key().window(Tumbling(timedelta(minutes=1), grace=timedelta(seconds=10)), emit="final")


@minutes.aggregate(initial=Mean)
def mean_by_minute(mean: Mean, reading: Reading) -> Mean:
    """Add one reading; in one input order the sum is always the same."""
    return Mean(mean.total + reading.celsius, mean.count + 1)


@mean_by_minute.map_values
def celsius(mean: Mean) -> float:
    """Publish the mean alone."""
    return mean.total / mean.count


celsius.to("sensor_means")
minutes.late.to("sensor_late")
