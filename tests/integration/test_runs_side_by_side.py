"""Several runs of the tests at a time, as `make check` starts them: what they share is taken by one at a time."""

import os
import subprocess
import sys
from pathlib import Path

import kafka_tools
import ports
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.process]

SUPPORT = Path(ports.__file__).parent


def other_run(code: str, **variables: str) -> "subprocess.Popen[str]":
    """Start a process that imports the support of the tests."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_port_is_given_to_one_run_until_it_ends_though_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with other_run("import ports; print(ports.free_ports(1)[0], flush=True); input()") as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        monkeypatch.setattr(ports, "DRAWN_FROM", [port])
        assert ports.is_free(port)
        with pytest.raises(AssertionError, match="no 1 free ports"):
            ports.free_ports(1)
        other.communicate("\n")
    assert ports.free_ports(1) == [port]


def test_the_jars_are_fetched_by_one_run_and_another_waits_for_it(tmp_path: Path) -> None:
    """A second Maven would find the directory of the first one, and fail."""
    bin_directory, jars = tmp_path / "bin", tmp_path / "cache" / "kafka"
    bin_directory.mkdir()
    maven = f"#!/bin/sh\nset -e\nmkdir {tmp_path}/fetched\necho fetching\nread go\nmkdir {jars}.partial\n"
    for name, text in {"java": "#!/bin/sh\n", "mvn": maven}.items():
        (bin_directory / name).write_text(text)
        (bin_directory / name).chmod(0o755)
    code = f"import kafka_tools, pathlib; kafka_tools.JARS = pathlib.Path({str(jars)!r})\n"
    code += "print('asks', flush=True); kafka_tools.fetch_jars()"
    path = f"{bin_directory}:{os.environ['PATH']}"
    with other_run(code, PATH=path) as first:
        assert first.stdout is not None
        assert [first.stdout.readline(), first.stdout.readline()] == ["asks\n", "fetching\n"]
        with other_run(code, PATH=path) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "asks\n"
            first.communicate("go\n")
            assert second.communicate()[0] == ""
    assert first.returncode == second.returncode == 0
    assert (jars / kafka_tools.POM.name).read_bytes() == kafka_tools.POM.read_bytes()
