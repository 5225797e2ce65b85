"""A process that runs a job, or sends its dead letters back, and is killed before a given change to its disk.

`python killed_at.py DIRECTORY run|retry CHANGE` in the directory of `job.py`; CHANGE 0 kills never, and prints how many
changes there were.
"""

import os
import signal
import sys
import threading

from watched_files import WatchedFileSystem

from streamkit.broker.open import open_broker
from streamkit.cli.load import load_job
from streamkit.runtime import RunOptions, Worker
from streamkit.runtime.dead_letters import retry_letters
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph


def main(directory: str, action: str, kill_at: int) -> None:
    changes, guard = 0, threading.Lock()

    def watch(change: str, path: str) -> None:
        nonlocal changes
        with guard:
            changes += 1
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    fs, job = WatchedFileSystem(SystemFileSystem()), load_job("job.py")
    fs.watch = watch
    broker = open_broker(f"log://{directory}", fs=fs)
    if action == "retry":
        retry_letters(broker, job.name, None)
    else:
        options = RunOptions(bounded=True, go_on=True, fetch_bytes_max=2000, commit_bytes_max=4000)
        topology = compile_graph(job.build())
        Worker(topology, broker, options=options, fs=SystemFileSystem(), clock=SystemClock()).run(threading.Event())
    broker.close()
    print(changes)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
