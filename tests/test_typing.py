"""The type checker sees every edge of a job: `tests/typing` under `mypy --strict`, without a plugin.

A line that must not type-check says so: `# error: code`. All other lines must.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOUND = re.compile(r"(?P<file>tests/typing/\S+\.py):(?P<line>\d+): error: .*\[(?P<code>[a-z-]+)\]")
EXPECTED = re.compile(r"# error: (?P<code>[a-z-]+)$")


def expected() -> set[tuple[str, int, str]]:
    return {
        (path.relative_to(ROOT).as_posix(), number, match["code"])
        for path in sorted((ROOT / "tests/typing").glob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (match := EXPECTED.search(line)) is not None
    }


@pytest.mark.slow
def test_jobs_type_check_exactly_where_they_should() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "tests/typing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr
    found = {(match["file"], int(match["line"]), match["code"]) for match in FOUND.finditer(ran.stdout)}
    assert found == expected(), ran.stdout


def test_there_are_lines_that_must_not_type_check() -> None:
    assert len(expected()) > 10
