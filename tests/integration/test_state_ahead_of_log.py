"""A log with durability `os` that a power cut took back further than the state: the state is restored."""

import contextlib
import random
from collections import Counter

import orjson
import pytest
from crashes import BusyClock
from machine import Crashed, Machine

from jobs import word_count
from streamkit.broker import open_broker
from streamkit.errors import StoreClosedError
from streamkit.runtime import Guarantee
from streamkit.runtime.stores import MemoryStores
from streamkit.seams import MemoryFileSystem, SeededRng
from streamkit.state import MemoryStore


class NotingStores(MemoryStores):
    """Notes why stores were set aside."""

    def __init__(self, stores: dict[str, MemoryStore], reasons: list[str]) -> None:
        super().__init__()
        self.stores, self._reasons = stores, reasons

    def set_aside(self, task_id: str, reason: str) -> None:
        self._reasons.append(reason)
        super().set_aside(task_id, reason)


class LossyMachine(Machine):
    """A machine whose log may lose its last second, and whose stores, at worst, lose nothing."""

    def __init__(self, guarantee: Guarantee) -> None:
        self.reasons: list[str] = []
        super().__init__(word_count.job, {"lines": 2}, guarantee=guarantee)

    def boot(self) -> None:
        self.broker = open_broker("memory://?durability=os", fs=self.fs, clock=BusyClock(), rng=SeededRng(0))

    def crash(self, *, lose_state: bool = False) -> None:
        super().crash(lose_state=lose_state)
        self.stores = NotingStores(self.stores.stores, self.reasons)

    def _survivors(self) -> tuple[MemoryFileSystem, dict[str, MemoryStore]]:
        for store in self.stores.stores.values():
            with contextlib.suppress(StoreClosedError):
                store.flush()
        return super()._survivors()

    def send_lines(self, first: int) -> None:
        for number in range(first, first + 10):
            line = f"every line counts {number} {number % 3}".encode()
            self.send("lines", number % 2, [(None, line, number)])


@pytest.mark.slow
@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_words_are_counted_right_when_the_log_was_cut_back_behind_the_state(guarantee: Guarantee) -> None:
    """The count that is asked for is that of the lines that the log still has."""
    reasons: list[str] = []
    lost = 0
    for crash_at in range(5, 120, 3):
        machine = LossyMachine(guarantee)
        steps = [0]

        def count(step: str, steps: list[int] = steps, crash_at: int = crash_at) -> None:
            steps[0] += 1
            if steps[0] % crash_at == 0 and steps[0] <= 2 * crash_at:
                raise Crashed

        machine.crash_at = count
        for first in (0, 10, 20):
            machine.send_lines(first)
            if first == 10:
                machine.crash()
            machine.run(random.Random(crash_at + first), bounded=False)
        lines = [value.decode() for _, value, _ in machine.read("lines") if value is not None]
        counted = {key: orjson.loads(value) for key, value, _ in machine.read("word_counts") if key and value}
        expected = Counter(word.encode() for line in lines for word in line.split())
        assert counted == expected, f"crash at step {crash_at}"
        reasons += machine.reasons
        lost += 30 - len(lines)
    assert lost, "no line was ever cut, so this proved nothing"
    assert any("which the log does not have" in reason for reason in reasons), "no state was ever ahead of the log"
