"""A cold start over a whole topic drops nothing, however far partitions run apart: on the embedded log."""

import contextlib
from pathlib import Path

import pytest
from hot_bids import cold_start

from streamkit.broker import open_broker

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("workers_count", [1, 2])
def test_no_bid_is_late_behind_a_shuffle_with_grace_0(workers_count: int, tmp_path: Path) -> None:
    with contextlib.closing(open_broker(f"log://{tmp_path}/log")) as broker:
        cold_start(broker, "cold_", tmp_path, workers_count)
