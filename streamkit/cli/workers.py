"""`streamkit run --workers N`: worker processes beside each other, seen as one.

Each child is the same command with a worker id of its own. It tells of itself in JSON lines on its standard output, and
stops when its standard input ends, so that none is left behind when this process is killed. It is in a session of its
own: Ctrl-C on the terminal comes here alone, and is handed on once.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from types import FrameType
from typing import Final

import click
import orjson

from streamkit.cli.exits import SIGNALLED
from streamkit.cli.lines import Reporter
from streamkit.runtime import Progress, Summary
from streamkit.seams import Clock

__all__ = ["ChildReporter", "merged_progress", "merged_summary", "run_workers", "when_orphaned"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class ChildReporter:
    """Tells the parent process of a worker: an object a line."""

    def progress(self, progress: Progress) -> None:
        """Tell how it is going."""
        click.echo(orjson.dumps({"progress": asdict(progress)}))

    def summary(self, summary: Summary) -> None:
        """Tell how it ended."""
        click.echo(orjson.dumps({"summary": asdict(summary)}))


def when_orphaned(do: Callable[[], None]) -> None:
    """Do something once standard input ends, which is when the parent process has gone; on a thread of its own."""

    def wait() -> None:
        # Not through sys.stdin: its lock would be held when the interpreter ends.
        while os.read(0, 4096):
            pass
        do()

    threading.Thread(target=wait, name="streamkit-parent", daemon=True).start()


def merged_progress(told: Sequence[Progress]) -> Progress:
    """Return how all workers together are doing; the watermark is that of the slowest, None if one has none yet."""
    watermarks_ms = [one.watermark_ms for one in told]
    known_ms = [watermark_ms for watermark_ms in watermarks_ms if watermark_ms is not None]
    return Progress(
        records_in=sum(one.records_in for one in told),
        records_out=sum(one.records_out for one in told),
        late=sum(one.late for one in told),
        seconds=max(one.seconds for one in told),
        lag=sum(one.lag for one in told),
        watermark_ms=min(known_ms) if len(known_ms) == len(watermarks_ms) else None,
        state_bytes=sum(one.state_bytes for one in told),
        skipped=sum(one.skipped for one in told),
        dead_letters=sum(one.dead_letters for one in told),
    )


def merged_summary(told: Sequence[Summary], *, seconds: float) -> Summary:
    """Return what all workers together did.

    Args:
        told: Of those that ended well.
        seconds: From the start of the first to the end of the last.
    """
    return Summary(
        records_in=sum(one.records_in for one in told),
        records_out=sum(one.records_out for one in told),
        late=sum(one.late for one in told),
        seconds=seconds,
        finished=all(one.finished or one.already_finished for one in told),
        already_finished=all(one.already_finished for one in told),
        skipped=sum(one.skipped for one in told),
        dead_letters=sum(one.dead_letters for one in told),
    )


def run_workers(arguments: Sequence[str], worker_ids: Sequence[str], reporter: Reporter, clock: Clock) -> int:
    """Run workers until all have ended; return the exit code: that of the first to fail, else 0.

    When one fails the others are asked to stop. None is started again.

    Args:
        arguments: Of `streamkit`, the same for all.
        worker_ids: One for each.
        reporter: Told of all of them together.
        clock: For the time that it took.
    """
    started_ms = clock.monotonic_ms()
    crew = _Children(reporter)
    with crew.signals_handed_on():
        for worker_id in worker_ids:
            crew.start([*arguments, "--worker-id", worker_id])
        code = crew.wait()
    if code == 0:
        reporter.summary(merged_summary(crew.summaries, seconds=(clock.monotonic_ms() - started_ms) / 1000))
    return code


class _Children:
    """The processes, and what they have told."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._lock = reporter, threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._told: dict[int, Progress] = {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._asked: list[int] = []
        self.summaries: list[Summary] = []

    def start(self, arguments: Sequence[str]) -> None:
        """Start one; after a signal came, none."""
        if self._asked:
            return
        process = subprocess.Popen(
            [sys.executable, "-m", "streamkit", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._processes.append(process)
        threading.Thread(target=self._listen, args=(len(self._processes) - 1, process), daemon=True).start()

    def wait(self) -> int:
        """Wait for all; return the first code that is not 0."""
        failed = 0
        for _ in self._processes:
            code = self._ended.get()
            code = SIGNALLED - code if code < 0 else code
            if code and not failed:
                failed = code
                self._send(signal.SIGTERM)
        return failed

    @contextlib.contextmanager
    def signals_handed_on(self) -> Iterator[None]:
        """Hand Ctrl-C and SIGTERM on to all: the first one asks them to stop, a second one kills."""

        def hand_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # a handler's shape
            self._asked.append(number)
            self._send(number)

        before = {each: signal.signal(each, hand_on) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _send(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _listen(self, index: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None, "it was asked for"
        try:
            for line in process.stdout:
                self._take(index, orjson.loads(line))
        finally:
            self._ended.put(process.wait())

    def _take(self, index: int, told: dict[str, dict[str, object]]) -> None:
        with self._lock:
            if "summary" in told:
                self.summaries.append(Summary(**told["summary"]))  # type: ignore[arg-type]  # as `ChildReporter` wrote it
                return
            self._told[index] = Progress(**told["progress"])  # type: ignore[arg-type]  # as `ChildReporter` wrote it
            self._reporter.progress(merged_progress(list(self._told.values())))
