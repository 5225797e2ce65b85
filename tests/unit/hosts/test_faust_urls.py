"""From Faust's broker URLs to streamkit's."""

import pytest
from faust.utils.urls import urllist

from streamkit.errors import ConfigError
from streamkit.hosts.faust.urls import broker_url


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("streamkit+log://.streamkit", "log://.streamkit"),
        ("streamkit+log:///var/Log dir", "log:///var/Log dir"),
        ("streamkit+log://Data/X?durability=os", "log://Data/X?durability=os"),
        ("streamkit+memory://", "memory://"),
        ("streamkit+kafka://one:9093", "kafka://one:9093"),
        ("streamkit+kafka://one;two:9093", "kafka://one:9092,two:9093"),
    ],
)
def test_a_url_reaches_the_broker_as_it_was_written(written: str, url: str) -> None:
    assert broker_url(urllist(written), written) == url


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("streamkit+log://data/X", "log://data/X"),
        ("streamkit+log:///var/Log%20dir/", "log:///var/Log dir"),
        ("streamkit+log://.streamkit?durability=os", "log://.streamkit?durability=os"),
        ("streamkit+memory://", "memory://"),
    ],
)
def test_what_was_written_elsewhere_is_put_together_again(written: str, url: str) -> None:
    """A broker of the environment or of a configuration object is known as Faust's URL alone."""
    assert broker_url(urllist(written)) == url


def test_a_setting_that_was_replaced_does_not_count() -> None:
    assert broker_url(urllist("streamkit+log://new"), "streamkit+log://Old") == "log://new"


@pytest.mark.parametrize(
    "written", ["streamkit+log://a,b", "streamkit+log://a;streamkit+log://b", "streamkit+log://a#b"]
)
def test_what_is_not_one_log_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="does not name one log"):
        broker_url(urllist(written), written)
