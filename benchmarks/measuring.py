"""What every benchmark does alike: time a whole process, and print two sides and their ratio."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"


def timed(command: list[str], **environment: str) -> tuple[float, str]:
    """Run a whole process; return seconds and what it printed."""
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stdout


def millions_a_second(count: int, what: str) -> Callable[[float], str]:
    """Return how fast so many are when they take some seconds, as `print_sides` wants it."""
    return lambda seconds: f"{count / seconds / 1e6:6.3f} M {what}/s"


def print_sides(
    title: str,
    ours: list[float],
    theirs: list[float],
    *,
    against_name: str,
    target: float,
    speed: Callable[[float], str],
) -> None:
    """Print the median and the spread of both sides' seconds, and the ratio of the medians, theirs over ours."""
    print(title)
    for name, seconds in (("streamkit", ours), (against_name, theirs)):
        median = statistics.median(seconds)
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        print(f"  {name:<34} {median:6.2f} s ({spread})  {speed(median)}")
    print(f"  ratio {statistics.median(theirs) / statistics.median(ours):.2f} x (at least {target} x)")
