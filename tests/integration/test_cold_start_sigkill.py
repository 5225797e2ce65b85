"""A worker that is killed with SIGKILL while it makes a lost store anew: the next one has what was committed."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from command_line import ROOT, done, environment, produce

JOB = str(ROOT / "benchmarks" / "jobs" / "running_count.py")
KEYS = 25_000
"""Enough for sorted tables."""
KILLS = ["RocksDBStore.ingest", "Opening._empty", "fold_task", "Opening.write_stamp"]

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_a_worker_that_is_killed_on_its_cold_start_leaves_what_the_next_one_mends(tmp_path: Path) -> None:
    rows = [b'{"user": "u%d"}' % number for number in range(KEYS)]
    produce("clicks", rows, "--key-field", "user", cwd=tmp_path)
    done("run", JOB, "--bounded", cwd=tmp_path)
    produce("clicks", rows[:100], "--key-field", "user", cwd=tmp_path)
    shutil.rmtree(tmp_path / ".streamkit" / "state")
    for function in KILLS:
        program = [sys.executable, str(ROOT / "tests" / "support" / "killed_call.py"), function]
        dead = subprocess.run(
            [*program, "run", JOB, "--bounded", "--continue"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert dead.returncode == -signal.SIGKILL, (function, dead.stderr.decode())
    done("run", JOB, "--bounded", "--continue", cwd=tmp_path)
    told = orjson.loads(done("verify", JOB, "--json", cwd=tmp_path).splitlines()[-1])
    assert {(one["side"], one["equal"]) for one in told["comparisons"]} == {
        (side, True) for side in ("changelog", "state", "replay")
    }
