"""The image's steps, taken from the Dockerfile itself, are run in an empty directory and a clean virtual environment.

Paths of the image lie below a directory of the test; what makes users is left out.
"""

import fnmatch
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docker_files import Stage, stages
from source_files import ROOT

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1800)]  # it installs everything anew

NOT_RUN = ("useradd ",)
"""A step that begins so would change the machine that tests."""


class Built:
    """What a stage left below `root`, and the environment that it set."""

    def __init__(self, root: Path, base: Path) -> None:
        self.root, self.here = root, root
        self.environment = {"PATH": f"{base}{os.pathsep}{os.environ['PATH']}", "HOME": str(root)}
        self.skipped: list[str] = []

    def place(self, path: str) -> Path:
        """Return where a path of the image lies."""
        return self.root / path.lstrip("/") if path.startswith("/") else self.here / path

    def step(self, instruction: str, argument: str, earlier: "dict[str, Built]") -> None:
        if instruction == "ENV":
            name, _, value = argument.partition("=")
            for known in self.environment:
                value = value.replace(f"${known}", self.environment[known])
            self.environment[name] = str(self.place(value)) if value.startswith("/") and name != "PATH" else value
        elif instruction == "WORKDIR":
            self.here = self.place(argument)
            self.here.mkdir(parents=True, exist_ok=True)
        elif instruction == "COPY":
            self.copy(argument.split(), earlier)
        elif instruction == "RUN":
            self.run(argument)

    def copy(self, words: list[str], earlier: "dict[str, Built]") -> None:
        stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
        *sources, target = words
        for source in sources:
            origin = ROOT / source if stage is None else earlier[stage].place(source)
            if origin.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(origin, self.place(target), ignore=ignored, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy(origin, self.place(target))

    def run(self, command: str) -> None:
        if command.startswith(NOT_RUN):
            self.skipped.append(command)
            return
        done = subprocess.run(
            ["sh", "-euc", command], cwd=self.here, env=self.environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The last stage, built; its base is a Python that has pip and nothing else."""
    base = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", str(base)], check=True)
    built: dict[str, Built] = {}
    found = Built(base, base / "bin")
    for stage in stages():
        found = Built(tmp_path_factory.mktemp(stage.name or "image"), base / "bin")
        for instruction, argument in stage.steps:
            found.step(instruction, argument, built)
        built[stage.name] = found
    assert found.skipped, "the image has a user of its own"
    # An image's path is the same in both stages; here they lie apart, and a script's first line names its Python.
    for script in (found.root / "opt/streamkit/bin").iterdir():
        if script.is_file() and not script.is_symlink():
            text = script.read_text(encoding="utf-8")
            script.write_text(text.replace(str(built["build"].root), str(found.root)), encoding="utf-8")
    return found


def entry(image: Built, *arguments: str, given: str = "") -> str:
    """Run the image's entry point, as its user would in its working directory."""
    (entry_point,) = stages()[-1].all("ENTRYPOINT")
    command = [*json.loads(entry_point), *arguments]
    path = shutil.which(command[0], path=image.environment["PATH"])
    assert path == str(image.root / "opt/streamkit/bin/streamkit")
    done = subprocess.run(
        [path, *command[1:]], cwd=image.here, env=image.environment, input=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_entry_point_shows_the_commands(image: Built) -> None:
    (arguments,) = stages()[-1].all("CMD")
    assert "Stream-first data processing" in entry(image, *json.loads(arguments))


def test_a_mounted_job_runs_on_a_log(image: Built) -> None:
    shutil.copytree(ROOT / "jobs", image.here / "jobs")
    entry(image, "produce", "lines", given="to be or not to be\n")
    entry(image, "run", "jobs.word_count", "--bounded")
    counts = entry(image, "consume", "word_counts", "--until-end")
    assert sorted(counts.splitlines()) == ["be\t2", "not\t1", "or\t1", "to\t2"]


def test_no_tool_that_builds_or_installs_is_in_the_environment(image: Built) -> None:
    packages = {path.name.partition("-")[0] for path in image.root.glob("opt/streamkit/lib/*/site-packages/*")}
    assert "streamkit" in packages
    assert not packages & {"pip", "setuptools", "wheel", "hatchling", "pytest", "mypy"}
    names = {path.name for path in (image.root / "opt/streamkit/bin").iterdir()}
    assert not any(name.startswith("pip") for name in names)


def test_the_image_runs_as_a_user_without_rights_that_owns_its_state() -> None:
    last = stages()[-1]
    (user,) = last.all("USER")
    (made,) = (command for command in last.all("RUN") if command.startswith("useradd"))
    assert made.split(" && ")[0].split()[-1] == user
    (volume,) = last.all("VOLUME")
    assert f"install --directory --owner {user} {volume}" in made
    instructions = [instruction for instruction, _ in last.steps]
    assert not {"RUN", "COPY", "ADD"} & set(instructions[instructions.index("USER") :])


def test_both_stages_begin_with_the_same_pinned_python() -> None:
    assert {stage.image for stage in stages()} == {"python:3.12-slim"}


def test_the_build_is_given_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    given = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert given == copied(stages()[0])
    assert not any(fnmatch.fnmatch(name, rule) for name in given for rule in rules[1:] if not rule.startswith("!"))


def copied(stage: Stage) -> set[str]:
    return {source for argument in stage.all("COPY") for source in argument.split()[:-1]}
