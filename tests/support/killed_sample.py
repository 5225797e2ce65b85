"""A process that runs a job of `jobs/` to its end, and is killed (SIGKILL) before a given step of its commits.

`python killed_sample.py DIRECTORY NAME STEP`: the log is in DIRECTORY/log, the state in DIRECTORY/state.
"""

import importlib
import os
import signal
import sys
import threading

from streamkit.broker import open_broker
from streamkit.runtime import COMMIT_STEPS, RunOptions, Worker
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

_STEPS = {step.__name__ for step in COMMIT_STEPS}


def main(directory: str, name: str, kill_at: int) -> None:
    left, guard = kill_at, threading.Lock()

    def observe(step: str) -> None:
        nonlocal left
        with guard:
            left -= step in _STEPS
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    topology = compile_graph(importlib.import_module(f"jobs.{name}").job.build())
    options = RunOptions(
        bounded=True, state_dir=f"{directory}/state", fetch_bytes_max=2000, commit_bytes_max=2000, commit_interval_ms=20
    )
    broker = open_broker(f"log://{directory}/log")
    Worker(topology, broker, options=options, fs=SystemFileSystem(), clock=SystemClock(), observe=observe).run(
        threading.Event()
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
