"""The only doors to time, files, chance and coroutines: `Clock`, `FileSystem`, `Rng`, `EventLoop`.

Everything above is handed these, so that a test driver or a simulation can stand in for the world.
"""

from streamkit.seams.clock import Clock, ManualClock, SystemClock
from streamkit.seams.event_loop import EventLoop, ManualEventLoop, ThreadEventLoop
from streamkit.seams.filesystem import File, FileSystem, SystemFileSystem
from streamkit.seams.memory import MemoryFileSystem
from streamkit.seams.rng import Rng, SeededRng, SystemRng

__all__ = [
    "Clock",
    "EventLoop",
    "File",
    "FileSystem",
    "ManualClock",
    "ManualEventLoop",
    "MemoryFileSystem",
    "Rng",
    "SeededRng",
    "SystemClock",
    "SystemFileSystem",
    "SystemRng",
    "ThreadEventLoop",
]
