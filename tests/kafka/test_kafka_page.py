"""The commands of docs/kafka.md, typed in as they stand, but for the broker's address."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment
from source_files import ROOT

from streamkit.broker import open_broker

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

COMMANDS = re.compile(r"^```text\n((?:\$ .*\n)+)```$", re.MULTILINE)
SHOWN = "kafka://127.0.0.1:9092"


def test_the_commands_of_the_page_work_one_after_the_other(kafka: str, tmp_path: Path) -> None:
    (found,) = COMMANDS.findall((ROOT / "docs" / "kafka.md").read_text(encoding="utf-8"))
    assert SHOWN in found
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    script = "".join(line.removeprefix("$ ") + "\n" for line in found.splitlines())
    set_up = environment()
    set_up["PATH"] = f"{Path(sys.executable).parent}:{set_up['PATH']}"
    try:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(SHOWN, f"kafka://{kafka}")],
            cwd=tmp_path,
            env=set_up,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=500,
        )
    finally:
        # Its names are not of this test alone: another run begins where this one did.
        with contextlib.closing(open_broker(f"kafka://{kafka}")) as broker:
            for topic in broker.admin.describe_topics():
                if topic in {"lines", "word_counts"} or topic.startswith("word_count-"):
                    broker.admin.delete_topic(topic)
    assert ended.returncode == 0, ended.stderr
    assert "be\t2\n" in ended.stdout
