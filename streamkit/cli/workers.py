"""`streamkit run --workers N`: worker processes beside each other, seen as one.

Each child is the same command with a worker id of its own. It tells of itself in JSON lines on its standard output, and
stops when its standard input ends, so that none is left behind when this process is killed. It is in a session of its
own: Ctrl-C on the terminal comes here alone, and is handed on once, as SIGTERM: one that is still importing dies of it
without a word, where SIGINT would be a traceback, or be lost to a module that catches it.
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
_STOP: Final = signal.SIGTERM


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
        told: Of those that ended well; none: nothing was done, and nothing is finished.
        seconds: From the start of the first to the end of the last.
    """
    return Summary(
        records_in=sum(one.records_in for one in told),
        records_out=sum(one.records_out for one in told),
        late=sum(one.late for one in told),
        seconds=seconds,
        finished=bool(told) and all(one.finished or one.already_finished for one in told),
        already_finished=bool(told) and all(one.already_finished for one in told),
        skipped=sum(one.skipped for one in told),
        dead_letters=sum(one.dead_letters for one in told),
    )


def run_workers(
    arguments: Sequence[str], worker_ids: Sequence[str], reporter: Reporter, clock: Clock, *, bounded: bool
) -> int:
    """Run workers until all have ended; return the exit code: that of the first to fail, else 0.

    When one fails the others are asked to stop. None is started again. Cut short by a signal, a bounded run has that
    signal's exit code, and so has any run that a second signal killed.

    Args:
        arguments: Of `streamkit`, the same for all.
        worker_ids: One for each.
        reporter: Told of all of them together.
        clock: For the time that it took.
        bounded: Whether the run is to end by itself.
    """
    started_ms = clock.monotonic_ms()
    crew = _Children(reporter)
    with crew.signals_handed_on():
        for worker_id in worker_ids:
            crew.start([*arguments, "--worker-id", worker_id])
        failed = crew.wait()
    summary = merged_summary(crew.summaries, seconds=(clock.monotonic_ms() - started_ms) / 1000)
    code = failed or crew.cut_short(bounded=bounded and not summary.finished)
    if code == 0:
        reporter.summary(summary)
    return code


class _Children:
    """The processes, and what they have told."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._lock = reporter, threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._told: dict[int, Progress] = {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._asked: list[int] = []
        self._handed_on: list[int] = []
        self._died = False
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
        self._handed_on.append(0)
        self._processes.append(process)
        threading.Thread(target=self._listen, args=(len(self._processes) - 1, process), daemon=True).start()
        # A signal that came while it was being started.
        self._hand_on()

    def wait(self) -> int:
        """Wait for all; return the first code of a failure, 0 if there was none: to be stopped is none."""
        failed = 0
        for _ in self._processes:
            code = self._ended.get()
            self._died = self._died or code < 0
            code = SIGNALLED - code if code < 0 else code
            if self._asked and code == SIGNALLED + _STOP:
                continue
            if code and not failed:
                failed = code
                if not self._asked:
                    self._stop()
        return failed

    def cut_short(self, *, bounded: bool) -> int:
        """Return the exit code of a run without a failure: whether, and by what, it was cut short.

        Args:
            bounded: Whether it is bounded and not finished; any other ends by being asked to.
        """
        if len(self._asked) > 1 and self._died:
            return SIGNALLED + self._asked[1]
        return SIGNALLED + self._asked[0] if self._asked and bounded else 0

    @contextlib.contextmanager
    def signals_handed_on(self) -> Iterator[None]:
        """Hand Ctrl-C and SIGTERM on to all: the first one asks them to stop, a second one kills."""

        def hand_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # a handler's shape
            self._asked.append(number)
            self._hand_on()

        before = {each: signal.signal(each, hand_on) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _hand_on(self) -> None:
        """Send each process as many signals as came, whatever comes on the way."""
        for index, process in enumerate(self._processes):
            while self._handed_on[index] < len(self._asked):
                self._handed_on[index] += 1
                process.send_signal(_STOP)

    def _stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(_STOP)

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
