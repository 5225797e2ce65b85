"""Kafka's own command line tools, from Maven Central, kept in `.cache/kafka`."""

import fcntl
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
POM = ROOT / "tests" / "java" / "pom.xml"
JARS = ROOT / ".cache" / "kafka"


def missing_tools() -> str:
    """Return which of the programs that are needed this machine lacks, "" if none."""
    needed = ["java"] if _downloaded() else ["java", "mvn"]
    return " and ".join(name for name in needed if shutil.which(name) is None)


def fetch_jars() -> None:
    """Download the jars, unless those of this pom are there already; of runs side by side one does, the others wait."""
    assert not missing_tools(), f"{missing_tools()} not found: install a JDK 17 and Maven"
    JARS.parent.mkdir(exist_ok=True)
    with JARS.with_name("kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _downloaded():
            _download()


def _download() -> None:
    partial = JARS.with_name("kafka.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
    subprocess.run(command, check=True)
    shutil.copy(POM, partial)
    shutil.rmtree(JARS, ignore_errors=True)
    partial.rename(JARS)


def dump_log_segments(directory: Path, names: list[str], *options: str) -> tuple[str, str]:
    """Run `DumpLogSegments` over files of a directory; return its output and its errors."""
    command = ["java", "-cp", f"{JARS}/*", "org.apache.kafka.tools.DumpLogSegments", "--files", ",".join(names)]
    done = subprocess.run([*command, *options], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def _downloaded() -> bool:
    copied = JARS / POM.name
    return copied.is_file() and copied.read_bytes() == POM.read_bytes()
