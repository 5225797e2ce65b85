"""The wheel holds the library alone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from source_files import ROOT

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_the_wheel_holds_streamkit_alone(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "streamkit",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "streamkit").rglob("*.py")}
    assert source | {"streamkit/py.typed"} <= set(names)
