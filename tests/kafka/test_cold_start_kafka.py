"""A cold start over a whole topic drops nothing, however far partitions run apart: on a real Kafka."""

import contextlib
import uuid
from pathlib import Path

import orjson
import pytest
from command_line import done
from hot_bids import WINDOWS_COUNT, answer, closed_form, cold_start, fill
from jobs_apart import job_file
from outcomes import settle
from workers import read

from streamkit.broker import open_broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def prefix() -> str:
    return f"cold{uuid.uuid4().hex[:8]}_"


@pytest.mark.parametrize("workers_count", [1, 2])
def test_no_bid_is_late_behind_a_shuffle_with_grace_0(
    workers_count: int, kafka: str, prefix: str, tmp_path: Path
) -> None:
    with contextlib.closing(open_broker(f"kafka://{kafka}")) as broker:
        cold_start(broker, prefix, tmp_path, workers_count)


@pytest.mark.process
@pytest.mark.parametrize("workers_count", [1, 2])
def test_no_bid_is_late_in_processes_that_run_apart(
    workers_count: int, kafka: str, prefix: str, tmp_path: Path
) -> None:
    """With the settings of a user, under which a task commits every 16 MiB: so the partitions differ by as much."""
    url, file = f"kafka://{kafka}", job_file("hot_auctions", prefix, tmp_path)
    with contextlib.closing(open_broker(url)) as broker:
        bids_count = fill(broker, f"{prefix}bids", WINDOWS_COUNT, longer_bytes=600)
        options = ["--bounded", "--workers", str(workers_count), "--json"]
        printed = done("run", file.name, "--broker", url, *options, cwd=tmp_path)
        summary = orjson.loads(printed.splitlines()[-1])
        assert (summary["records_in"], summary["late"], summary["finished"]) == (bids_count, 0, True)
        settle(broker, prefix)
        found = answer([(key, value) for key, value, _ in read(broker, f"{prefix}hot_auctions")])
    assert found == closed_form(WINDOWS_COUNT)
