"""A process that runs a job to its end in small commits, and is killed (SIGKILL) after a given one of them.

`python killed_worker.py BROKER STATE_DIR COMMIT` in the directory of `job.py`; COMMIT 0 kills never. It prints how many
commits there were.
"""

import contextlib
import os
import signal
import sys
import threading

from streamkit.broker import open_broker
from streamkit.cli.load import load_job
from streamkit.runtime import RunOptions, Worker
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph


def main(url: str, state_dir: str, kill_at: int) -> None:
    commits, guard = 0, threading.Lock()

    def observe(step: str) -> None:
        nonlocal commits
        with guard:
            commits += step == "done"
            if step == "done" and commits == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    options = RunOptions(bounded=True, state_dir=state_dir, fetch_bytes_max=2000, commit_bytes_max=4000)
    topology = compile_graph(load_job("job.py").build())
    with contextlib.closing(open_broker(url)) as broker:
        clock, fs = SystemClock(), SystemFileSystem()
        Worker(topology, broker, options=options, fs=fs, clock=clock, observe=observe).run(threading.Event())
    print(commits)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
