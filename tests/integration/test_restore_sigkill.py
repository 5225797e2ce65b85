"""`streamkit restore` killed at drawn moments: there is the old state or the new one, and the same command ends."""

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from changelogs import write_changelog
from command_line import ROOT, environment

from streamkit.state import RocksDBResources, RocksDBStore
from streamkit.topology.names import store_index

SEED = 20_261_125
KEYS = 40_000
KILLS = 12

pytestmark = [pytest.mark.process, pytest.mark.slow]


def command(directory: Path) -> list[str]:
    job = str(ROOT / "benchmarks" / "jobs" / "running_count.py")
    return [sys.executable, "-m", "streamkit", "restore", job, "--json", "--broker", f"log://{directory / 'log'}"]


def restore(directory: Path) -> dict[str, object]:
    done = subprocess.run(command(directory), cwd=ROOT, env=environment(), capture_output=True, check=True)
    told: dict[str, object] = orjson.loads(done.stdout.splitlines()[-1])
    return told


def key_count(path: Path) -> int:
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    store = RocksDBStore(str(copy), resources=RocksDBResources())
    count = sum(1 for _ in store.scan(b"", b"\xff\xff"))
    store.close()
    shutil.rmtree(copy)
    return count


def test_a_killed_restore_leaves_a_whole_state_and_the_same_command_ends(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    index = store_index("counts")
    topic = "running_count-counts-changelog"
    write_changelog(tmp_path / "log", topic, index=index, store="counts", key_count=KEYS)
    task = tmp_path / "log" / "state" / "running_count" / "0_0"
    began = restore(tmp_path)
    expected = key_count(task / "rocksdb")
    assert expected == KEYS * 9 // 10
    killed = 0
    for number in range(KILLS):
        if number % 4 == 3:
            shutil.rmtree(task, ignore_errors=True)
        worker = subprocess.Popen(
            command(tmp_path), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            _, printed = worker.communicate(timeout=rng.uniform(0.3, 1.5))
            assert worker.returncode == 0, printed.decode()
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
            killed += 1
        if (task / "rocksdb").exists():
            assert key_count(task / "rocksdb") == expected, "half a store stands in the place of a whole one"
    assert killed >= KILLS // 3, "the restores ended before they could be killed"
    again = restore(tmp_path)
    assert again["stores"] == began["stores"]
    assert key_count(task / "rocksdb") == expected
    assert sorted(path.name for path in task.iterdir()) == ["owner", "rocksdb"]
