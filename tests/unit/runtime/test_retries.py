"""What is tried again after an error, and for how long."""

import pytest

from streamkit.errors import BrokerUnavailableError, CommitFailedError, StreamkitError, TaskMigratedError
from streamkit.runtime.retries import Retries
from streamkit.seams import ManualClock


def failing(retries: Retries, error: StreamkitError, count: int) -> None:
    for _ in range(count):
        retries.pause_ms("0_0", error)


@pytest.mark.parametrize("meanwhile", [BrokerUnavailableError("gone"), TaskMigratedError("taken")])
def test_a_commit_that_fails_after_a_long_outage_is_its_first_failure(meanwhile: StreamkitError) -> None:
    retries = Retries(ManualClock())
    failing(retries, CommitFailedError("outcome unknown"), 1)
    failing(retries, meanwhile, 20)
    failing(retries, CommitFailedError("outcome unknown"), 1)


def test_a_commit_that_goes_on_failing_is_raised_though_the_broker_was_away_in_between() -> None:
    retries, failure = Retries(ManualClock()), CommitFailedError("a send failed")
    for _ in range(5):
        failing(retries, BrokerUnavailableError("gone"), 1)
        failing(retries, failure, 1)
    with pytest.raises(CommitFailedError) as raised:
        failing(retries, failure, 1)
    assert raised.value is failure


def test_success_makes_the_next_failure_the_first() -> None:
    retries = Retries(ManualClock())
    for _ in range(3):
        failing(retries, CommitFailedError("outcome unknown"), 5)
        retries.went_well("0_0")


def test_a_broker_that_stays_away_is_given_minutes() -> None:
    retries, gone = Retries(ManualClock()), BrokerUnavailableError("gone")
    waited_ms = sum(retries.pause_ms("0_0", gone) for _ in range(64))
    assert 240_000 < waited_ms < 360_000
    with pytest.raises(BrokerUnavailableError):
        retries.pause_ms("0_0", gone)
