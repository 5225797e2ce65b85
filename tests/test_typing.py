"""The type checker sees every edge of a job: `tests/typing` under `mypy --strict`, without a plugin.

A line that must not type-check bears a `type: ignore` of the error it must have; under `--strict` one that is not
needed is an error itself, so each of them is an assertion about its own line. All other lines must type-check.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MYPY = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ".cache/mypy-typing"]
"""Its cache is a database of its own: `make check` runs the linters beside the tests, and writers lock each other."""


@pytest.mark.slow
def test_jobs_type_check_exactly_where_they_should() -> None:
    ran = subprocess.run(
        [*MYPY, "tests/typing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_a_line_that_type_checks_though_it_should_not_is_noticed(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        'from streamkit import Job\n\nJob("j").stream("t", value=str).map(len)  # type: ignore[arg-type]\n',
        encoding="utf-8",
    )
    ran = subprocess.run([*MYPY, str(snippet)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "unused-ignore" in ran.stdout
