"""The lock on the command line: written, compared, obeyed by a run, accepted."""

from pathlib import Path

import pytest
from command_line import consumed, done, produce, streamkit

pytestmark = [pytest.mark.process, pytest.mark.slow]

JOB = '''
"""Counts of words."""
from streamkit import Job

job = Job("counting")
words = job.stream("words", value=str)
words.group_by(str, name="by_word", shards=2).count(name="counts").to("counts")
'''
RENAMED = JOB.replace('name="counts"', 'name="totals"')
LONGER = JOB.replace("words.group_by", "words.map(str.lower).group_by")


def test_a_run_refuses_what_orphans_state_until_the_lock_is_written_anew(tmp_path: Path) -> None:
    job, lock = tmp_path / "mine" / "counting.py", tmp_path / "mine" / "counting.topology.json"
    job.parent.mkdir()
    job.write_text(JOB)
    produce("words", [b"to", b"be", b"to"], cwd=tmp_path)
    assert done("lock", "mine.counting", cwd=tmp_path) == "mine/counting.topology.json: written\n"
    written = lock.read_bytes()
    assert done("lock", "mine/counting.py", "--check", cwd=tmp_path) == "mine/counting.topology.json: as the job is\n"
    done("run", "mine.counting", "--bounded", cwd=tmp_path)

    job.write_text(RENAMED)
    topics = done("topics", "list", cwd=tmp_path)
    refused = streamkit("run", "mine.counting", "--bounded", "--continue", cwd=tmp_path)
    assert refused.returncode == 2
    for part in ("'counts' is called 'totals'", "counting-counts-changelog", 'name="counts" keeps', "streamkit lock"):
        assert part in refused.stderr.decode()
    assert done("topics", "list", cwd=tmp_path) == topics, "nothing was made"

    checked = streamkit("lock", "mine.counting", "--check", cwd=tmp_path)
    assert checked.returncode == 1
    assert checked.stdout.decode().startswith("orphans state: the store 'counts' is called 'totals'")
    assert lock.read_bytes() == written

    assert "orphans state" in done("lock", "mine.counting", cwd=tmp_path)
    done("lock", "mine.counting", "--check", cwd=tmp_path)


def test_a_safe_change_fails_the_check_and_runs(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(JOB)
    produce("words", [b"to", b"be", b"to"], cwd=tmp_path)
    done("lock", "counting.py", cwd=tmp_path)
    done("run", "counting.py", "--bounded", cwd=tmp_path)
    (tmp_path / "counting.py").write_text(LONGER)
    produce("words", [b"TO"], cwd=tmp_path)
    checked = streamkit("lock", "counting.py", "--check", cwd=tmp_path)
    assert checked.returncode == 1
    assert checked.stdout.decode() == "safe: the node 'map_1' is new; what it made before stays as it is\n"
    done("run", "counting.py", "--bounded", "--continue", cwd=tmp_path)
    assert {"key": "to", "value": 3}.items() <= consumed("counts", cwd=tmp_path)[-1].items()


def test_a_check_without_a_lock_and_a_lock_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(JOB)
    missing = streamkit("lock", "counting.py", "--check", cwd=tmp_path)
    assert missing.returncode == 2
    assert b"there is no counting.topology.json" in missing.stderr
    assert not (tmp_path / "counting.topology.json").exists()
    (tmp_path / "counting.topology.json").write_text("{}")
    for command in (["lock", "counting.py"], ["run", "counting.py"]):
        refused = streamkit(*command, cwd=tmp_path)
        assert refused.returncode == 2
        assert b"counting.topology.json is no topology lock" in refused.stderr
    assert (tmp_path / "counting.topology.json").read_text() == "{}"


def test_a_job_is_drawn_for_graphviz(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(JOB)
    drawn = done("describe", "counting.py", "--dot", cwd=tmp_path)
    assert drawn.startswith('digraph "counting" {\n')
    assert drawn.endswith("}\n")
    for part in (
        '"topic words" -> "node words";',
        '"node by_word" -> "topic counting-by_word-repartition" [label="combine counts, 2 shards"];',
        '"topic counting-by_word-repartition" -> "node counts";',
        '"node counts" -> "store counts" [dir=both];',
        '"node to_counts_1" -> "topic counts";',
    ):
        assert part in drawn
    assert streamkit("describe", "counting.py", "--dot", "--json", cwd=tmp_path).returncode == 2
