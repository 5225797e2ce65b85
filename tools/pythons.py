"""Run the unit tests on every supported Python of this machine but the one that runs this; name the missing ones."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLASSIFIER = "Programming Language :: Python :: "
VERSION = "import sys; print('.'.join(map(str, sys.version_info[:2])))"


def supported() -> list[str]:
    """Return the versions that pyproject.toml names, such as `3.11`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [text.removeprefix(CLASSIFIER) for text in project["classifiers"] if text.startswith(CLASSIFIER)]


def candidates(version: str) -> Iterator[str]:
    """Yield the programs that may be a Python of this version: on the path, then in pyenv's directory."""
    if on_path := shutil.which(f"python{version}"):
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True))


def find(version: str) -> str | None:
    """Return a Python that runs and is of this version; a shim of pyenv may stand for one that is not there."""
    for program in candidates(version):
        done = subprocess.run([program, "-c", VERSION], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return program
    return None


def unit_tests(version: str, program: str) -> None:
    """Run the unit tests in an environment of their own, which is made anew when pyproject.toml is newer."""
    environment = ROOT / ".venvs" / version
    python, ready = str(environment / "bin" / "python"), environment / ".ready"
    if not ready.exists() or ready.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        subprocess.run([program, "-m", "venv", "--clear", str(environment)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--editable", ".[test]"], check=True, cwd=ROOT)
        ready.touch()
    subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", "tests/unit"], check=True, cwd=ROOT)


def main() -> None:
    """Go through the supported versions; the first failure ends it."""
    own = ".".join(map(str, sys.version_info[:2]))
    for version in supported():
        program = find(version)
        if version == own:
            print(f"Python {version}: runs the whole suite", flush=True)
        elif program is None:
            print(f"Python {version}: MISSING on this machine, its unit tests are not run", flush=True)
        else:
            print(f"Python {version}: {program}", flush=True)
            unit_tests(version, program)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)} failed")
