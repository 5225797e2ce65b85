"""Jobs some of whose topics are files, and others topics of a log."""

import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from command_line import ROOT, consumed, done, environment, produce, streamkit

pytestmark = [pytest.mark.process, pytest.mark.slow]

WORD_COUNT = str(ROOT / "jobs" / "word_count.py")
MERGED = '''
"""Counts the words of two streams."""

from streamkit import Job

job = Job("merged")
old = job.stream("old", value=str)
new = job.stream("new", value=str)


@old.merge(new).group_by
def by_word(word: str) -> str:
    return word


by_word.count(name="counts").to("counts")
'''


def topics(directory: Path) -> list[str]:
    return done("topics", "list", cwd=directory).split()


def test_a_sink_without_a_file_is_a_topic_and_a_job_of_its_own_is_left_alone(tmp_path: Path) -> None:
    produce("lines", [b"mine"], cwd=tmp_path)
    done("run", WORD_COUNT, "--bounded", cwd=tmp_path)
    before = sorted(path.name for path in (tmp_path / ".streamkit").iterdir())
    (tmp_path / "in.txt").write_bytes(b"to be or\nnot to be")
    done("run", WORD_COUNT, "--input", "lines=in.txt", cwd=tmp_path)
    counts = {row["key"]: row["value"] for row in consumed("word_counts", cwd=tmp_path)}
    assert counts == {"mine": 1, "to": 2, "be": 2, "or": 1, "not": 1}
    of_the_job = ["word_count-by_word-repartition", "word_count-counts-changelog"]
    assert topics(tmp_path) == ["lines", *of_the_job, "word_counts"]
    after = sorted(path.name for path in (tmp_path / ".streamkit").iterdir() if path.name != "files")
    assert after == before, "group, changelog and state of the run over files are gone"
    assert "finished, nothing was read" in done("run", WORD_COUNT, "--bounded", cwd=tmp_path)


def test_a_topic_and_a_file_are_read_as_two_topics_are(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(MERGED)
    (tmp_path / "old.txt").write_bytes(b"a\nb\na\n")
    produce("new", [b"b", b"c"], cwd=tmp_path)
    command = ("run", "job.py", "--input", "old=old.txt", "--output", "counts=out.jsonl")
    refused = streamkit(*command, cwd=tmp_path)
    assert (refused.returncode, b"--bounded reads topics to their end" in refused.stderr) == (2, True)
    for _ in range(2):
        done(*command, "--bounded", "--overwrite", cwd=tmp_path)
        rows = [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
        assert {row["key"]: row["value"] for row in rows} == {"a": 2, "b": 2, "c": 1}, "each run is one of its own"
    assert topics(tmp_path) == ["new"]


def test_a_bad_record_of_a_file_is_named_by_its_stream_and_place(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"ok\n\xff\n")
    ended = streamkit("run", WORD_COUNT, "--input", "lines=in.txt", cwd=tmp_path)
    assert ended.returncode == 1
    assert "in.txt byte 3, record lines-0 offset 3, node lines" in ended.stderr.decode()


@pytest.mark.parametrize(
    ("event", "text", "number"),
    [("os.rename", "published.new", 1), ("os.rename", ".partial", 1), ("os.remove", "/plan", 2),
     ("os.remove", "published", 2)],
)  # fmt: skip
def test_a_run_that_is_killed_is_finished_and_removes_what_is_its_own_alone(
    tmp_path: Path, event: str, text: str, number: int
) -> None:
    produce("lines", [b"to be or", b"not to be"], cwd=tmp_path)
    produce("word_count-of-mine", [b"x"], cwd=tmp_path)
    command = ("run", WORD_COUNT, "--bounded", "--output", "word_counts=out.jsonl")
    program = [sys.executable, str(ROOT / "tests" / "support" / "killed_command.py"), event, text, str(number)]
    dead = subprocess.run(
        [*program, *command], cwd=tmp_path, env=environment(), capture_output=True, check=False, timeout=120
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
    done(*command, cwd=tmp_path)
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 4
    assert topics(tmp_path) == ["lines", "word_count-of-mine"]
    left = [path.name for path in (tmp_path / ".streamkit").iterdir() if path.name.startswith("word_count")]
    assert left == ["word_count-of-mine-0"]
