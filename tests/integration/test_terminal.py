"""What a person sees on a terminal: a line that changes, with how much is done and what is left, and a summary."""

import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, environment
from terminal import on_terminal

pytestmark = [pytest.mark.process, pytest.mark.slow]

WORD_COUNT = str(ROOT / "jobs" / "word_count.py")
BOUND = ("--input", "lines=in.txt", "--output", "word_counts=out.jsonl")
LINES, WORDS, SEED = 500_000, 150_000, 20_261_128


@pytest.fixture
def computed(tmp_path: Path) -> Path:
    """Return a directory with a run over a file that has computed everything and not written its output."""
    rng = random.Random(SEED)
    with (tmp_path / "in.txt").open("w") as file:
        for _ in range(LINES):
            file.write(" ".join(f"word{rng.randrange(WORDS)}" for _ in range(3)) + "\n")
    program = [sys.executable, str(ROOT / "tests" / "support" / "killed_command.py"), "os.rename", "published.new", "1"]
    ended = subprocess.run([*program, "run", WORD_COUNT, *BOUND], cwd=tmp_path, env=environment(), check=False)
    assert ended.returncode == -signal.SIGKILL
    return tmp_path


def shares(lines: list[str], pattern: str, left: str = r", [\d,]+ s left") -> set[int]:
    """Return the percentages of the lines that match and say how long it still takes."""
    found = [re.search(pattern + r".*\((\d+) %\).*" + left, line) for line in lines]
    return {int(match[1]) for match in found if match}


def test_run_restore_and_replay_show_how_far_they_are_and_end_with_a_summary(computed: Path) -> None:
    other = ("--input", "lines=in.txt", "--output", "word_counts=other.jsonl")
    shown = on_terminal("run", WORD_COUNT, *other, cwd=computed)
    line = r"^word_count: [\d,]+ records in, [\d,]+ records/s, lag [\d,]+"
    assert shares(shown, line), shown
    assert len(shares(shown, line, left="")) > 1, "it does not change"
    assert re.fullmatch(rf"word_count: finished: {LINES:,} records in, .* out, 0 late, .* s \(.*/s\)", shown[-1])

    shown = on_terminal("restore", WORD_COUNT, *BOUND, cwd=computed)
    assert shares(shown, r"^word_count: restoring from \S+, [\d,]+ of [\d,]+ offsets"), shown
    assert any(re.match(r"word_count: restored \d+ tasks from [\d,]+ changelog records", line) for line in shown)
    assert re.search(r"keys, digest \S+, equal at transaction", shown[-1])

    shown = on_terminal("replay", WORD_COUNT, *BOUND, "--yes", cwd=computed)
    assert shares(shown, r"^word_count: running the inputs again, [\d,]+ of [\d,]+ offsets"), shown
    assert any(re.match(r"word_count: replayed: \d+ equal, 0 different, 0 not comparable", line) for line in shown)
    assert (computed / "out.jsonl").exists()
