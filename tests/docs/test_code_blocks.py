"""Every code block of README and docs is run, page by page, in order, in a directory that holds the jobs alone.

A `python` block goes on where the page's last one ended. A `sh` block is typed as it stands, with `streamkit` on the
path; in a `console` block lines after `$ ` are typed, and must print what follows (`...` stands for anything).
"""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from source_files import ROOT, pages, shown

BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"python", "sh", "console"}
SHOWN = {"", "text", "json", "toml"}
"""Blocks that show something: output, a drawing, a file."""


class Block(NamedTuple):
    """One code block; `line` is where its code begins."""

    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start(2)) + 1) for found in BLOCK.finditer(text)]


PAGES = [page for page in pages() if any(block.language in RUN for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    monkeypatch.setitem(sys.modules, "page", type(sys)("page"))
    for block in blocks(page):
        place = f"{page}:{block.line}"
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
        elif block.language == "sh":
            type_in(block.code, place)
        elif block.language == "console":
            run_console(block.code, place)


def run_console(code: str, place: str) -> None:
    """Type each command, and compare what it prints with what the page shows."""
    for session in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, expected = session.partition("\n")
        printed = type_in(command, place)
        same = doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        assert same, f"{place}: {command}\nprinted:\n{printed}\ninstead of:\n{expected}"


def type_in(command: str, place: str) -> str:
    """Run a command line; return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{place}: {command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_a_code_block_is_run_or_shown(page: Path) -> None:
    unknown = {f"line {block.line}": block.language for block in blocks(page) if block.language not in RUN | SHOWN}
    assert unknown == {}, f"run are {sorted(RUN)}, shown are {sorted(SHOWN)}"


def test_the_readme_shows_the_word_count_whole() -> None:
    job = (ROOT / "jobs" / "word_count.py").read_text(encoding="utf-8")
    assert job in [block.code for block in blocks(ROOT / "README.md")]
