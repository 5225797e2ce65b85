"""A worker of the ledger job as a process: what `streamkit run` starts, with a shorter session and more commits."""

import signal
import sys
import threading
from typing import Final

from fault_site import kafka_settings
from ledger_job import ledger

from streamkit.broker.kafka import KafkaBroker
from streamkit.runtime import RunOptions, Worker
from streamkit.seams import SystemClock, SystemFileSystem
from streamkit.topology import compile_graph

OPENED: Final = "a task is open"


def _tell(step: str) -> None:
    if step == "opened":
        print(OPENED, flush=True)


def main(bootstrap: str, job_name: str, state_dir: str, worker_id: str) -> None:
    """Run until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    options = RunOptions(state_dir=state_dir, worker_id=worker_id, commit_interval_ms=50, commit_bytes_max=4096)
    broker = KafkaBroker(kafka_settings(bootstrap))
    try:
        topology = compile_graph(ledger(job_name).build())
        Worker(topology, broker, options=options, fs=SystemFileSystem(), clock=SystemClock(), observe=_tell).run(stop)
    finally:
        broker.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
