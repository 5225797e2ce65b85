"""One opened broker per log and process."""

import os
from pathlib import Path

import pytest

from streamkit.broker import open_broker
from streamkit.errors import BrokerError, ConfigError, LogLockedError
from streamkit.hosts import lease


def test_two_leases_of_one_log_share_it_however_its_directory_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("log", "other_name")
    with (
        lease("log://log") as one,
        lease(f"log://{tmp_path}/log/") as two,
        lease("log://other_name?durability=fsync") as three,
    ):
        assert one.broker is two.broker is three.broker


def test_the_last_lease_closes_the_log(tmp_path: Path) -> None:
    url = f"log://{tmp_path}/log"
    first, second = lease(url), lease(url)
    first.release()
    first.release()
    with pytest.raises(LogLockedError):
        open_broker(url)
    second.release()
    open_broker(url).close()


def test_a_lease_that_was_given_back_has_no_broker() -> None:
    held = lease("memory://")
    held.release()
    with pytest.raises(BrokerError, match="given back"):
        _ = held.broker


def test_one_log_is_not_opened_with_two_durabilities(tmp_path: Path) -> None:
    url = f"log://{tmp_path}/log"
    with lease(url), pytest.raises(ConfigError, match="cannot use it as"):
        lease(f"{url}?durability=os")
    lease(f"{url}?durability=os").release()


def test_a_broker_that_cannot_be_opened_leaves_no_lease() -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match="does not name a broker"):
            lease("nowhere")
