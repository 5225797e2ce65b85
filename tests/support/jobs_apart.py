"""The jobs of `jobs/` under names of their own, so that tests share one cluster."""

import re
from pathlib import Path

from source_files import ROOT

from streamkit import Job
from streamkit.cli.load import load_job

_NAMES = re.compile(r'((?:Job|\.stream|\.to)\(")(\w+)"')


def job_file(name: str, prefix: str, directory: Path) -> Path:
    """Write a job whose name and topics begin with the prefix; everything else is as it stands in `jobs/`."""
    text = (ROOT / "jobs" / f"{name}.py").read_text(encoding="utf-8")
    file = directory / f"{prefix}{name}.py"
    file.write_text(_NAMES.sub(rf'\g<1>{prefix}\g<2>"', text), encoding="utf-8")
    return file


def job_apart(name: str, prefix: str, directory: Path) -> Job:
    """Return such a job."""
    return load_job(str(job_file(name, prefix, directory)))
