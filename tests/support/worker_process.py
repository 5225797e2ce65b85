"""Workers as processes, which can be killed, stopped and continued."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from command_line import ROOT, environment
from fault_site import FaultSite
from ledger_worker import OPENED


class WorkerProcess:
    """One worker; its state and what it complains of stay in its directory."""

    def __init__(self, site: FaultSite, job_name: str, directory: Path) -> None:
        """Start it."""
        directory.mkdir(parents=True, exist_ok=True)
        self._complaints = directory / "complaints"
        file = Path(__file__).with_name("ledger_worker.py")
        arguments = [site.proxy.bootstrap, job_name, str(directory / "state"), directory.name]
        with self._complaints.open("ab") as complaints:
            self.process = subprocess.Popen(
                [sys.executable, str(file), *arguments],
                cwd=ROOT,
                env={**environment(), "PYTHONPATH": str(ROOT)},
                stdout=complaints,
                stderr=complaints,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def opened_count(self) -> int:
        """How many tasks it has opened."""
        return self.complaints.count(OPENED)

    @property
    def complaints(self) -> str:
        """What it printed."""
        return self._complaints.read_text()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait()

    def finish(self, seconds: float = 60.0) -> None:
        """SIGTERM; it must end well, or it had not yet begun to listen."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(seconds) in (0, -signal.SIGTERM), self.complaints

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def descriptor_count(self) -> int:
        """Return how many files and sockets it has open, but for its stores' tables, which grow with what they hold."""
        names = []
        for number in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                names.append(os.readlink(f"/proc/{self.process.pid}/fd/{number}"))
        return sum(not name.endswith(".sst") for name in names)

    def resident_bytes(self) -> int:
        """Return how much memory it has."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
