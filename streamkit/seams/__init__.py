"""The only doors to time, files and chance: `Clock`, `FileSystem`, `Rng`, with their system versions.

Everything above is handed these, so that a test driver or a simulation can stand in for the world.
"""

from streamkit.seams.clock import Clock, ManualClock, SystemClock
from streamkit.seams.filesystem import File, FileSystem, SystemFileSystem
from streamkit.seams.memory import MemoryFileSystem
from streamkit.seams.rng import Rng, SeededRng, SystemRng

__all__ = [
    "Clock",
    "File",
    "FileSystem",
    "ManualClock",
    "MemoryFileSystem",
    "Rng",
    "SeededRng",
    "SystemClock",
    "SystemFileSystem",
    "SystemRng",
]
